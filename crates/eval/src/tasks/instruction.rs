//! Multiple choice as instructions, in the form of LLM-Adapters (arXiv 2304.01933).
//!
//! The question and its choices stand in the field `instruction` ("Please choose the correct answer to the
//! question: … Answer1: … Answer2: … Answer format: answer1/answer2"), the right label in `answer`. Every
//! task takes such samples too and puts its own prompt around their question; the task `instruction` scores
//! the answers that they were written for.

use super::{Fields, Question};
use crate::EvalError;

/// The parts of such a sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The question alone.
    pub(crate) question: String,
    /// The choices' texts; empty where the labels themselves are the choices (`true/false`).
    pub(crate) choices: Vec<String>,
    /// The labels, as in `answer1`.
    pub(crate) labels: Vec<String>,
    /// Which is right.
    pub(crate) gold: usize,
}

const FORMAT: &str = "Answer format:";

/// The parts, if the sample has this form.
///
/// # Errors
/// If it has, and a part is missing.
pub(crate) fn parts(fields: &Fields<'_>) -> Result<Option<Parts>, EvalError> {
    if !fields.has("instruction") || !fields.has("answer") {
        return Ok(None);
    }
    let instruction = fields.text("instruction")?;
    let fault = |message: &str| fields.fault(format!("field \"instruction\" {message}"));
    let Some((body, labels)) = instruction.rsplit_once(FORMAT) else {
        return Err(fault("has no \"Answer format: …\" at its end"));
    };
    let labels: Vec<String> = labels.trim().split('/').map(|label| label.trim().to_string()).collect();
    let answer = fields.value("answer")?;
    let gold = labels.iter().position(|label| answer.as_str().is_some_and(|text| text.trim() == label));
    let gold = gold.ok_or_else(|| fields.wrong("answer", answer, &labels.join(" or ")))?;
    let Some((_, mut rest)) = body.split_once(": ") else {
        return Err(fault("has no question: expected \"…: QUESTION\""));
    };
    let mut texts = Vec::new();
    if !labels.iter().all(|label| label == "true" || label == "false") {
        for label in &labels {
            let mark = heading(label);
            let Some((before, after)) = rest.split_once(mark.as_str()) else {
                return Err(fault(&format!("has no {mark:?}")));
            };
            texts.push(before);
            rest = after;
        }
    }
    texts.push(rest);
    let mut texts = texts.into_iter().map(|text| text.trim().to_string());
    let question = texts.next().unwrap_or_default();
    let choices: Vec<String> = texts.collect();
    if let Some(empty) = choices.iter().position(String::is_empty) {
        return Err(fault(&format!("has an empty choice, {}", labels[empty])));
    }
    Ok(Some(Parts { question, choices, labels, gold }))
}

/// How a choice begins: `answer1` with `Answer1:`.
fn heading(label: &str) -> String {
    let mut characters = label.chars();
    let first = characters.next().map(|c| c.to_ascii_uppercase());
    first.into_iter().chain(characters).chain([':']).collect()
}

/// The instruction as it stands, with `input` behind it, and "the correct answer is LABEL" as its
/// continuations.
pub(crate) fn verbatim(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let Some(Parts { labels, gold, .. }) = parts(fields)? else {
        return Err(fields.fault("expected the fields \"instruction\" and \"answer\""));
    };
    let instruction = fields.text("instruction")?;
    let input = if fields.has("input") { fields.text("input")? } else { "" };
    let context =
        if input.is_empty() { instruction.to_string() } else { format!("{instruction}\n\n{input}") };
    let choices = labels.iter().map(|label| format!("the correct answer is {label}")).collect();
    Ok(Question::new(context, choices, gold))
}
