//! BoolQ (Clark et al. 2019): yes or no, by a passage.

use serde_json::Value;

use super::instruction::parts;
use super::{Fields, Question};
use crate::EvalError;

/// `passage`, `question` (without its question mark), `label` (0 or 1; `answer`, true or false, in the
/// authors' files).
pub(crate) fn boolq(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let choices = || vec!["no".to_string(), "yes".to_string()];
    if let Some(parts) = parts(fields)? {
        // Instructions have lost the passage, and have gained the question mark.
        let question = parts.question.strip_suffix('?').unwrap_or(&parts.question);
        let gold = usize::from(parts.labels[parts.gold] == "true");
        return Ok(Question::new(format!("Question: {question}?\nAnswer:"), choices(), gold));
    }
    let gold = match fields.has("label") {
        true => fields.index("label", 2)?,
        false => match fields.value("answer")? {
            Value::Bool(answer) => usize::from(*answer),
            other => return Err(fields.wrong("answer", other, "true or false")),
        },
    };
    let (passage, question) = (fields.text("passage")?, fields.text("question")?);
    Ok(Question::new(format!("{passage}\nQuestion: {question}?\nAnswer:"), choices(), gold))
}
