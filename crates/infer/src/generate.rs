//! A prompt to its end: prefill, then one token at a time, text handed out as it comes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tritforge_text::TurnEnd;

use crate::stop::{Passed, StopFilter};
use crate::{InferError, Model, PREFILL_CHUNK, Sampler, Sampling, Session, Wanted};

/// What to generate and how.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How to choose each token.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Go on after a token that ends the generation.
    pub ignore_eos: bool,
    /// Tokens that end the text beside the model's own ([`crate::Model::end_ids`]).
    pub end_ids: Vec<u32>,
    /// White space that a chat template writes after an answer: before the token that ends the text it is not part of it. A stop
    /// string has to begin with it.
    pub closing: String,
}

impl GenerateOptions {
    /// Ends the text where a chat template ends an answer.
    pub fn end_turn(&mut self, end: TurnEnd) {
        self.end_ids.extend(end.token);
        self.stop.extend(end.stop);
        self.closing = end.closing;
    }

    /// Whether a token of `model` ends the text.
    pub fn ends(&self, model: &Model, id: u32) -> bool {
        !self.ignore_eos && (model.end_ids().contains(&id) || self.end_ids.contains(&id))
    }

    /// What was held back at the end of the text, as far as it belongs to it.
    pub fn held<'a>(&self, held: &'a str, finish: Finish) -> &'a str {
        let closing = if finish == Finish::Eos { self.closing.as_str() } else { "" };
        held.strip_suffix(closing).unwrap_or(held)
    }
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 128,
            sampling: Sampling::default(),
            stop: Vec::new(),
            ignore_eos: false,
            end_ids: Vec::new(),
            closing: String::new(),
        }
    }
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// The model gave a token that ends the generation.
    Eos,
    /// A stop string came.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The context is full.
    ContextFull,
    /// The callback asked for the end.
    Cancelled,
}

/// What came of a prompt.
#[derive(Debug, Clone)]
pub struct Generation {
    /// The text.
    pub text: String,
    /// The tokens, without the one that ended the text.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Time from the call to the first token.
    pub prefill: Duration,
    /// Time from the first token to the last.
    pub decode: Duration,
}

impl Generation {
    /// Prompt tokens a second.
    pub fn prefill_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prefill.as_secs_f64()
    }

    /// Generated tokens a second, the first one aside; 0 if there was no second one.
    pub fn decode_rate(&self) -> f64 {
        match self.tokens.len() {
            0 | 1 => 0.0,
            n => (n - 1) as f64 / self.decode.as_secs_f64(),
        }
    }
}

/// Appends `prompt` to the session and generates. `on_text` gets each piece of text, always whole characters, never
/// part of a stop string. It may end the generation, and is asked often enough to do so in time: with an empty piece before
/// each chunk of the prompt ([`PREFILL_CHUNK`]), and after each token that hands out no text.
///
/// # Errors
/// If the prompt is empty, does not fit the context, or an option is out of range.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, InferError> {
    let mut sampler = Sampler::new(options.sampling.clone())?;
    let model = std::sync::Arc::clone(session.model());
    let tokenizer = model.tokenizer();
    let mut stream = tokenizer.stream();
    let mut filter = StopFilter::new(&options.stop);
    let mut recent = prompt.to_vec();
    let mut out = Generation {
        text: String::new(),
        tokens: Vec::new(),
        finish: Finish::Length,
        prompt_tokens: prompt.len(),
        prefill: Duration::ZERO,
        decode: Duration::ZERO,
    };

    let begin = Instant::now();
    session.check(prompt)?;
    let mut logits = Vec::new();
    let mut rest = prompt;
    while !rest.is_empty() {
        if on_text("").is_break() {
            out.finish = Finish::Cancelled;
            out.prefill = begin.elapsed();
            return Ok(out);
        }
        let (chunk, after) = rest.split_at(PREFILL_CHUNK.min(rest.len()));
        let wanted = if after.is_empty() { Wanted::Last } else { Wanted::None };
        logits = session.forward(chunk, wanted)?;
        rest = after;
    }
    out.prefill = begin.elapsed();
    let begin = Instant::now();
    while out.tokens.len() < options.max_tokens {
        let id = sampler.choose(&logits, &recent);
        if options.ends(&model, id) {
            out.finish = Finish::Eos;
            break;
        }
        out.tokens.push(id);
        recent.push(id);
        let (text, stopped) = match stream.push(id)?.map(|piece| filter.push(&piece)) {
            None => (String::new(), false),
            Some(Passed::Text(text)) => (text, false),
            Some(Passed::Stopped(text)) => (text, true),
        };
        out.text.push_str(&text);
        // Also without text: a stop string may hold all of it back while the client leaves or the time runs out.
        let flow = on_text(&text);
        if stopped || flow.is_break() {
            out.finish = if stopped { Finish::Stop } else { Finish::Cancelled };
            out.decode = begin.elapsed();
            return Ok(out);
        }
        if out.tokens.len() == options.max_tokens {
            break;
        }
        if session.len() == session.context() {
            out.finish = Finish::ContextFull;
            break;
        }
        logits = session.forward(&[id], Wanted::Last)?;
    }
    out.decode = begin.elapsed();
    // The end of the text: nothing is held back any more.
    let mut rest = String::new();
    if let Some(piece) = stream.finish()? {
        match filter.push(&piece) {
            Passed::Text(text) => rest.push_str(&text),
            Passed::Stopped(text) => {
                out.finish = Finish::Stop;
                rest.push_str(&text);
            }
        }
    }
    if out.finish != Finish::Stop {
        rest.push_str(options.held(&filter.finish(), out.finish));
    }
    if !rest.is_empty() {
        out.text.push_str(&rest);
        let _ = on_text(&rest);
    }
    Ok(out)
}
