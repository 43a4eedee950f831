//! PIQA (Bisk et al. 2020): which of two ways reaches a goal.

use super::instruction::parts;
use super::{Fields, Question};
use crate::EvalError;

/// `goal`, `sol1`, `sol2`, `label` (0 or 1).
pub(crate) fn piqa(fields: &Fields<'_>) -> Result<Question, EvalError> {
    let (goal, choices, gold) = match parts(fields)? {
        Some(parts) => (parts.question, parts.choices, parts.gold),
        None => {
            let choices = vec![fields.text("sol1")?.to_string(), fields.text("sol2")?.to_string()];
            (fields.text("goal")?.to_string(), choices, fields.index("label", 2)?)
        }
    };
    Ok(Question::new(format!("Question: {goal}\nAnswer:"), choices, gold))
}
