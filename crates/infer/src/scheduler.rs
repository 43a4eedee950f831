//! Continuous batching: many sequences share each pass over the weights, and one that ends makes room for one
//! that waits.
//!
//! A pass takes one token of every sequence that decodes and fills what is left of its tokens with chunks of
//! prompts, oldest first. Sessions of sequences that have ended are kept for prompts that begin alike. A
//! row's result depends on no other row, and one token after another gives the bits of all at once, so that a
//! sequence's result is the same in any company and after any reuse.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use tritforge_kernels::KvType;

use crate::draft::{Draft, propose};
use crate::parts::run_parts;
use crate::session::KV_STEP;
use crate::step::SequenceInput;
use crate::{
    Finish, Generation, InferError, Model, NeededLogits, PREFILL_CHUNK, Piece, ScaledAdapter, Sequence,
    Session,
};

/// What a scheduler may take.
#[derive(Debug, Clone, Copy)]
pub struct SchedulerOptions {
    /// Sequences that run at once, at least 1; others wait.
    pub max_sequences: usize,
    /// Most tokens of one pass, if not more sequences than that decode.
    pub max_pass_tokens: usize,
    /// Sessions that are kept after their sequence has ended.
    pub max_idle: usize,
    /// Most tokens of a prompt and its continuation.
    pub context: usize,
    /// How keys and values are stored.
    pub kv: KvType,
    /// Bytes of the keys and values of all sessions, those that are kept included, at most; at least those of a full
    /// context. A sequence waits until all that it can come to take is free.
    pub max_kv_bytes: usize,
}

impl SchedulerOptions {
    /// So many sequences at once, each as long as the model's context at most.
    pub fn of(model: &Model, max_sequences: usize) -> Self {
        Self {
            max_sequences,
            max_pass_tokens: PREFILL_CHUNK,
            max_idle: max_sequences,
            context: model.config().max_position_embeddings,
            kv: KvType::default(),
            max_kv_bytes: usize::MAX,
        }
    }
}

/// A sequence that has come to its end, under its tag.
pub type Ended<T> = (T, Result<Generation, InferError>);

/// A sequence in the queue.
#[derive(Debug)]
struct Queued<'m, T> {
    tag: T,
    sequence: Sequence<'m>,
    adapters: Arc<[ScaledAdapter]>,
}

/// A sequence that runs.
#[derive(Debug)]
struct Slot<'m, T> {
    tag: T,
    sequence: Sequence<'m>,
    session: Session,
    /// Bytes of keys and values that it can come to take.
    reserved: usize,
    /// How many of its tokens take part in the pass.
    take: usize,
    /// Why it is at its end, if it is.
    end: Option<Result<Finish, InferError>>,
}

/// Runs sequences, several at a time. Each is known by a tag of the caller's.
#[derive(Debug)]
pub struct Scheduler<'m, T> {
    model: &'m Arc<Model>,
    options: SchedulerOptions,
    queue: VecDeque<Queued<'m, T>>,
    /// In the order in which they were admitted.
    running: Vec<Slot<'m, T>>,
    /// Sessions to go on from, those that ended first at the front.
    idle: Vec<Session>,
    /// Bytes of keys and values of [`KV_STEP`] positions, where they are bounded.
    kv_step: Option<usize>,
    /// What proposes tokens, if anything does.
    draft: Option<Draft>,
}

impl<'m, T> Scheduler<'m, T> {
    /// A scheduler without sequences.
    ///
    /// # Errors
    /// If no sequence may run, a pass has no tokens, the context is 0 or longer than the model's, or its keys and
    /// values take more than they may.
    pub fn new(model: &'m Arc<Model>, options: SchedulerOptions) -> Result<Self, InferError> {
        let SchedulerOptions { max_sequences, max_pass_tokens, context, kv, .. } = options;
        for (option, found) in [("max_sequences", max_sequences), ("max_pass_tokens", max_pass_tokens)] {
            if found == 0 {
                return Err(InferError::Option { option, found: "0".to_string(), expected: "at least 1" });
            }
        }
        // Refuses a context that no session can have.
        Session::with_kv(Arc::clone(model), context, kv)?;
        let scheduler = Self {
            model,
            options,
            queue: VecDeque::new(),
            running: Vec::new(),
            idle: Vec::new(),
            kv_step: None,
            draft: None,
        };
        scheduler.bounded()
    }

