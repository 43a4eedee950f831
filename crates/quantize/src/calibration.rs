//! The text that the conversion looks at, as sequences of tokens.

use tritforge_text::Tokenizer;

use crate::QuantizeError;

/// Sequences of tokens, equally long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Calibration {
    /// One sequence after the other.
    pub ids: Vec<u32>,
    /// Tokens of each.
    pub length: usize,
}

impl Calibration {
    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.ids.len() / self.length.max(1)
    }
}

/// At most `samples` sequences of `length` tokens, evenly spread over the text and without overlap. Each begins with
/// the BOS token where the tokenizer adds one.
///
/// # Errors
/// If the text is shorter than one sequence, or the tokenizer fails.
pub fn calibration_ids(
    tokenizer: &Tokenizer,
    text: &str,
    samples: usize,
    length: usize,
) -> Result<Calibration, QuantizeError> {
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let fresh = length.saturating_sub(usize::from(bos.is_some()));
    let all = tokenizer.encode(text, false)?;
    let most = all.len().checked_div(fresh).unwrap_or(0);
    let count = samples.min(most);
    if count == 0 {
        return Err(QuantizeError::Option {
            option: "--text",
            found: format!("{} tokens, {samples} sequences", all.len()),
            expected: format!("at least one sequence of {length} tokens"),
        });
    }
    let mut ids = Vec::with_capacity(count * length);
    for sample in 0..count {
        let first = sample * most / count * fresh;
        ids.extend(bos);
        ids.extend_from_slice(&all[first..first + fresh]);
    }
    Ok(Calibration { ids, length })
}
