//! Perplexity and bits per byte of a text.

use serde::Serialize;
use tritforge_kernels::log_sum_exp;

use crate::{EvalError, Subject};

/// How well a model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    /// Mean cross-entropy in nats a token.
    pub loss: f64,
    /// e^loss.
    pub perplexity: f64,
    /// Bits a byte of the text, comparable between tokenizers.
    pub bits_per_byte: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Bytes of the text that they stand for.
    pub bytes: usize,
}

/// Scores `text` in consecutive windows of at most `window` inputs, each with an empty context; every token but the first
/// is predicted once. `max_tokens` cuts the text short. `each` sees the ids and logits of each window.
///
/// # Errors
/// If the text has fewer than two tokens, or the window is 0 or longer than the model's context.
pub fn perplexity(
    subject: &Subject,
    text: &str,
    window: usize,
    max_tokens: Option<usize>,
    mut each: impl FnMut(&[u32], &[f32]) -> Result<(), EvalError>,
) -> Result<Perplexity, EvalError> {
    let longest = subject.config().max_position_embeddings;
    if window == 0 || window > longest {
        return Err(EvalError::Input(format!(
            "window = {window}: expected 1 to {longest}, the model's context"
        )));
    }
    let all = subject.tokenizer().encode(text, false)?;
    let ids = &all[..max_tokens.map_or(all.len(), |n| all.len().min(n.saturating_add(1)))];
    if ids.len() < 2 {
        return Err(EvalError::Input(format!("the text has {} tokens, at least 2 are needed", ids.len())));
    }
    let vocab = subject.config().vocab_size;
    let mut nats = 0f64;
    let targets = &ids[1..];
    for (inputs, targets) in ids[..ids.len() - 1].chunks(window).zip(targets.chunks(window)) {
        let logits = subject.logits(inputs)?;
        for (row, target) in logits.chunks_exact(vocab).zip(targets) {
            nats += f64::from(log_sum_exp(row) - row[*target as usize]);
        }
        each(inputs, &logits)?;
    }
    let bytes = if ids.len() == all.len() { text.len() } else { subject.tokenizer().decode(ids)?.len() };
    let loss = nats / targets.len() as f64;
    Ok(Perplexity {
        loss,
        perplexity: loss.exp(),
        bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
        tokens: targets.len(),
        bytes,
    })
}
