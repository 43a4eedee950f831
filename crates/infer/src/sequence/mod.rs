//! One prompt on its way to its end, apart from the model that runs it.
//!
//! A [`Sequence`] says which tokens the model has to run next and takes the logits that they give: it chooses
//! a token, decodes it and looks for the end of the text. It does not run the model itself:
//! [`crate::generate`] runs one sequence, a [`crate::Scheduler`] many at a time, and the evaluation of a
//! checkpoint runs one through the training forward.

mod accept;
mod drafter;

use std::ops::{ControlFlow, Range};
use std::time::Instant;

use tritforge_constrain::{Constraint, Progress};
use tritforge_text::DecodeStream;

use crate::session::check_tokens;
use crate::stop::{StopFilter, StopMatch};
use crate::{
    Finish, GenerateOptions, Generation, InferError, LogitsRequest, Proposals, Sampler, TokenLogprobs,
    Vocabulary,
};
pub(crate) use drafter::Drafter;

/// A piece of the text as it is handed out.
#[derive(Debug, Clone, Copy, Default)]
pub struct Piece<'a> {
    /// Whole characters, never part of a stop string; none where the generation only asks whether to go on.
    pub text: &'a str,
    /// The tokens that have come since the last piece with text, where [`GenerateOptions::logprobs`] asks for
    /// them.
    pub tokens: &'a [TokenLogprobs],
}

/// Tokens of a prompt at once whose log-probabilities are asked for: each takes a row of logits.
const SCORED_CHUNK: usize = 64;

/// A prompt and what has been generated after it.
#[derive(Debug)]
pub struct Sequence<'m> {
    vocabulary: Vocabulary<'m>,
    options: GenerateOptions,
    sampler: Sampler,
    stream: DecodeStream<'m>,
    filter: StopFilter,
    /// Tokens that may not be chosen before [`GenerateOptions::min_tokens`].
    too_early: Vec<u32>,
    /// Where the text stands in its grammar.
    progress: Option<Progress>,
    /// The prompt and the tokens generated.
    ids: Vec<u32>,
    prompt_tokens: usize,
    /// How many of them were in the cache at the beginning.
    cached_tokens: usize,
    /// How many of `ids` the model has run.
    seen: usize,
    /// The last token with those that are proposed to follow it; empty if none are.
    proposed: Vec<u32>,
    /// Whether they are a draft's.
    drafted: bool,
    /// What was proposed by look-up, and by a draft.
    lookup: Proposals,
    draft: Proposals,
    /// How many of them it can run: the context has no room for more.
    room: usize,
    text: String,
    /// Tokens whose text has not been handed out.
    tokens: Vec<TokenLogprobs>,
    /// How many of them, at the beginning, are the prompt's.
    scored: usize,
    /// Whether what is held back of the text is no part of it.
    closed: bool,
    begin: Instant,
    /// When the prompt had been run.
    prefilled: Option<Instant>,
}

impl<'m> Sequence<'m> {
    /// A prompt of which nothing has been run yet. `positions` are those of the context that it may fill.
    ///
    /// # Errors
    /// If the prompt is empty, has an unknown token or does not fit, or an option is out of range.
    pub fn new(
        vocabulary: Vocabulary<'m>,
        prompt: &[u32],
        options: GenerateOptions,
        positions: Range<usize>,
    ) -> Result<Self, InferError> {
        let sampler = Sampler::new(options.sampling.clone())?;
        options.check_ids(vocabulary.size)?;
        check_tokens(prompt, vocabulary.size, &positions)?;
        let progress = options.constraint.as_ref().map(Constraint::start).transpose()?;
        let mut too_early = Vec::new();
        if options.min_tokens > 0 {
            if !options.ignore_eos {
                too_early.extend_from_slice(vocabulary.end_ids);
                too_early.extend_from_slice(&options.end_ids);
            }
            too_early.extend_from_slice(&options.stop_ids);
            too_early.extend_from_slice(&options.suppress_ids);
        }
        Ok(Self {
            vocabulary,
            sampler,
            stream: vocabulary.tokenizer.stream(),
            filter: StopFilter::new(options.stop.clone()),
            too_early,
            progress,
            ids: prompt.to_vec(),
            prompt_tokens: prompt.len(),
            cached_tokens: 0,
            seen: 0,
            proposed: Vec::new(),
            drafted: false,
            lookup: Proposals::default(),
            draft: Proposals::default(),
            room: positions.len(),
            text: String::new(),
            tokens: Vec::new(),
            scored: 0,
            closed: false,
            begin: Instant::now(),
            prefilled: None,
            options,
        })
    }

    /// The prompt and the tokens generated so far.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many tokens the model has not run yet: the rest of the prompt, or the token chosen last with those that
    /// are proposed to follow it.
    pub fn waiting(&self) -> usize {
        (self.ids.len() - self.seen).max(self.proposed.len())
    }

    /// How many tokens the model has run that are part of the sequence; whoever runs it forgets those beyond, which
    /// were proposed and did not come.
    pub fn seen(&self) -> usize {
        self.seen
    }

