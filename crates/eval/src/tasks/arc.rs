//! ARC (Clark et al. 2018) and OpenBookQA (Mihaylov et al. 2018): science questions with labelled choices.

use serde_json::Value;
use tritforge_support::counted;

use super::instruction::parts;
use super::{Fields, Question};
use crate::EvalError;

/// ARC: `question`, `choices`, `answerKey`.
pub(crate) fn arc(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let (question, choices, gold) = labelled(fields, "question")?;
    Ok(Question::new(format!("Question: {question}\nAnswer:"), choices, gold))
}

/// OpenBookQA: `question_stem`, `choices`, `answerKey`; the stem is the prompt.
pub(crate) fn openbookqa(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let (question, choices, gold) = labelled(fields, "question_stem")?;
    Ok(Question::new(question, choices, gold))
}

/// The question, its choices, and which is right: in the form of the hub (`choices: {text: […], label:
/// […]}`), in that of the Allen Institute's files (`question: {stem, choices: [{text, label}, …]}`), or as an
/// instruction.
fn labelled(fields: &Fields<'_>, stem: &str) -> Result<(String, Vec<String>, usize), EvalError> {
    if let Some(parts) = parts(fields)? {
        return Ok((parts.question, parts.choices, parts.gold));
    }
    let (question, texts, labels) = match fields.value(if fields.has(stem) { stem } else { "question" })? {
        Value::String(question) => {
            let choices = fields.value("choices")?;
            let list = |name: &str| {
                let at = format!("choices.{name}");
                let value = choices.get(name).ok_or_else(|| fields.fault(format!("no field {at:?}")))?;
                fields.strings(&at, value)
            };
            (question.as_str(), list("text")?, list("label")?)
        }
        nested => {
            let expected = "a string, or {stem, choices: [{text, label}, …]}";
            let fault = || fields.wrong("question", nested, expected);
            let choices = nested.get("choices").and_then(Value::as_array).ok_or_else(fault)?;
            let list = |name: &str| {
                let items = choices.iter().map(|choice| choice.get(name)?.as_str().map(str::to_string));
                items.collect::<Option<Vec<_>>>().filter(|list| list.len() > 1).ok_or_else(fault)
            };
            (nested.get("stem").and_then(Value::as_str).ok_or_else(fault)?, list("text")?, list("label")?)
        }
    };
    if texts.len() != labels.len() {
        return Err(fields.fault(format!(
            "{} with {}",
            counted(texts.len(), "choice"),
            counted(labels.len(), "label")
        )));
    }
    let key = fields.value("answerKey")?;
    let gold = labels.iter().position(|label| key.as_str().is_some_and(|key| key.trim_start() == label));
    let gold = gold.ok_or_else(|| fields.wrong("answerKey", key, &labels.join(" or ")))?;
    Ok((question.to_string(), texts, gold))
}
