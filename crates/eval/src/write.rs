//! Greedy text: what tasks with open answers ask of a model.
//!
//! A file writes several texts at once, each with the bits that it gets alone: every weight is read once for all of them. A
//! checkpoint has no cache and runs the whole sequence again for every token, one text after the other.

use std::sync::Arc;

use tritforge_infer::{
    KvType, Model, PREFILL_CHUNK, Part, Passed, Sampler, Sampling, Session, StopFilter, Wanted, step,
};
use tritforge_nn::Decoder;
use tritforge_text::{DecodeStream, Tokenizer};

use crate::finite::finite;
use crate::{EvalError, Subject};

/// Texts that a file writes at once.
const PARALLEL: usize = 8;

/// When a text ends, beside the tokens that end a generation ([`Tokenizer::end_ids`]) and the end of the context.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Most tokens.
    pub max_tokens: usize,
    /// Strings that end it; they are not part of it.
    pub stop: Vec<String>,
}

/// When a text ends, with the tokens of the model that end it.
struct Ends<'a> {
    options: &'a WriteOptions,
    ids: Vec<u32>,
}

/// Writes a text after each prompt, always the most probable token, of equals the first; special tokens are no part of it. `done` gets the number of the prompt and its
/// text as soon as it has ended, which need not be in order.
///
/// # Errors
/// If a prompt is empty or longer than the context, or `done` fails; with the number of a prompt that was being worked on.
pub fn write_texts(
    subject: &Subject,
    prompts: &[Vec<u32>],
    options: &WriteOptions,
    mut done: impl FnMut(usize, String) -> Result<(), EvalError>,
) -> Result<(), (usize, EvalError)> {
    let ends = Ends { options, ids: subject.tokenizer().end_ids() };
    match subject {
        Subject::Gguf(model) => at_once(model, prompts, &ends, &mut done),
        Subject::Checkpoint { decoder, tokenizer } => {
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
    ends: &'a Ends<'a>,
    text: String,
    left: usize,
    /// Whether a stop string has come: nothing after it belongs to the text.
    stopped: bool,
}

impl<'a> Text<'a> {
    fn new(tokenizer: &'a Tokenizer, ends: &'a Ends<'a>) -> Result<Self, EvalError> {
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
            Passed::Text(text) => self.text.push_str(&text),
            Passed::Stopped(text) => {
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
                Passed::Text(piece) => text.push_str(&piece),
                Passed::Stopped(piece) => return Ok(text + &piece),
            }
        }
        Ok(text + &filter.finish())
    }
}

fn alone(
    decoder: &Decoder,
    tokenizer: &Tokenizer,
    prompt: &[u32],
    ends: &Ends<'_>,
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
struct Lane<'a> {
    number: usize,
    session: Session,
    /// Tokens that have not gone through the session.
    pending: Vec<u32>,
    text: Text<'a>,
}

fn at_once(
    model: &Arc<Model>,
    prompts: &[Vec<u32>],
    ends: &Ends<'_>,
    done: &mut impl FnMut(usize, String) -> Result<(), EvalError>,
) -> Result<(), (usize, EvalError)> {
    let context = model.config().max_position_embeddings;
    let mut waiting = prompts.iter().enumerate();
    let mut idle: Vec<Session> = Vec::new();
    let mut lanes: Vec<Lane<'_>> = Vec::new();
    loop {
        for (number, prompt) in waiting.by_ref().take(PARALLEL - lanes.len()) {
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
            lanes.push(Lane { number, session, pending: prompt[kept..].to_vec(), text });
        }
        let Some(first) = lanes.first().map(|lane| lane.number) else { return Ok(()) };
        let mut parts: Vec<Part<'_>> = lanes
            .iter_mut()
            .map(|Lane { session, pending, .. }| {
                let ids = &pending[..pending.len().min(PREFILL_CHUNK)];
                let wanted = if ids.len() == pending.len() { Wanted::Last } else { Wanted::None };
                Part { session, ids, wanted }
            })
            .collect();
        let logits = step(&mut parts).map_err(|error| (first, error.into()))?;
        let mut going = Vec::with_capacity(lanes.len());
        for (mut lane, logits) in lanes.into_iter().zip(logits) {
            let fault = |error| (lane.number, error);
            lane.pending.drain(..lane.pending.len().min(PREFILL_CHUNK));
            if !lane.pending.is_empty() {
                going.push(lane);
                continue;
            }
            match lane.text.push(&logits).map_err(fault)? {
                Some(id) if lane.session.len() < context => {
                    lane.pending.push(id);
                    going.push(lane);
                }
                _ => {
                    let text = lane.text.finish().map_err(fault)?;
                    done(lane.number, text).map_err(fault)?;
                    idle.push(lane.session);
                }
            }
        }
        lanes = going;
    }
}