    /// How many positions it can come to take: its prompt and all that may be generated, as far as there is room.
    pub(crate) fn most_positions(&self) -> usize {
        self.prompt_tokens.saturating_add(self.options.max_tokens).min(self.room)
    }

    /// Whether a part of the prompt has not been run yet.
    pub fn is_prefilling(&self) -> bool {
        self.seen < self.prompt_tokens
    }

    /// The tokens to run next, at most `most`, but one in any case behind the prompt, and the logits that [`Self::accept`] needs of them.
    pub fn next_input(&self, most: usize) -> (&[u32], LogitsRequest) {
        if !self.proposed.is_empty() {
            return (&self.proposed[..self.proposed.len().min(most.max(1))], LogitsRequest::All);
        }
        let rest = &self.ids[self.seen..];
        if self.is_scored() {
            return (&rest[..rest.len().min(most).min(SCORED_CHUNK)], LogitsRequest::All);
        }
        let ids = &rest[..rest.len().min(most)];
        let request = if ids.len() == rest.len() { LogitsRequest::Last } else { LogitsRequest::None };
        (ids, request)
    }

    /// Whether the tokens to run next are a part of the prompt whose log-probabilities are asked for.
    fn is_scored(&self) -> bool {
        self.options.prompt_logprobs.is_some() && self.is_prefilling()
    }

    /// The part of the prompt whose keys and values may come from the cache.
    pub(crate) fn reusable(&self) -> &[u32] {
        if self.options.prompt_logprobs.is_some() { &[] } else { &self.ids }
    }

    /// Begins now, with the first `cached` tokens of the prompt in the cache already.
    pub(crate) fn start(&mut self, cached: usize) {
        self.seen = cached;
        self.cached_tokens = cached;
        self.begin = Instant::now();
    }

    /// Appends to the text, and hands it out with the tokens that belong to it. Without any it only asks
    /// whether to go on: a stop string may hold all of the text back while the client leaves or the time runs
    /// out.
    fn hand_out(
        &mut self,
        text: &str,
        on_piece: impl FnOnce(Piece<'_>) -> ControlFlow<()>,
    ) -> Option<Finish> {
        self.text.push_str(text);
        let tokens = if text.is_empty() { &[][..] } else { &self.tokens };
        if on_piece(Piece { text, tokens }).is_break() {
            return Some(self.cancel());
        }
        if !text.is_empty() {
            self.tokens.clear();
            self.scored = 0;
        }
        if self.progress.as_ref().is_some_and(Progress::is_complete) {
            return Some(Finish::Stop);
        }
        if self.generated() == self.options.max_tokens {
            return Some(Finish::Length);
        }
        (self.seen == self.room).then_some(Finish::ContextFull)
    }

    /// Ends the text with what stood before a stop string; its tokens are not shown.
    fn close(&mut self, text: &str) -> Result<(), InferError> {
        self.text.push_str(text);
        self.closed = true;
        let mut written = 0;
        let mut shown = self.scored;
        while shown < self.tokens.len() && written < text.len() {
            written += self.vocabulary.tokenizer.bytes(self.tokens[shown].id)?.len();
            shown += 1;
        }
        self.tokens.truncate(shown);
        Ok(())
    }

    /// Ends the text with what has been handed out of it.
    pub(crate) fn cancel(&mut self) -> Finish {
        self.closed = true;
        Finish::Cancelled
    }

    /// Tokens of the prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// How many tokens of the prompt were in the cache when the sequence began.
    pub fn cached_tokens(&self) -> usize {
        self.cached_tokens
    }

    /// How many tokens have been generated.
    pub fn generated(&self) -> usize {
        self.ids.len() - self.prompt_tokens
    }

    /// The result of a sequence that has come to its end. What was held back of the text, as far as it belongs
    /// to it, goes to `on_piece` first.
    ///
    /// # Errors
    /// If a token cannot be decoded.
    pub fn finish(
        mut self,
        mut finish: Finish,
        on_piece: impl FnOnce(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, InferError> {
        let end = Instant::now();
        if !self.closed {
            let mut rest = String::new();
            let stream = std::mem::replace(&mut self.stream, self.vocabulary.tokenizer.stream());
            if let Some(piece) = stream.finish()? {
                match self.filter.push(&piece) {
                    StopMatch::Text(text) => rest = text,
                    StopMatch::Stopped(text) => {
                        finish = Finish::Stop;
                        self.close(&text)?;
                        rest = text;
                    }
                }
            }
            if !self.closed {
                let held = std::mem::take(&mut self.filter).finish();
                let closing = if finish == Finish::Eos { self.options.closing.as_str() } else { "" };
                rest.push_str(held.strip_suffix(closing).unwrap_or(&held));
                self.text.push_str(&rest);
            }
            if !rest.is_empty() || !self.tokens.is_empty() {
                let _ = on_piece(Piece { text: &rest, tokens: &self.tokens });
            }
        }
        let prefilled = self.prefilled.unwrap_or(end);
        Ok(Generation {
            text: self.text,
            tokens: self.ids.split_off(self.prompt_tokens),
            finish,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            lookup: self.lookup,
            draft: self.draft,
            prefill: prefilled - self.begin,
            decode: end - prefilled,
        })
    }
}
