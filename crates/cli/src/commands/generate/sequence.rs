//! One prompt on its way to its end, a step at a time: what `tritforge_infer::generate` does, without running
//! the model.

use std::sync::Arc;

use anyhow::Result;
use tritforge_infer::{Finish, LogitsRequest, Model, Sampler, SequenceInput, Session, StopFilter, StopMatch};
use tritforge_text::DecodeStream;

use super::request::Request;
use super::schedule::Limits;

/// What came of a prompt.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The text.
    pub(super) text: String,
    /// Why it ended.
    pub(super) finish: Finish,
    /// Tokens of the prompt.
    pub(super) prompt_tokens: usize,
    /// Tokens generated, without the one that ended the text.
    pub(super) completion_tokens: usize,
}

/// A prompt that is running.
pub(super) struct Sequence<'a> {
    /// Its place in the batch.
    pub(super) index: usize,
    request: &'a Request,
    session: Session,
    sampler: Sampler,
    stream: DecodeStream<'a>,
    filter: StopFilter<'a>,
    /// The prompt and what was generated; the session holds a beginning of it.
    ids: Vec<u32>,
    text: String,
}

impl<'a> Sequence<'a> {
    /// A prompt at its beginning; its cache has room for what it may come to, the context at most.
    pub(super) fn new(
        index: usize,
        request: &'a Request,
        model: &'a Arc<Model>,
        limits: Limits,
    ) -> Result<Self> {
        let options = &request.options;
        let room = limits.context.min(request.ids.len().saturating_add(options.max_tokens));
        Ok(Self {
            index,
            request,
            session: Session::with_kv(Arc::clone(model), room, limits.kv)?,
            sampler: Sampler::new(options.sampling.clone())?,
            stream: model.tokenizer().stream(),
            filter: StopFilter::new(&options.stop),
            ids: request.ids.clone(),
            text: String::new(),
        })
    }

    /// How many tokens are waiting to be run: the rest of the prompt, or the token chosen last.
    pub(super) fn waiting(&self) -> usize {
        self.ids.len() - self.session.len()
    }

    /// The next part of at most `most` tokens.
    pub(super) fn part(&mut self, most: usize) -> SequenceInput<'_> {
        let rest = &self.ids[self.session.len()..];
        let ids = &rest[..rest.len().min(most)];
        let request = if ids.len() == rest.len() { LogitsRequest::Last } else { LogitsRequest::None };
        SequenceInput { session: &mut self.session, ids, request }
    }

    fn generated(&self) -> usize {
        self.ids.len() - self.request.ids.len()
    }

    /// Chooses the next token; returns why the sequence is at its end, if it is.
    pub(super) fn advance(&mut self, logits: &[f32]) -> Result<Option<Finish>> {
        let model = Arc::clone(self.session.model());
        let options = &self.request.options;
        if self.generated() >= options.max_tokens {
            return Ok(Some(Finish::Length));
        }
        let banned = options.banned(&model, self.generated());
        let id = self.sampler.choose_except(logits, &self.ids, &banned)?;
        if options.ends(&model, id) {
            return Ok(Some(Finish::Eos));
        }
        self.ids.push(id);
        let early = self.generated() < options.min_tokens;
        match self.stream.push(id)? {
            None => {}
            Some(piece) if early => self.text.push_str(&piece),
            Some(piece) => match self.filter.push(&piece) {
                StopMatch::Text(text) => self.text.push_str(&text),
                StopMatch::Stopped(text) => {
                    self.text.push_str(&text);
                    return Ok(Some(Finish::Stop));
                }
            },
        }
        if self.generated() == options.max_tokens {
            return Ok(Some(Finish::Length));
        }
        if self.session.len() == self.session.context() {
            return Ok(Some(Finish::ContextFull));
        }
        Ok(None)
    }

    /// The result of a sequence that has come to its end.
    pub(super) fn finish(mut self, mut finish: Finish) -> Result<Outcome> {
        let completion_tokens = self.generated();
        if finish != Finish::Stop {
            if let Some(piece) = self.stream.finish()? {
                match self.filter.push(&piece) {
                    StopMatch::Text(text) => self.text.push_str(&text),
                    StopMatch::Stopped(text) => {
                        self.text.push_str(&text);
                        finish = Finish::Stop;
                    }
                }
            }
            if finish != Finish::Stop {
                self.text.push_str(self.request.options.trailing_text(&self.filter.finish(), finish));
            }
        }
        Ok(Outcome { text: self.text, finish, prompt_tokens: self.request.ids.len(), completion_tokens })
    }
}
