//! Log-likelihoods of continuations: what multiple choice asks of a model.
//!
//! A file's sequences go through one session, so that what they have in common with the one before is
//! computed once: the few-shot examples of a task, the question of its choices. The choices then run in one
//! pass over the weights. A checkpoint has no cache: the choices of a question run as one batch.

use std::sync::Arc;

use tritforge_infer::{KvType, LogitsRequest, SequenceInput, Session, step};
use tritforge_kernels::log_sum_exp;
use tritforge_support::counted;

use crate::finite::{finite, metric};
use crate::{EvalError, EvalModel};

/// A sequence of tokens of which the last ones are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScoredSequence {
    /// The tokens of context and continuation.
    pub ids: Vec<u32>,
    /// Number of tokens of the context, at least 1.
    pub context: usize,
}

impl ScoredSequence {
    /// What the model runs: all but the last token.
    fn inputs(&self) -> &[u32] {
        &self.ids[..self.ids.len() - 1]
    }

    /// The input whose logits predict the continuation's first token.
    fn first_row(&self) -> usize {
        self.context - 1
    }
}

/// Bytes that the choices of a question may take at once, of logits and of copied keys and values each. If
/// they are more, one choice follows the other.
const MOST_BYTES: usize = 512 << 20;

/// How probable a continuation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogLikelihood {
    /// Σ ln p(token | all before it) over the continuation, in nats.
    pub nats: f64,
    /// Whether every token of it is the most probable one.
    pub greedy: bool,
}

/// A model at work.
#[derive(Debug)]
pub struct Scorer<'a> {
    model: &'a EvalModel,
    /// The sequence that a file's model saw last.
    session: Option<Session>,
}

impl<'a> Scorer<'a> {
    /// A scorer with an empty cache.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn new(model: &'a EvalModel) -> Result<Self, EvalError> {
        let session = match model {
            EvalModel::Trained { .. } => None,
            EvalModel::Deployed(model) => {
                let context = model.config().max_position_embeddings;
                Some(Session::with_kv(Arc::clone(model), context, KvType::F32)?)
            }
        };
        Ok(Self { model, session })
    }

    /// The model.
    pub fn model(&self) -> &'a EvalModel {
        self.model
    }

    /// The longest sequence: the last token is predicted and not run, so that it is one more than the model's
    /// context.
    pub fn longest(&self) -> usize {
        self.model.config().max_position_embeddings + 1
    }

    /// The log-likelihood of each sequence's continuation.
    ///
    /// # Errors
    /// If a sequence has no context or no continuation, is longer than [`Self::longest`], or has an unknown
    /// token.
    pub fn score(&mut self, sequences: &[ScoredSequence]) -> Result<Vec<LogLikelihood>, EvalError> {
        for ScoredSequence { ids, context } in sequences {
            if *context == 0 || *context >= ids.len() || ids.len() > self.longest() {
                let message = format!(
                    "{context} of context and {} in total: expected at least one of context and one \
                     to score, and at most {} in total",
                    ids.len(),
                    self.longest(),
                    context = counted(*context, "token")
                );
                return Err(EvalError::Input(message));
            }
            // The engine looks at what it runs: all but the last token.
            let vocab = self.model.config().vocab_size;
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
                return Err(EvalError::Input(format!("token {id} is outside the vocabulary of {vocab}")));
            }
        }
        let logits = match (&mut self.session, self.model) {
            (Some(session), _) => through_session(session, sequences, self.model.config().vocab_size)?,
            (None, model) => as_batch(model, sequences)?,
        };
        let vocab = self.model.config().vocab_size;
        let each = sequences.iter().zip(&logits);
        each.map(|(one, logits)| of_continuation(&one.ids[one.context..], logits, vocab)).collect()
    }
}

