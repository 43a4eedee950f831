//! A prompt to its end: prefill, then one token at a time, text handed out as it comes.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use tritforge_text::TurnEnd;

use crate::stop::{StopFilter, StopMatch};
use crate::{InferError, LogitsRequest, Model, PREFILL_CHUNK, Sampler, Sampling, Session, TokenLogprobs};

/// What to generate and how.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most tokens to generate.
    pub max_tokens: usize,
    /// How to choose each token.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it.
    pub stop: Vec<String>,
    /// Go on after a token that ends the generation; those in `stop_ids` still end it.
    pub ignore_eos: bool,
    /// Fewest tokens to generate: before, no token that ends the text is chosen, and stop strings are not
    /// looked for.
    pub min_tokens: usize,
    /// Tokens that end the text, whatever `ignore_eos` says; they are not part of it.
    pub stop_ids: Vec<u32>,
    /// The log-probability of each token, and of so many of the most probable ones in its place.
    pub logprobs: Option<usize>,
    /// Tokens that end the text beside the model's own ([`crate::Model::end_ids`]).
    pub end_ids: Vec<u32>,
    /// White space that a chat template writes after an answer: before the token that ends the text it is not
    /// part of it. A stop string has to begin with it.
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
        self.stop_ids.contains(&id)
            || !self.ignore_eos && (model.end_ids().contains(&id) || self.end_ids.contains(&id))
    }

    /// The tokens that may not be chosen after `generated` tokens: those that end the text, as long as it is
    /// too short.
    pub fn banned(&self, model: &Model, generated: usize) -> Vec<u32> {
        if generated >= self.min_tokens {
            return Vec::new();
        }
        let ends = if self.ignore_eos { [&[][..], &[]] } else { [model.end_ids(), &self.end_ids] };
        ends.concat().into_iter().chain(self.stop_ids.iter().copied()).collect()
    }

    /// Whether every token that the options name is one of `model`.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self, model: &Model) -> Result<(), InferError> {
        let vocab_size = model.config().vocab_size;
        let bias = self.sampling.logit_bias.keys().map(|id| ("logit_bias", *id));
        let stop = self.stop_ids.iter().map(|id| ("stop_token_ids", *id));
        match bias.chain(stop).find(|(_, id)| *id as usize >= vocab_size) {
            None => Ok(()),
            Some((option, id)) => Err(InferError::Option {
                option,
                found: format!("token {id}, of a vocabulary of {vocab_size}"),
                expected: "ids of the vocabulary",
            }),
        }
    }

    /// What was held back at the end of the text, as far as it belongs to it.
    pub fn trailing_text<'a>(&self, held: &'a str, finish: Finish) -> &'a str {
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
            min_tokens: 0,
            stop_ids: Vec::new(),
            logprobs: None,
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

/// A piece of the text as it is handed out.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Whole characters, never part of a stop string; none where the generation only asks whether to go on.
    pub text: &'a str,
    /// The tokens that have come since the last piece with text, where [`GenerateOptions::logprobs`] asks for
    /// them.
    pub tokens: &'a [TokenLogprobs],
}