    /// The scheduler with a draft that proposes tokens to all sequences. Its keys and values count as those of the model do.
    ///
    /// # Errors
    /// If the two together take more than they may.
    pub fn with_draft(mut self, draft: Option<Draft>) -> Result<Self, InferError> {
        self.draft = draft;
        self.idle.clear();
        self.bounded()
    }

    /// With the memory of a step, if memory is bounded.
    fn bounded(mut self) -> Result<Self, InferError> {
        let SchedulerOptions { max_kv_bytes, context, kv, .. } = self.options;
        let models = [Some(self.model), self.draft.as_ref().map(Draft::model)];
        let step =
            models.into_iter().flatten().map(|model| Session::kv_bytes_of(model, kv, 1)).sum::<usize>();
        self.kv_step = (max_kv_bytes != usize::MAX).then_some(step);
        if self.kv_step.is_some_and(|step| step * context.div_ceil(KV_STEP) > max_kv_bytes) {
            return Err(InferError::Option {
                option: "max_kv_bytes",
                found: max_kv_bytes.to_string(),
                expected: "at least the keys and values of a full context",
            });
        }
        Ok(self)
    }

    /// Puts a sequence of this model ([`crate::Vocabulary::of`]) at the end of the queue, whose positions are
    /// those of the context from 0. It runs with these adapters ([`Model::adapters`] are those of
    /// the model) from the pass on in which a place is free.
    pub fn submit(&mut self, tag: T, sequence: Sequence<'m>, adapters: Arc<[ScaledAdapter]>) {
        self.queue.push_back(Queued { tag, sequence, adapters });
    }

    /// Number of sequences that run or wait.
    pub fn len(&self) -> usize {
        self.queue.len() + self.running.len()
    }

    /// Whether no sequence runs or waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Number of sessions that are kept for prompts to come.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The sequences that run, oldest first, under their tags.
    pub fn running(&mut self) -> impl Iterator<Item = (&mut T, &Sequence<'m>)> {
        self.running.iter_mut().map(|slot| (&mut slot.tag, &slot.sequence))
    }

    /// Bytes of the keys and values of all sessions, those that are kept included.
    pub fn kv_bytes(&self) -> usize {
        let running = self.running.iter().map(|slot| slot.session.kv_bytes());
        running.chain(self.idle.iter().map(Session::kv_bytes)).sum()
    }

    /// Forgets kept sessions, but for those that `keep` wants.
    pub fn retain_idle(&mut self, keep: impl FnMut(&Session) -> bool) {
        self.idle.retain(keep);
    }

