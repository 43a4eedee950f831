//! Log-likelihoods of continuations, and greedy text: what every task asks of a model.
//!
//! A file's sequences go through one session, so that what they have in common with the one before is computed once: the
//! few-shot examples of a task, the question of its choices. A checkpoint has no cache: the choices of a question run as one
//! batch, and every generated token runs the whole sequence again.

use std::sync::Arc;

use tritforge_infer::{KvType, Passed, Sampler, Sampling, Session, StopFilter, Wanted};
use tritforge_kernels::log_sum_exp;

use crate::{EvalError, Subject};

/// A sequence of tokens of which the last ones are scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scored {
    /// The tokens of context and continuation.
    pub ids: Vec<u32>,
    /// Number of tokens of the context, at least 1.
    pub context: usize,
}

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
    subject: &'a Subject,
    /// The sequence that a file's model saw last.
    session: Option<Session>,
}

impl<'a> Scorer<'a> {
    /// A scorer with an empty cache.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn new(subject: &'a Subject) -> Result<Self, EvalError> {
        let session = match subject {
            Subject::Checkpoint { .. } => None,
            Subject::Gguf(model) => {
                let context = model.config().max_position_embeddings;
                Some(Session::with_kv(Arc::clone(model), context, KvType::F32)?)
            }
        };
        Ok(Self { subject, session })
    }

    /// The model.
    pub fn subject(&self) -> &'a Subject {
        self.subject
    }

    /// The longest sequence: the last token is predicted and not run, so that it is one more than the model's context.
    pub fn longest(&self) -> usize {
        self.subject.config().max_position_embeddings + 1
    }

    /// The log-likelihood of each sequence's continuation.
    ///
    /// # Errors
    /// If a sequence has no context or no continuation, is longer than [`Self::longest`], or has an unknown token.
    pub fn score(&mut self, sequences: &[Scored]) -> Result<Vec<LogLikelihood>, EvalError> {
        for Scored { ids, context } in sequences {
            if *context == 0 || *context >= ids.len() || ids.len() > self.longest() {
                let message = format!(
                    "{context} tokens of context and {} in all: expected at least one of each kind, at most {} in all",
                    ids.len(),
                    self.longest()
                );
                return Err(EvalError::Input(message));
            }
            // The engine looks at what it runs: all but the last token.
            let vocab = self.subject.config().vocab_size;
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
                return Err(EvalError::Input(format!("token {id}: the vocabulary has {vocab}")));
            }
        }
        let logits = match (&mut self.session, self.subject) {
            (Some(session), _) => {
                sequences.iter().map(|one| through_session(session, one)).collect::<Result<Vec<_>, _>>()?
            }
            (None, subject) => as_batch(subject, sequences)?,
        };
        let vocab = self.subject.config().vocab_size;
        let each = sequences.iter().zip(&logits);
        Ok(each.map(|(one, logits)| of_continuation(&one.ids[one.context..], logits, vocab)).collect())
    }

    /// Greedy text after a prompt: until a stop string (which is cut off), the end-of-sequence token, `max_tokens`, or the
    /// end of the context. Of equally probable tokens the first is taken.
    ///
    /// # Errors
    /// If the prompt is empty or longer than the context.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        max_tokens: usize,
        stop: &[String],
    ) -> Result<String, EvalError> {
        let tokenizer = self.subject.tokenizer();
        let vocab = self.subject.config().vocab_size;
        let longest = self.subject.config().max_position_embeddings;
        // Rows beyond the tokenizer's vocabulary are padding that no text can contain.
        let known = tokenizer.vocab_size().min(vocab);
        let mut sampler = Sampler::new(Sampling::default())?;
        let (mut stream, mut filter) = (tokenizer.stream(), StopFilter::new(stop));
        let (mut ids, mut text) = (prompt.to_vec(), String::new());
        if let Some(session) = &mut self.session {
            session.reuse_prefix(prompt);
        }
        for _ in 0..max_tokens {
            let logits = match (&mut self.session, self.subject) {
                (Some(session), _) => session.forward(&ids[session.len()..], Wanted::Last)?,
                (None, Subject::Checkpoint { decoder, .. }) => {
                    decoder.logits_of_rows(&ids, 1, &[ids.len().saturating_sub(1)])?
                }
                (None, Subject::Gguf(_)) => Vec::new(),
            };
            let id = sampler.choose(&logits[..known.min(logits.len())], &[]);
            if tokenizer.eos() == Some(id) {
                break;
            }
            ids.push(id);
            match stream.push(id)?.map(|piece| filter.push(&piece)) {
                Some(Passed::Stopped(last)) => {
                    text.push_str(&last);
                    return Ok(text);
                }
                Some(Passed::Text(more)) => text.push_str(&more),
                None => {}
            }
            if ids.len() > longest {
                break;
            }
        }
        match stream.finish()?.map(|piece| filter.push(&piece)) {
            Some(Passed::Stopped(last)) => {
                text.push_str(&last);
                return Ok(text);
            }
            Some(Passed::Text(more)) => text.push_str(&more),
            None => {}
        }
        text.push_str(&filter.finish());
        Ok(text)
    }
}

/// Logits of the rows that predict the continuation; what the session has in common with the sequence is not run again.
fn through_session(session: &mut Session, scored: &Scored) -> Result<Vec<f32>, EvalError> {
    let (inputs, first) = (&scored.ids[..scored.ids.len() - 1], scored.context - 1);
    let common = session.tokens().iter().zip(inputs).take_while(|(a, b)| a == b).count();
    let kept = common.min(first);
    session.truncate(kept);
    if kept < first {
        session.forward(&inputs[kept..first], Wanted::None)?;
    }
    Ok(session.forward(&inputs[first..], Wanted::All)?)
}

/// Logits of the rows that predict each continuation, by the training forward. Shorter sequences are padded at their end,
/// where no row before sees it.
fn as_batch(subject: &Subject, sequences: &[Scored]) -> Result<Vec<Vec<f32>>, EvalError> {
    let Subject::Checkpoint { decoder, .. } = subject else { return Ok(Vec::new()) };
    let vocab = decoder.config().vocab_size;
    let longest = sequences.iter().map(|s| s.ids.len() - 1).max().unwrap_or(0);
    let mut ids = Vec::with_capacity(longest * sequences.len());
    let mut rows = Vec::new();
    for (i, Scored { ids: own, context }) in sequences.iter().enumerate() {
        let inputs = &own[..own.len() - 1];
        rows.extend((context - 1..inputs.len()).map(|row| i * longest + row));
        ids.extend_from_slice(inputs);
        ids.resize((i + 1) * longest, 0);
    }
    let logits = decoder.logits_of_rows(&ids, sequences.len(), &rows)?;
    let mut rest = logits.as_slice();
    let split = |one: &Scored| {
        let (own, after) = rest.split_at((one.ids.len() - one.context) * vocab);
        rest = after;
        own.to_vec()
    };
    Ok(sequences.iter().map(split).collect())
}

fn of_continuation(targets: &[u32], logits: &[f32], vocab: usize) -> LogLikelihood {
    let mut out = LogLikelihood { nats: 0.0, greedy: true };
    for (row, target) in logits.chunks_exact(vocab).zip(targets) {
        let logit = row[*target as usize];
        out.nats += f64::from(logit - log_sum_exp(row));
        out.greedy &= row.iter().all(|other| *other <= logit);
    }
    out
}