/// Appends `prompt` to the session and generates. `on_text` gets each piece of text, always whole characters,
/// never part of a stop string. It may end the generation, and is asked often enough to do so in time: with
/// an empty piece before each chunk of the prompt ([`PREFILL_CHUNK`]), and after each token that hands out no
/// text.
///
/// # Errors
/// If the prompt is empty, does not fit the context, or an option is out of range; if the model's logits are
/// not numbers.
pub fn generate(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Generation, InferError> {
    generate_pieces(session, prompt, options, |piece| on_text(piece.text))
}

/// As [`generate`], with the log-probabilities of the tokens.
///
/// # Errors
/// As [`generate`].
pub fn generate_pieces(
    session: &mut Session,
    prompt: &[u32],
    options: &GenerateOptions,
    mut on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
) -> Result<Generation, InferError> {
    let mut sampler = Sampler::new(options.sampling.clone())?;
    let model = std::sync::Arc::clone(session.model());
    options.check(&model)?;
    let tokenizer = model.tokenizer();
    let mut stream = tokenizer.stream();
    let mut filter = StopFilter::new(&options.stop);
    let mut recent = prompt.to_vec();
    // Tokens whose text has not been handed out.
    let mut tokens: Vec<TokenLogprobs> = Vec::new();
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
        if on_piece(Piece { text: "", tokens: &[] }).is_break() {
            out.finish = Finish::Cancelled;
            out.prefill = begin.elapsed();
            return Ok(out);
        }
        let (chunk, after) = rest.split_at(PREFILL_CHUNK.min(rest.len()));
        let request = if after.is_empty() { LogitsRequest::Last } else { LogitsRequest::None };
        logits = session.forward(chunk, request)?;
        rest = after;
    }
    out.prefill = begin.elapsed();
    let begin = Instant::now();
    while out.tokens.len() < options.max_tokens {
        let id = sampler.choose_except(&logits, &recent, &options.banned(&model, out.tokens.len()))?;
        if options.ends(&model, id) {
            out.finish = Finish::Eos;
            break;
        }
        out.tokens.push(id);
        recent.push(id);
        tokens.extend(options.logprobs.map(|top| TokenLogprobs::of(&logits, id, top)));
        let early = out.tokens.len() < options.min_tokens;
        let (text, stopped) = match stream.push(id)? {
            None => (String::new(), false),
            Some(piece) if early => (piece, false),
            Some(piece) => match filter.push(&piece) {
                StopMatch::Text(text) => (text, false),
                StopMatch::Stopped(text) => (text, true),
            },
        };
        out.text.push_str(&text);
        if stopped {
            tokens = shown(tokens, text.len(), &model)?;
        }
        // Also without text: a stop string may hold all of it back while the client leaves or the time runs
        // out.
        let ready = if text.is_empty() && !stopped { &[][..] } else { &tokens };
        let flow = on_piece(Piece { text: &text, tokens: ready });
        if stopped || flow.is_break() {
            out.finish = if stopped { Finish::Stop } else { Finish::Cancelled };
            out.decode = begin.elapsed();
            return Ok(out);
        }
        if !text.is_empty() {
            tokens.clear();
        }
        if out.tokens.len() == options.max_tokens {
            break;
        }
        if session.len() == session.context() {
            out.finish = Finish::ContextFull;
            break;
        }
        logits = session.forward(&[id], LogitsRequest::Last)?;
    }
    out.decode = begin.elapsed();
    // The end of the text: nothing is held back any more.
    let mut rest = String::new();
    if let Some(piece) = stream.finish()? {
        match filter.push(&piece) {
            StopMatch::Text(text) => rest.push_str(&text),
            StopMatch::Stopped(text) => {
                out.finish = Finish::Stop;
                tokens = shown(tokens, text.len(), &model)?;
                rest.push_str(&text);
            }
        }
    }
    if out.finish != Finish::Stop {
        rest.push_str(options.trailing_text(&filter.finish(), out.finish));
    }
    if !rest.is_empty() || !tokens.is_empty() {
        out.text.push_str(&rest);
        let _ = on_piece(Piece { text: &rest, tokens: &tokens });
    }
    Ok(out)
}

/// The first tokens, as many as it takes to write `bytes` of text: those of a stop string are not shown.
fn shown(tokens: Vec<TokenLogprobs>, bytes: usize, model: &Model) -> Result<Vec<TokenLogprobs>, InferError> {
    let (mut written, mut shown) = (0, Vec::new());
    for token in tokens {
        if written >= bytes {
            break;
        }
        written += model.tokenizer().bytes(token.id)?.len();
        shown.push(token);
    }
    Ok(shown)
}
