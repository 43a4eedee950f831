//! Perplexity and bits per byte of a text.

use serde::Serialize;
use tritforge_infer::KvType;
use tritforge_kernels::log_sum_exp;
use tritforge_support::counted;

use crate::finite::metric;
use crate::{EvalError, EvalModel};

/// How well a model predicts a text.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Perplexity {
    /// Mean cross-entropy in nats a token.
    pub loss: f64,
    /// Its standard error, as if tokens were independent; times the perplexity it is what llama.cpp prints
    /// behind `+/-`.
    pub loss_stderr: f64,
    /// e^loss.
    pub perplexity: f64,
    /// Bits a byte of the text, comparable between tokenizers.
    pub bits_per_byte: f64,
    /// Tokens predicted.
    pub tokens: usize,
    /// Bytes of the text that they stand for.
    pub bytes: usize,
}

/// Which tokens are predicted, and from what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Consecutive windows of at most `window` inputs, each with an empty context; every token but the text's
    /// first is predicted once.
    All {
        /// Inputs a window.
        window: usize,
    },
    /// As llama.cpp's perplexity tool: whole windows of `window` tokens, of which those behind the middle are
    /// predicted, so that each has at least half a window before it. If sequences begin with BOS the text
    /// does, and the first token of every window is replaced by it. What is left at the end of the text is
    /// dropped.
    SecondHalf {
        /// Tokens a window.
        window: usize,
    },
}

/// How a text is scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PerplexityOptions {
    /// Which tokens are predicted.
    pub scoring: Scoring,
    /// Tokens predicted at most.
    pub max_tokens: Option<usize>,
    /// How an exported model stores keys and values.
    pub kv: KvType,
}

impl From<Scoring> for PerplexityOptions {
    /// The whole text, with keys and values as training computes them.
    fn from(scoring: Scoring) -> Self {
        Self { scoring, max_tokens: None, kv: KvType::F32 }
    }
}

/// Scores `text`. `each` sees the ids and logits of each window.
///
/// # Errors
/// If the text has fewer than two tokens or no whole window, the window is too short or longer than the
/// model's context, or a logit or a figure is NaN or infinite; if the model is a checkpoint, which has no cache, and
/// keys and values are not to be f32.
pub fn perplexity(
    model: &EvalModel,
    text: &str,
    options: impl Into<PerplexityOptions>,
    each: impl FnMut(&[u32], &[f32]) -> Result<(), EvalError>,
) -> Result<Perplexity, EvalError> {
    let options = options.into();
    let (window, shortest) = match options.scoring {
        Scoring::All { window } => (window, 1),
        Scoring::SecondHalf { window } => (window, 4),
    };
    let longest = model.config().max_position_embeddings;
    if window < shortest || window > longest {
        return Err(EvalError::Input(format!(
            "window = {window}: expected {shortest} to {longest}, the model's context length"
        )));
    }
    match options.scoring {
        Scoring::All { window } => all(model, text, (window, options), each),
        Scoring::SecondHalf { window } => second_halves(model, text, (window, options), each),
    }
}

fn all(
    model: &EvalModel,
    text: &str,
    (window, PerplexityOptions { max_tokens, kv, .. }): (usize, PerplexityOptions),
    mut each: impl FnMut(&[u32], &[f32]) -> Result<(), EvalError>,
) -> Result<Perplexity, EvalError> {
    let all = model.text_tokenizer()?.encode(text, false)?;
    let ids = &all[..max_tokens.map_or(all.len(), |n| all.len().min(n.saturating_add(1)))];
    if ids.len() < 2 {
        return Err(EvalError::Input(format!(
            "the text has {}; at least 2 are needed",
            counted(ids.len(), "token")
        )));
    }
    let mut sums = Sums::default();
    let targets = &ids[1..];
    for (inputs, targets) in ids[..ids.len() - 1].chunks(window).zip(targets.chunks(window)) {
        let logits = model.logits_with(inputs, kv)?;
        sums.add(&logits, targets, model.config().vocab_size);
        each(inputs, &logits)?;
    }
    let bytes = if ids.len() == all.len() { text.len() } else { model.text_tokenizer()?.decode(ids)?.len() };
    sums.finish(bytes)
}

fn second_halves(
    model: &EvalModel,
    text: &str,
    (window, PerplexityOptions { max_tokens, kv, .. }): (usize, PerplexityOptions),
    mut each: impl FnMut(&[u32], &[f32]) -> Result<(), EvalError>,
) -> Result<Perplexity, EvalError> {
    let (tokenizer, vocab) = (model.text_tokenizer()?, model.config().vocab_size);
    let bos = tokenizer.bos().filter(|_| tokenizer.adds_bos());
    let ids = tokenizer.encode(text, bos.is_some())?;
    let first = window / 2;
    let scored = window - 1 - first;
    let windows = (ids.len() / window).min(max_tokens.map_or(usize::MAX, |most| most / scored));
    if windows == 0 {
        return Err(EvalError::Input(format!(
            "the text has {} and at most {} are to be scored, but each window of {window} \
             {scored}",
            counted(ids.len(), "token"),
            max_tokens.unwrap_or(ids.len()),
            window = counted(window, "score")
        )));
    }
    let (mut sums, mut bytes) = (Sums::default(), 0);
    for own in ids.chunks_exact(window).take(windows) {
        let mut inputs = own.to_vec();
        if let Some(bos) = bos {
            inputs[0] = bos;
        }
        let logits = model.logits_with(&inputs, kv)?;
        // The last row predicts what is no more in the window.
        let targets = &own[first + 1..];
        sums.add(&logits[first * vocab..(window - 1) * vocab], targets, vocab);
        for id in targets {
            bytes += tokenizer.bytes(*id)?.len();
        }
        each(&inputs, &logits)?;
    }
    sums.finish(bytes)
}

/// Sums over tokens of −ln p and its square.
#[derive(Default)]
struct Sums {
    nats: f64,
    squares: f64,
    tokens: usize,
}

impl Sums {
    fn add(&mut self, logits: &[f32], targets: &[u32], vocab: usize) {
        for (row, target) in logits.chunks_exact(vocab).zip(targets) {
            let nats = f64::from(log_sum_exp(row) - row[*target as usize]);
            self.nats += nats;
            self.squares += nats * nats;
        }
        self.tokens += targets.len();
    }

    /// # Errors
    /// If a figure is NaN or infinite.
    fn finish(&self, bytes: usize) -> Result<Perplexity, EvalError> {
        let n = self.tokens as f64;
        let loss = self.nats / n;
        // Before `max`, which would make 0 of a NaN.
        metric("the loss", loss)?;
        let variance = metric("the variance of the loss", self.squares / n - loss * loss)?.max(0.0);
        Ok(Perplexity {
            loss,
            loss_stderr: (variance / (n - 1.0).max(1.0)).sqrt(),
            perplexity: metric("perplexity", loss.exp())?,
            bits_per_byte: metric("bits/byte", self.nats / std::f64::consts::LN_2 / bytes as f64)?,
            tokens: self.tokens,
            bytes,
        })
    }
}
