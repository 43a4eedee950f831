//! Greedy text: what tasks with open answers ask of a model.
//!
//! A file writes several texts at once, each with the bits that it gets alone: every weight is read once for
//! all of them. A checkpoint has no cache and runs the whole sequence again for every token, one text after
//! the other.

use std::sync::Arc;

use tritforge_infer::{
    KvType, LogitsRequest, Model, PREFILL_CHUNK, Sampler, Sampling, SequenceInput, Session, StopFilter,
    StopMatch, step,
};
use tritforge_model::Decoder;
use tritforge_text::{DecodeStream, Tokenizer};

use crate::finite::finite;
use crate::{EvalError, EvalModel};

/// Texts that a file writes at once.
const PARALLEL: usize = 8;

/// When a text ends, beside the tokens that end a generation ([`Tokenizer::end_ids`]) and the end of the
/// context.
#[derive(Debug, Clone)]
pub struct GreedyOptions {
    /// Most tokens.
    pub max_tokens: usize,
    /// Strings that end it; they are not part of it.
    pub stop: Vec<String>,
}

/// When a text ends, with the tokens of the model that end it.
struct StopConditions<'a> {
    options: &'a GreedyOptions,
    ids: Vec<u32>,
}

/// Writes a text after each prompt, always the most probable token, of equals the first; special tokens are
/// no part of it. `done` gets the number of the prompt and its text as soon as it has ended, which need not
/// be in order.
///
/// # Errors
/// If a prompt is empty or longer than the context, or `done` fails; with the number of a prompt that was
/// being worked on.
pub fn generate_greedy(
    model: &EvalModel,
    prompts: &[Vec<u32>],
    options: &GreedyOptions,
    mut done: impl FnMut(usize, String) -> Result<(), EvalError>,
) -> Result<(), (usize, EvalError)> {
    let ends = StopConditions { options, ids: model.tokenizer().end_ids() };
    match model {
        EvalModel::Gguf(model) => at_once(model, prompts, &ends, &mut done),
        EvalModel::Checkpoint { decoder, tokenizer } => {
            for (number, prompt) in prompts.iter().enumerate() {
                let text = alone(decoder, tokenizer, prompt, &ends);
                text.and_then(|text| done(number, text)).map_err(|error| (number, error))?;
            }
            Ok(())
        }
    }
}

/// A text in the making.
struct Text<'a> {
    tokenizer: &'a Tokenizer,
    sampler: Sampler,
    stream: DecodeStream<'a>,
    filter: StopFilter<'a>,
    ends: &'a StopConditions<'a>,
    text: String,
    left: usize,
    /// Whether a stop string has come: nothing after it belongs to the text.
    stopped: bool,
}

impl<'a> Text<'a> {
    fn new(tokenizer: &'a Tokenizer, ends: &'a StopConditions<'a>) -> Result<Self, EvalError> {
        Ok(Self {
            tokenizer,
            sampler: Sampler::new(Sampling::default())?,
            stream: tokenizer.stream(),
            filter: StopFilter::new(&ends.options.stop),
            ends,
            text: String::new(),
            left: ends.options.max_tokens,
            stopped: false,
        })
    }

    /// The token that these logits choose, if the text goes on.
    fn push(&mut self, logits: &[f32]) -> Result<Option<u32>, EvalError> {
        // Rows beyond the tokenizer's vocabulary are padding that no text can contain.
        let known = self.tokenizer.vocab_size().min(logits.len());
        let id = self.sampler.choose(&logits[..known], &[])?;
        if self.left == 0 || self.ends.ids.contains(&id) {
            self.left = 0;
            return Ok(None);
        }
        self.left -= 1;
        if self.tokenizer.is_special(id) {
            // No part of the text, but it may end it.
            let name = self.tokenizer.token(id).unwrap_or_default();
            if self.ends.options.stop.contains(&name) {
                self.left = 0;
            }
        } else if let Some(piece) = self.stream.push(id)? {
            self.take(&piece);
        }
        Ok((self.left > 0).then_some(id))
    }