    /// Runs sequences to their ends, in the order in which they come; each begins as soon as a place is free.
    /// They have the model's adapters. `done` gets each result as soon as it is there. After `stopped` says so
    /// those that run are handed over as cancelled, and no more are begun.
    ///
    /// # Errors
    /// The first error of `sequences` or `done`.
    pub fn run<E>(
        &mut self,
        sequences: impl IntoIterator<Item = Result<(T, Sequence<'m>), E>>,
        stopped: impl Fn() -> bool,
        mut done: impl FnMut(T, Result<Generation, InferError>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut sequences = sequences.into_iter();
        loop {
            while self.len() < self.options.max_sequences {
                let Some(next) = sequences.next() else { break };
                let (tag, sequence) = next?;
                self.submit(tag, sequence, self.model.adapters());
            }
            if self.is_empty() {
                return Ok(());
            }
            if stopped() {
                return self.cancel_all().into_iter().try_for_each(|(tag, result)| done(tag, result));
            }
            for (tag, result) in self.pass(|_, _| ControlFlow::Continue(())) {
                done(tag, result)?;
            }
        }
    }

    /// Admits sequences that wait, runs the model once, and returns the sequences that ended by it, oldest
    /// first. `on_piece` gets the text of each sequence as it comes, and may end the sequence: it is asked
    /// with an empty piece before each pass of a sequence whose prompt has not been run yet, and after each
    /// token that hands out no text.
    ///
    /// A sequence that fails ends with its error; the others go on.
    pub fn pass(&mut self, mut on_piece: impl FnMut(&mut T, Piece<'_>) -> ControlFlow<()>) -> Vec<Ended<T>> {
        let mut ended = self.admit();
        for Slot { tag, sequence, end, .. } in &mut self.running {
            if sequence.is_prefilling() && on_piece(tag, Piece::default()).is_break() {
                *end = Some(Ok(sequence.cancel()));
            }
        }
        self.draft();
        self.plan();
        let on_gpu = self.model.runs_on_gpu();
        let needed: Vec<Option<NeededLogits>> = (self.running.iter())
            .filter(|slot| slot.take > 0)
            .map(|slot| on_gpu.then(|| slot.sequence.needed()).flatten())
            .collect();
        let mut parts: Vec<SequenceInput<'_>> = (self.running.iter_mut())
            .filter(|slot| slot.take > 0)
            .map(|Slot { sequence, session, take, .. }| {
                let (ids, request) = sequence.next_input(*take);
                SequenceInput { session, ids, request }
            })
            .collect();
        let results = run_parts(&mut parts, &needed);
        drop(parts);
        let ran = self.running.iter_mut().filter(|slot| slot.take > 0);
        for (Slot { tag, sequence, session, take, end, .. }, result) in ran.zip(results) {
            let accepted = result
                .and_then(|logits| sequence.accept_logits(*take, &logits, |piece| on_piece(tag, piece)));
            *end = accepted.transpose();
            // Tokens that were proposed and did not come.
            if session.len() > sequence.seen() {
                session.truncate(sequence.seen());
            }
        }
        let mut at = 0;
        while at < self.running.len() {
            let Some(end) = self.running[at].end.take() else {
                at += 1;
                continue;
            };
            let Slot { mut tag, sequence, session, .. } = self.running.remove(at);
            self.keep(session);
            let result = end.and_then(|finish| sequence.finish(finish, |piece| on_piece(&mut tag, piece)));
            ended.push((tag, result));
        }
        ended
    }

    /// Ends all sequences, those that wait too. Their texts have what was held back.
    pub fn cancel_all(&mut self) -> Vec<Ended<T>> {
        let mut ended = Vec::with_capacity(self.len());
        let finish =
            |sequence: Sequence<'_>| sequence.finish(Finish::Cancelled, |_| ControlFlow::Continue(()));
        for Slot { tag, sequence, session, .. } in std::mem::take(&mut self.running) {
            self.keep(session);
            ended.push((tag, finish(sequence)));
        }
        ended.extend(self.queue.drain(..).map(|Queued { tag, sequence, .. }| (tag, finish(sequence))));
        ended
    }

    /// Gives sequences of the queue their places. Returns those that got none for an error.
    fn admit(&mut self) -> Vec<Ended<T>> {
        let mut failed = Vec::new();
        while self.running.len() < self.options.max_sequences {
            let Some(next) = self.queue.front() else { break };
            let need = self.kv_need(&next.sequence);
            let reserved: usize = self.running.iter().map(|slot| slot.reserved).sum();
            if need > self.options.max_kv_bytes.saturating_sub(reserved) {
                break;
            }
            let Some(Queued { tag, mut sequence, adapters }) = self.queue.pop_front() else { break };
            match self.session(sequence.reusable(), adapters, need) {
                Ok(session) => {
                    self.make_room(reserved + need);
                    sequence.start(session.len());
                    self.running.push(Slot { tag, sequence, session, reserved: need, take: 0, end: None });
                }
                Err(error) => failed.push((tag, Err(error))),
            }
        }
        failed
    }

    /// Bytes of keys and values that a sequence can come to take; 0 if they are not bounded.
    fn kv_need(&self, sequence: &Sequence<'_>) -> usize {
        self.kv_step.map_or(0, |step| step * sequence.most_positions().div_ceil(KV_STEP))
    }

    /// Forgets kept sessions, those that ended first, until so many bytes are free beside the others.
    fn make_room(&mut self, reserved: usize) {
        if self.kv_step.is_none() {
            return;
        }
        let mut kept: usize = self.idle.iter().map(Session::kv_bytes).sum();
        while kept > self.options.max_kv_bytes.saturating_sub(reserved) && !self.idle.is_empty() {
            kept -= self.idle.remove(0).kv_bytes();
        }
    }

    /// A session for a prompt, with what a kept one has in common with it.
    fn session(
        &mut self,
        prompt: &[u32],
        adapters: Arc<[ScaledAdapter]>,
        need: usize,
    ) -> Result<Session, InferError> {
        let common = |session: &Session| match same(session.adapters(), &adapters) {
            true => session.tokens().iter().zip(prompt).take_while(|(a, b)| a == b).count(),
            false => 0,
        };
        // Of equals the last one: those at the front are forgotten first.
        let best = (self.idle.iter().map(common).enumerate()).max_by_key(|(_, common)| *common);
        let all_taken = self.running.len() + self.idle.len() >= self.options.max_sequences;
        let chosen = best.and_then(|(at, common)| match common {
            0 => all_taken.then_some(0),
            // Another prompt may want what this one would overwrite, as long as there are free places.
            _ => (all_taken || 2 * common >= self.idle[at].len()).then_some(at),
        });
        let bounded = self.kv_step.is_some();
        let mut session = match chosen.map(|at| self.idle.remove(at)) {
            // A longer one keeps its memory, whatever becomes of its tokens.
            Some(session) if !bounded || session.kv_bytes() <= need => session,
            _ => {
                let mut new =
                    Session::with_kv(Arc::clone(self.model), self.options.context, self.options.kv)?;
                new.set_draft(self.draft.as_ref())?;
                new
            }
        };
        if !same(session.adapters(), &adapters) {
            session.truncate(0);
            session.set_adapters(adapters);
        }
        session.reuse_prefix(prompt);
        Ok(session)
    }

    /// Keeps the session of a sequence that has ended.
    fn keep(&mut self, session: Session) {
        self.idle.push(session);
        if self.idle.len() > self.options.max_idle {
            self.idle.remove(0);
        }
    }

    /// Lets the drafts propose tokens to sequences that have none proposed.
    fn draft(&mut self) {
        if self.draft.is_none() {
            return;
        }
        let going = |slot: &&mut Slot<'m, T>| slot.end.is_none();
        let parts = self.running.iter_mut().filter(going);
        let errors =
            propose(parts.map(|slot| (&mut slot.sequence, &mut slot.session)), self.options.max_pass_tokens);
        for (slot, error) in self.running.iter_mut().filter(going).zip(errors) {
            slot.end = error.map(Err);
        }
    }

    /// Decides how many tokens of each sequence take part in the next pass.
    fn plan(&mut self) {
        let decoding = self.running.iter().filter(|slot| slot.waits() == 1).count();
        let mut room = self.options.max_pass_tokens.saturating_sub(decoding).max(1);
        for slot in &mut self.running {
            slot.take = match slot.waits() {
                waiting @ (0 | 1) => waiting,
                waiting => {
                    let chunk = slot.sequence.next_input(waiting.min(room)).0.len();
                    room = room.saturating_sub(chunk);
                    chunk
                }
            };
        }
    }
}

impl<T> Slot<'_, T> {
    /// How many tokens wait to be run.
    fn waits(&self) -> usize {
        if self.end.is_some() { 0 } else { self.sequence.waiting() }
    }
}

/// Whether keys and values computed with these adapters are those of the others.
fn same(a: &[ScaledAdapter], b: &[ScaledAdapter]) -> bool {
    let equal = |(a, b): (&ScaledAdapter, &ScaledAdapter)| {
        Arc::ptr_eq(&a.adapter, &b.adapter) && a.scale.to_bits() == b.scale.to_bits()
    };
    a.len() == b.len() && a.iter().zip(b).all(equal)
}