/// Logits of the rows that predict each continuation. What the session has in common with the first sequence,
/// and all of them with one another, is run once.
fn through_session(
    session: &mut Session,
    sequences: &[ScoredSequence],
    vocab: usize,
) -> Result<Vec<Vec<f32>>, EvalError> {
    let [first, others @ ..] = sequences else { return Ok(Vec::new()) };
    let common = |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let prefix = others.iter().fold(first.first_row(), |prefix, other| {
        prefix.min(other.first_row()).min(common(first.inputs(), other.inputs()))
    });
    let rows: usize = sequences.iter().map(|one| one.inputs().len() - prefix).sum();
    let kept = common(session.tokens(), first.inputs()).min(prefix);
    session.truncate(kept);
    if kept < prefix {
        session.forward(&first.inputs()[kept..prefix], LogitsRequest::None)?;
    }
    let (logits, copied) = (rows * vocab * size_of::<f32>(), session.kv_bytes() * sequences.len());
    if others.is_empty() || logits > MOST_BYTES || copied > MOST_BYTES {
        return sequences.iter().map(|one| alone(session, one)).collect();
    }
    let mut copies = vec![session.clone(); sequences.len()];
    let mut parts: Vec<SequenceInput<'_>> = copies
        .iter_mut()
        .zip(sequences)
        .map(|(session, one)| SequenceInput {
            session,
            ids: &one.inputs()[prefix..],
            request: LogitsRequest::All,
        })
        .collect();
    let mut logits = step(&mut parts)?;
    for (logits, one) in logits.iter_mut().zip(sequences) {
        logits.drain(..(one.first_row() - prefix) * vocab);
    }
    Ok(logits)
}

/// Logits of the rows that predict the continuation; what the session has in common with the sequence is not
/// run again.
fn alone(session: &mut Session, scored: &ScoredSequence) -> Result<Vec<f32>, EvalError> {
    let (inputs, first) = (scored.inputs(), scored.first_row());
    let common = session.tokens().iter().zip(inputs).take_while(|(a, b)| a == b).count();
    let kept = common.min(first);
    session.truncate(kept);
    if kept < first {
        session.forward(&inputs[kept..first], LogitsRequest::None)?;
    }
    Ok(session.forward(&inputs[first..], LogitsRequest::All)?)
}

/// Logits of the rows that predict each continuation, by the training forward. Shorter sequences are padded
/// at their end, where no row before sees it.
fn as_batch(model: &EvalModel, sequences: &[ScoredSequence]) -> Result<Vec<Vec<f32>>, EvalError> {
    let EvalModel::Trained { decoder, .. } = model else { return Ok(Vec::new()) };
    let vocab = decoder.config().vocab_size;
    let longest = sequences.iter().map(|s| s.inputs().len()).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(longest * sequences.len());
    let mut rows = Vec::new();
    for (i, one) in sequences.iter().enumerate() {
        rows.extend((one.first_row()..one.inputs().len()).map(|row| i * longest + row));
        ids.extend_from_slice(one.inputs());
        ids.resize((i + 1) * longest, 0);
    }
    let logits = finite(decoder.logits_of_rows(&ids, sequences.len(), &rows)?, vocab, 0)?;
    let mut rest = logits.as_slice();
    let split = |one: &ScoredSequence| {
        let (own, after) = rest.split_at((one.ids.len() - one.context) * vocab);
        rest = after;
        own.to_vec()
    };
    Ok(sequences.iter().map(split).collect())
}

fn of_continuation(targets: &[u32], logits: &[f32], vocab: usize) -> Result<LogLikelihood, EvalError> {
    let mut out = LogLikelihood { nats: 0.0, greedy: true };
    for (row, target) in logits.chunks_exact(vocab).zip(targets) {
        let logit = row[*target as usize];
        out.nats += f64::from(logit - log_sum_exp(row));
        out.greedy &= row.iter().all(|other| *other <= logit);
    }
    metric("the log-likelihood", out.nats)?;
    Ok(out)
}
