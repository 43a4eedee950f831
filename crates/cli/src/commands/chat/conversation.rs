//! The state of a conversation: its messages, the model's cache, and what the last turn cost.

use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;

use anyhow::{Result, bail};
use tritforge_infer::{Finish, GenerateOptions, Generation, Model, Proposals, Session, generate};
use tritforge_support::counted;
use tritforge_text::{ChatTemplate, Message};

use super::prompt::Prompter;

/// A conversation with a model.
pub(super) struct Conversation {
    model: Arc<Model>,
    session: Session,
    prompter: Prompter,
    options: GenerateOptions,
    /// Leave out the oldest turns when the context is full.
    shift: bool,
    system: Option<Message>,
    /// Messages and answers by turns.
    turns: Vec<Message>,
    /// Messages at the beginning of `turns` that the model does not see any more.
    left_out: usize,
    /// What the last turn ran.
    last: Option<Generation>,
}

/// How a turn ended.
pub(super) struct Answer {
    /// Why the answer ended.
    pub(super) finish: Finish,
    /// Messages that fell out of the context in this turn.
    pub(super) left_out: usize,
}

impl Conversation {
    /// An empty conversation that `session` holds.
    pub(super) fn new(
        model: &Arc<Model>,
        template: ChatTemplate,
        mut options: GenerateOptions,
        session: Session,
        shift: bool,
    ) -> Self {
        options.end_turn(model.tokenizer().turn_end(&template));
        let prompter = Prompter::new(template);
        Self {
            session,
            model: Arc::clone(model),
            prompter,
            options,
            shift,
            system: None,
            turns: Vec::new(),
            left_out: 0,
            last: None,
        }
    }

    /// Has a message answered. `show` gets each piece of the answer and says whether to go on. After an
    /// error, or if nothing came before a stop, the message is forgotten.
    pub(super) fn say(&mut self, text: &str, mut show: impl FnMut(&str) -> bool) -> Result<Answer> {
        let before = (self.turns.len(), self.left_out);
        self.turns.push(Message::new("user", text));
        let result = self.answer(&mut show);
        let keep = matches!(&result, Ok((text, finish)) if *finish != Finish::Cancelled || !text.is_empty());
        if !keep {
            self.turns.truncate(before.0);
            self.left_out = before.1;
        }
        let (text, finish) = result?;
        if keep {
            self.turns.push(Message::new("assistant", text));
        }
        Ok(Answer { finish, left_out: self.left_out - before.1 })
    }

    fn answer(&mut self, show: &mut impl FnMut(&str) -> bool) -> Result<(String, Finish)> {
        // Room for an answer of some length: without it, every other turn would run into the end of the
        // context.
        let context = self.session.context();
        let (mut text, mut tokens) = (String::new(), Vec::new());
        let mut reserve = self.options.max_tokens.min(context / 4);
        loop {
            let prompt = self.fit(tokens.len(), reserve)?;
            let ids = [prompt.1.as_slice(), &tokens].concat();
            let used = self.session.reuse_prefix(&ids);
            let mut options = self.options.clone();
            options.max_tokens -= tokens.len();
            // A continuation draws on from another seed, not from the beginning of the same one.
            options.sampling.seed =
                options.sampling.seed.wrapping_add(self.turns.len() as u64 + tokens.len() as u64);
            let part = generate(&mut self.session, &ids[used..], &options, |piece| {
                if show(piece) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
            text.push_str(&part.text);
            tokens.extend_from_slice(&part.tokens);
            let finish = part.finish;
            self.last = Some(part);
            reserve = context / 4;
            // A continuation would begin its grammar afresh.
            let whole = self.options.constraint.is_some();
            if finish != Finish::ContextFull || whole || !self.can_leave_out() {
                self.prompter.answered(&self.model, prompt, &tokens, &text);
                return Ok((text, finish));
            }
            self.left_out += 2;
        }
    }

    /// The prompt, after as many of the oldest turns are left out as needed for `answered` tokens and
    /// `reserve` more.
    fn fit(&mut self, answered: usize, reserve: usize) -> Result<(String, Vec<u32>)> {
        let context = self.session.context();
        loop {
            let prompt = self.prompter.prompt(&self.model, &self.visible())?;
            let needed = prompt.1.len() + answered;
            if needed + reserve <= context || (!self.can_leave_out() && needed < context) {
                return Ok(prompt);
            }
            if !self.can_leave_out() {
                let advice = if self.shift || self.turns.len() == 1 {
                    "shorten the message or raise --context"
                } else {
                    "/reset starts over; without --no-context-shift the oldest turns are dropped"
                };
                bail!(
                    "the context of {context} is full: no room for {needed} and an \
                       answer: {advice}",
                    needed = counted(needed, "more token"),
                    context = counted(context, "token")
                );
            }
            self.left_out += 2;
        }
    }

    /// Whether there is a turn before the last message to leave out.
    fn can_leave_out(&self) -> bool {
        self.shift && self.left_out + 2 < self.turns.len()
    }

    /// What the model sees.
    fn visible(&self) -> Vec<Message> {
        self.system.iter().chain(&self.turns[self.left_out..]).cloned().collect()
    }

    /// All messages, those that are out of sight too.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.system.iter().chain(&self.turns).cloned().collect()
    }

    /// Goes on from other messages: whole turns, perhaps after a system prompt.
    pub(super) fn set_messages(&mut self, mut messages: Vec<Message>) {
        let system = messages.first().is_some_and(|m| m.role == "system");
        self.system = system.then(|| messages.remove(0));
        self.turns = messages;
        self.left_out = 0;
    }

    /// Changes the system prompt; an empty one is none.
    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.is_empty()).then(|| Message::new("system", text));
    }

    /// Forgets all turns.
    pub(super) fn reset(&mut self) {
        self.turns.clear();
        self.left_out = 0;
    }

    /// Forgets the last turn.
    pub(super) fn undo(&mut self) -> Result<()> {
        if self.turns.is_empty() {
            bail!("/undo: the conversation is empty");
        }
        self.turns.truncate(self.turns.len() - 2);
        self.left_out = self.left_out.min(self.turns.len());
        Ok(())
    }

    /// Tokens, speed and memory, a line each.
    pub(super) fn stats(&self) -> String {
        let mut text = format!(
            "context  {} of {}; {}, {} dropped\n",
            self.session.len(),
            counted(self.session.context(), "token"),
            counted(self.turns.len(), "message"),
            self.left_out
        );
        // Writing to a string does not fail.
        if let Some(last) = &self.last {
            let (prompt, tokens) = (last.prompt_tokens, last.tokens.len());
            let _ = writeln!(
                text,
                "prefill  {prompt} at {:.0} tokens/s",
                last.prefill_rate(),
                prompt = counted(prompt, "new token")
            );
            let _ = writeln!(
                text,
                "decode   {tokens} at {:.0} tokens/s",
                last.decode_rate(),
                tokens = counted(tokens, "token")
            );
            if self.session.has_draft() {
                let Proposals { proposed, accepted } = last.draft;
                let _ = writeln!(text, "draft    {accepted} of {proposed} proposed tokens accepted");
            }
        }
        let memory = self.model.memory();
        let (weights, file, cache) = (
            memory.weight_bytes + memory.rearranged_head_bytes,
            memory.resident_file_bytes,
            self.session.kv_bytes(),
        );
        let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        let _ = writeln!(
            text,
            "memory   {:.1} MiB weights, {:.1} MiB embedding and head, {:.1} MiB keys and values in {}",
            mib(weights),
            mib(file),
            mib(cache),
            self.session.kv_type()
        );
        text
    }
}
