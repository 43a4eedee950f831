//! Social IQa (Sap et al. 2019): what people do and feel.

use super::instruction::parts;
use super::{Fields, Question};
use crate::EvalError;

/// `context`, `question`, `answerA`, `answerB`, `answerC`, `label` (1 to 3).
pub(crate) fn social_iqa(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let (question, choices, gold) = match parts(fields)? {
        Some(parts) => (parts.question, parts.choices, parts.gold),
        None => {
            let question = format!("{} {}", fields.text("context")?, fields.text("question")?);
            let choices = ["answerA", "answerB", "answerC"].map(|name| fields.text(name).map(str::to_string));
            let Some(gold) = fields.index("label", 4)?.checked_sub(1) else {
                return Err(fields.wrong("label", fields.value("label")?, "1, 2 or 3"));
            };
            (question, choices.into_iter().collect::<Result<Vec<_>, _>>()?, gold)
        }
    };
    Ok(Question::new(format!("Q: {question}\nA:"), choices, gold))
}
