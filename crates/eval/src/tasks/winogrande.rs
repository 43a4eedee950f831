//! WinoGrande (Sakaguchi et al. 2019): whom a blank stands for.

use super::instruction::parts;
use super::question::Form;
use super::{Fields, Question};
use crate::EvalError;

/// `sentence` with a `_`, `option1`, `option2`, `answer` (1 or 2). What follows the blank is scored after the
/// sentence's beginning with each option in its place: partial evaluation.
pub(crate) fn winogrande(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let (sentence, options, gold) = match parts(fields)? {
        Some(parts) => (parts.question, parts.choices, parts.gold),
        None => {
            let options = vec![fields.text("option1")?.to_string(), fields.text("option2")?.to_string()];
            let answer = fields.index("answer", 3)?;
            let Some(gold) = answer.checked_sub(1) else {
                return Err(fields.wrong("answer", fields.value("answer")?, "1 or 2"));
            };
            (fields.text("sentence")?.to_string(), options, gold)
        }
    };
    let Some((before, after)) = sentence.split_once('_') else {
        return Err(fields.fault("the sentence has no blank (_)"));
    };
    let contexts = options.iter().map(|option| format!("{before}{option}")).collect();
    Ok(Question { form: Form::Contexts { contexts, continuation: after.trim().to_string() }, gold })
}
