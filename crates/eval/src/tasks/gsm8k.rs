//! GSM8K (Cobbe et al. 2021): word problems whose answer is a number.
//!
//! The number is taken out of the model's text in the two ways of lm-evaluation-harness, and compared as it
//! compares.

use super::Fields;
use crate::EvalError;

/// What ends an answer beside the end-of-sequence token.
pub(crate) const STOP: [&str; 3] = ["Question:", "</s>", "<|im_end|>"];

/// `question` as a prompt, and `answer`: reasoning, `####`, and the number.
pub(crate) fn gsm8k(fields: &Fields<'_>) -> Result<(String, String), EvalError> {
    let (question, answer) = (fields.text("question")?, fields.text("answer")?);
    if !answer.contains("#### ") {
        return Err(fields.wrong("answer", fields.value("answer")?, "\"#### NUMBER\" at its end"));
    }
    Ok((format!("Question: {question}\nAnswer:"), answer.to_string()))
}

/// What no text contains and stands for an answer that has no number.
const INVALID: &str = "[invalid]";

/// The number behind the first `#### `: the expression `#### (\-?[0-9\.\,]+)`.
pub fn strict(text: &str) -> &str {
    let mut rest = text;
    while let Some(at) = rest.find("#### ") {
        rest = &rest[at + 5..];
        let digits = &rest[usize::from(rest.starts_with('-'))..];
        let length = digits.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',');
        let end = rest.len() - digits.len() + length.unwrap_or(digits.len());
        if length != Some(0) && !digits.is_empty() {
            return &rest[..end];
        }
    }
    INVALID
}

/// The last number of a text, whatever stands before it: the expression `(-?[$0-9.,]{2,})|(-?[0-9]+)`.
pub fn flexible(text: &str) -> &str {
    let bytes = text.as_bytes();
    let of_number = |b: &u8| b.is_ascii_digit() || matches!(b, b'$' | b'.' | b',');
    let (mut at, mut last) = (0, INVALID);
    while at < bytes.len() {
        let start = at + usize::from(bytes[at] == b'-');
        let run = bytes[start..].iter().take_while(|b| of_number(b)).count();
        let number = run > 1 || (run == 1 && bytes[start].is_ascii_digit());
        if number {
            last = &text[at..start + run];
        }
        // Behind the match, or on to the next byte; a lone sign or point is no number.
        at = if number { start + run } else { at + 1 };
    }
    last
}

/// A number as it is compared: without commas, dollar signs, all before `#### `, and a point at its end.
fn comparable(text: &str) -> String {
    let text = text.replace([',', '$'], "");
    let text = text.rsplit_once("#### ").map_or(text.as_str(), |(_, number)| number);
    text.strip_suffix('.').unwrap_or(text).to_lowercase()
}

/// Whether what was taken out of a text is the answer.
pub(crate) fn matches(taken: &str, answer: &str) -> bool {
    comparable(taken) == comparable(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Python's `re` finds by the two expressions.
    #[test]
    fn numbers_are_taken_out_as_by_the_expressions() {
        for (text, by_strict, by_flexible) in [
            ("so 5 + 5 = 10. #### 10", "10", "10"),
            ("no", INVALID, INVALID),
            ("#### -1,234.", "-1,234.", "-1,234."),
            ("#### 1 #### 2", "1", "2"),
            ("x $3.50 and -7", INVALID, "-7"),
            ("about 5.", INVALID, "5."),
            ("-5 and 6-", INVALID, "6"),
            ("...", INVALID, "..."),
            ("1 2 .", INVALID, "2"),
            ("$", INVALID, INVALID),
            ("costs -$12,000.00.", INVALID, "-$12,000.00."),
            ("3-4", INVALID, "-4"),
            ("--4", INVALID, "-4"),
            ("a.b,c 7 x.", INVALID, "7"),
            ("#### - 4", INVALID, "4"),
            ("####5", INVALID, "5"),
            ("#### 12abc", "12", "12"),
            ("größe 3 €", INVALID, "3"),
        ] {
            assert_eq!((strict(text), flexible(text)), (by_strict, by_flexible), "{text}");
        }
    }

    #[test]
    fn answers_are_compared_without_their_dress() {
        let answer = "He has 2 * 600 = <<2*600=1200>>1,200.\n#### 1,200";
        for (taken, right) in [("1200", true), ("$1,200.", true), ("1200.0", false), (INVALID, false)] {
            assert_eq!(matches(taken, answer), right, "{taken}");
        }
    }
}
