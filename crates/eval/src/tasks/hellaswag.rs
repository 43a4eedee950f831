//! HellaSwag (Zellers et al. 2019): how a description goes on.

use super::instruction::parts;
use super::{Fields, Question};
use crate::EvalError;

/// `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`.
pub(crate) fn hellaswag(fields: &Fields<'_>) -> Result<Question, EvalError> {
    if let Some(parts) = parts(fields)? {
        let choices = parts.choices.iter().map(|choice| clean(choice)).collect();
        return Ok(Question::new(clean(&parts.question), choices, parts.gold));
    }
    let (label, a, b) = (fields.text("activity_label")?, fields.text("ctx_a")?, fields.text("ctx_b")?);
    let endings = fields.texts("endings")?;
    let gold = fields.index("label", endings.len())?;
    let context = clean(&format!("{label}: {a} {}", capitalized(b)));
    Ok(Question::new(context, endings.iter().map(|ending| clean(ending)).collect(), gold))
}

/// Without the marks of WikiHow's pages: `[title]` becomes a full stop, other brackets vanish with what they
/// hold.
fn clean(text: &str) -> String {
    let text = text.trim().replace(" [title]", ". ");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(open) = rest.find('[') {
        let (before, bracket) = rest.split_at(open);
        out.push_str(before);
        // A bracket ends on its line or is none.
        let end = bracket.find([']', '\n']).filter(|at| bracket.as_bytes()[*at] == b']');
        match end {
            Some(end) => rest = &bracket[end + 1..],
            None => {
                out.push('[');
                rest = &bracket[1..];
            }
        }
    }
    out.push_str(rest);
    out.replace("  ", " ")
}

/// The first letter upper case and all others lower case, as Python's `str.capitalize`.
fn capitalized(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters.as_str().to_lowercase().chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `preprocess` of lm-evaluation-harness gives.
    #[test]
    fn marks_of_wikihow_are_taken_out() {
        for (text, expected) in [
            (" How to [title] do it. [step] First   x", "How to. do it. First  x"),
            ("a [header] b [x", "a b [x"),
            ("a [b\nc] d", "a [b\nc] d"),
            ("a [[b] c]", "a c]"),
        ] {
            assert_eq!(clean(text), expected);
        }
        assert_eq!(capitalized("then HE Goes"), "Then he goes");
        assert_eq!(capitalized(""), "");
    }
}