    fn take(&mut self, piece: &str) {
        match self.filter.push(piece) {
            StopMatch::Text(text) => self.text.push_str(&text),
            StopMatch::Stopped(text) => {
                self.text.push_str(&text);
                self.stopped = true;
                self.left = 0;
            }
        }
    }

    fn finish(self) -> Result<String, EvalError> {
        let Self { stream, mut filter, mut text, stopped, .. } = self;
        if stopped {
            return Ok(text);
        }
        if let Some(piece) = stream.finish()? {
            match filter.push(&piece) {
                StopMatch::Text(piece) => text.push_str(&piece),
                StopMatch::Stopped(piece) => return Ok(text + &piece),
            }
        }
        Ok(text + &filter.finish())
    }
}

fn alone(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    ends: &StopConditions<'_>,
) -> Result<String, EvalError> {
    let mut text = Text::new(tokenizer, ends)?;
    let mut ids = prompt.to_vec();
    loop {
        let last = ids.len().saturating_sub(1);
        let logits = decoder.logits_of_rows(&ids, 1, &[last])?;
        let logits = finite(logits, decoder.config().vocab_size, last)?;
        match text.push(&logits)? {
            Some(id) if ids.len() < decoder.config().max_position_embeddings => ids.push(id),
            _ => return text.finish(),
        }
    }
}

/// A text and the session that it is written in.
struct Slot<'a> {
    number: usize,
    session: Session,
    /// Tokens that have not gone through the session.
    pending: Vec<u32>,
    text: Text<'a>,
}

fn at_once(
    model: &Arc<Model>,
    prompts: &[Vec<u32>],
    ends: &StopConditions<'_>,
    done: &mut impl FnMut(usize, String) -> Result<(), EvalError>,
) -> Result<(), (usize, EvalError)> {
    let context = model.config().max_position_embeddings;
    let mut waiting = prompts.iter().enumerate();
    let mut idle: Vec<Session> = Vec::new();
    let mut slots: Vec<Slot<'_>> = Vec::new();
    loop {
        for (number, prompt) in waiting.by_ref().take(PARALLEL - slots.len()) {
            let fault = |error| (number, error);
            if prompt.is_empty() || prompt.len() > context {
                let message = format!("a prompt of {} tokens: expected 1 to {context}", prompt.len());
                return Err(fault(EvalError::Input(message)));
            }
            let mut session = match idle.pop() {
                Some(session) => session,
                None => Session::with_kv(Arc::clone(model), context, KvType::F32)
                    .map_err(|error| fault(error.into()))?,
            };
            let kept = session.reuse_prefix(prompt);
            let text = Text::new(model.tokenizer(), ends).map_err(fault)?;
            slots.push(Slot { number, session, pending: prompt[kept..].to_vec(), text });
        }
        let Some(first) = slots.first().map(|slot| slot.number) else { return Ok(()) };
        let mut parts: Vec<SequenceInput<'_>> = slots
            .iter_mut()
            .map(|Slot { session, pending, .. }| {
                let ids = &pending[..pending.len().min(PREFILL_CHUNK)];
                let request =
                    if ids.len() == pending.len() { LogitsRequest::Last } else { LogitsRequest::None };
                SequenceInput { session, ids, request }
            })
            .collect();
        let logits = step(&mut parts).map_err(|error| (first, error.into()))?;
        let mut going = Vec::with_capacity(slots.len());
        for (mut slot, logits) in slots.into_iter().zip(logits) {
            let fault = |error| (slot.number, error);
            slot.pending.drain(..slot.pending.len().min(PREFILL_CHUNK));
            if !slot.pending.is_empty() {
                going.push(slot);
                continue;
            }
            match slot.text.push(&logits).map_err(fault)? {
                Some(id) if slot.session.len() < context => {
                    slot.pending.push(id);
                    going.push(slot);
                }
                _ => {
                    let text = slot.text.finish().map_err(fault)?;
                    done(slot.number, text).map_err(fault)?;
                    idle.push(slot.session);
                }
            }
        }
        slots = going;
    }
}
