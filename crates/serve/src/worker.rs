//! The thread on which a model runs: all requests that are running share each pass over the weights.
//!
//! A request's own thread encodes its prompt, waits for its text, and writes to its client. A client that
//! reads slowly holds nobody else up: what has been generated for it waits in its channel, which is never
//! longer than the context.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use tritforge_infer::{
    Draft, Finish, GenerateOptions, Generation, InferError, KvType, Model, Piece, ScaledAdapter, Scheduler,
    SchedulerOptions, Sequence, Session, TokenLogprobs, Vocabulary,
};
use tritforge_support::counted;

use crate::engine::JobError;
use crate::metrics::{Metrics, Progress};

/// Sessions at most that are kept for prompts that begin like one before.
const MOST_IDLE: usize = 16;

/// A model at work.
#[derive(Debug)]
pub(crate) struct Worker {
    requests: Sender<Request>,
    /// Tokens of a prompt and its continuation at most.
    context: usize,
    /// What makes that less than the model's, if anything does.
    limit: Option<&'static str>,
}

/// What is to be generated, and for whom.
#[derive(Debug)]
struct Request {
    prompt: Vec<u32>,
    options: GenerateOptions,
    adapters: Arc<[ScaledAdapter]>,
    client: Client,
}

/// The thread that waits for a sequence's text.
#[derive(Debug)]
struct Client {
    updates: Sender<Update>,
    cancelled: Arc<AtomicBool>,
    progress: Progress,
}

/// What a sequence says.
#[derive(Debug)]
enum Update {
    Piece { text: String, tokens: Vec<TokenLogprobs> },
    Done(Result<Generation, InferError>),
}

impl Client {
    fn piece(&self, piece: Piece<'_>) -> ControlFlow<()> {
        let update = Update::Piece { text: piece.text.to_string(), tokens: piece.tokens.to_vec() };
        if self.cancelled.load(Ordering::Relaxed) || self.updates.send(update).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn done(&self, result: Result<Generation, InferError>) {
        // Nobody may be waiting any more.
        let _ = self.updates.send(Update::Done(result));
    }
}

/// How keys and values are kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct KvOptions {
    /// How they are stored.
    pub kv: KvType,
    /// Bytes that they take at most, at least [`Engine::least_kv_memory`]: a request waits until all that it can come to
    /// take is free, and none is longer than there is room for.
    ///
    /// [`Engine::least_kv_memory`]: crate::Engine::least_kv_memory
    pub memory: Option<usize>,
    /// Tokens of a prompt and its continuation at most; those of the model's context if there are fewer.
    pub context: Option<usize>,
}

impl KvOptions {
    fn bytes(self) -> usize {
        self.memory.unwrap_or(usize::MAX)
    }

    /// The longest sequence that a model may have.
    fn longest(self, model: &Model) -> usize {
        let context = model.config().max_position_embeddings;
        self.context.map_or(context, |most| most.min(context))
    }
}

impl Worker {
    /// Starts the thread. It ends when nobody can send requests any more.
    pub(crate) fn start(
        model: &Arc<Model>,
        draft: Option<Draft>,
        metrics: &Arc<Metrics>,
        cache: KvOptions,
    ) -> Self {
        let (requests, received) = channel();
        let context = context_within(model, draft.as_ref(), cache);
        let longest = cache.longest(model);
        let limit = match context {
            context if context < longest => Some("the memory for keys and values (serve --kv-memory)"),
            context if context < model.config().max_position_embeddings => Some("serve --context"),
            _ => None,
        };
        metrics.kv_memory.store(cache.memory.map_or(0, |bytes| bytes as u64), Ordering::Relaxed);
        let (model, metrics) = (Arc::clone(model), Arc::clone(metrics));
        // Without a thread nobody receives, and every request fails with that.
        let _ = std::thread::Builder::new().name("tritforge-engine".to_string()).spawn(move || {
            // After a panic the requests that were running are told so, and the next ones begin afresh.
            while catch_unwind(AssertUnwindSafe(|| {
                work(&model, draft.as_ref(), &metrics, &received, context, cache);
            }))
            .is_err()
            {}
        });
        Self { requests, context, limit }
    }

    /// Tokens of a prompt and its continuation at most.
    pub(crate) fn context(&self) -> usize {
        self.context
    }

    /// Why a request cannot run.
    fn explain(&self, error: InferError) -> JobError {
        match error {
            error @ InferError::ContextFull { used, asked, context } => match self.limit {
                Some(limit) => JobError::ContextLength(format!(
                    "the prompt has {} and {limit} has room for {context}: use a shorter prompt",
                    counted(used + asked, "token")
                )),
                None => error.into(),
            },
            error => error.into(),
        }
    }

    /// Generates with a session of its own and these adapters. `arrived` is when the request came that waits
    /// for the first token. `on_piece` is asked as by
    /// [`tritforge_infer::generate_pieces`]; when it ends the generation, the sequence ends with its next pass.
    pub(crate) fn generate(
        &self,
        prompt: Vec<u32>,
        options: GenerateOptions,
        adapters: Arc<[ScaledAdapter]>,
        arrived: Option<Instant>,
        mut on_piece: impl FnMut(Piece<'_>) -> ControlFlow<()>,
    ) -> Result<Generation, JobError> {
        let (updates, received) = channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let progress = Progress::new(arrived);
        let client = Client { updates, cancelled: Arc::clone(&cancelled), progress };
        let stopped = || JobError::Failed("the engine stopped without an answer".to_string());
        self.requests.send(Request { prompt, options, adapters, client }).map_err(|_| stopped())?;
        for update in received {
            match update {
                Update::Done(result) => return result.map_err(|error| self.explain(error)),
                Update::Piece { .. } if cancelled.load(Ordering::Relaxed) => {}
                Update::Piece { text, tokens } => {
                    if on_piece(Piece { text: &text, tokens: &tokens }).is_break() {
                        cancelled.store(true, Ordering::Relaxed);
                    }
                }
            }
        }
        Err(stopped())
    }
}

/// Tokens of the longest sequence whose keys and values, a draft's included, take no more than `cache.memory` bytes; the model's context or
/// `cache.context` if that is less. 0 if there is not even room for a part of one.
pub(crate) fn context_within(model: &Model, draft: Option<&Draft>, cache: KvOptions) -> usize {
    let longest = cache.longest(model);
    let of = |model: &Model, positions| Session::kv_bytes_of(model, cache.kv, positions);
    let both = |positions| of(model, positions) + draft.map_or(0, |draft| of(draft.model(), positions));
    let fits = |positions: usize| both(positions) <= cache.bytes();
    // Memory grows with the positions: halve what is between one that fits and one that does not.
    let (mut fitting, mut beyond) = (0, longest + 1);
    while beyond - fitting > 1 {
        let middle = fitting + (beyond - fitting) / 2;
        if fits(middle) { fitting = middle } else { beyond = middle }
    }
    fitting
}

/// Runs requests until nobody can send one, in a context that fits the memory of keys and values.
fn work(
    model: &Arc<Model>,
    draft: Option<&Draft>,
    metrics: &Metrics,
    requests: &Receiver<Request>,
    context: usize,
    cache: KvOptions,
) {
    // The service decides how many requests run at once.
    let all = SchedulerOptions::of(model, usize::MAX);
    let options =
        SchedulerOptions { max_idle: MOST_IDLE, context, kv: cache.kv, max_kv_bytes: cache.bytes(), ..all };
    // Bytes of the keys and values of a full context.
    let full_of = |model: &Model| {
        let context = context.min(model.config().max_position_embeddings);
        Session::kv_bytes_of(model, cache.kv, context)
    };
    let full = full_of(model) + draft.map_or(0, |draft| full_of(draft.model()));
    metrics.kv_context_bytes.store(full as u64, Ordering::Relaxed);
    let scheduler = Scheduler::new(model, options).and_then(|all| all.with_draft(draft.cloned()));
    let Ok(mut scheduler) = scheduler else { return };
    loop {
        if scheduler.is_empty() {
            let Ok(request) = requests.recv() else { return };
            submit(&mut scheduler, request, model, context);
        }
        requests.try_iter().for_each(|request| submit(&mut scheduler, request, model, context));
        let mut ended = scheduler.pass(|client, piece| client.piece(piece));
        count(metrics, &mut scheduler, &mut ended);
        if !ended.is_empty() {
            trim(&mut scheduler, full);
        }
        metrics.kv_bytes.set(scheduler.kv_bytes().try_into().unwrap_or(i64::MAX));
        for (client, result) in ended {
            client.done(result);
        }
    }
}

/// Counts what a pass has brought.
fn count<'m>(
    metrics: &Metrics,
    scheduler: &mut Scheduler<'m, Client>,
    ended: &mut [(Client, Result<Generation, InferError>)],
) {
    let now = Instant::now();
    for (client, sequence) in scheduler.running().filter(|(_, sequence)| !sequence.is_prefilling()) {
        let tokens = (sequence.prompt_tokens(), sequence.cached_tokens(), sequence.generated());
        client.progress.count(metrics, tokens, now);
    }
    for (client, result) in ended {
        if let Ok(Generation { lookup, draft, .. }) = result {
            metrics.lookup.count(*lookup);
            metrics.draft.count(*draft);
        }
        // One that was cancelled may not have run its prompt.
        if let Ok(Generation { prompt_tokens, cached_tokens, tokens, finish, .. }) = result
            && (*finish != Finish::Cancelled || !tokens.is_empty())
        {
            client.progress.count(metrics, (*prompt_tokens, *cached_tokens, tokens.len()), now);
        }
    }
}

/// Queues a request, or says at once why it cannot run.
fn submit<'m>(scheduler: &mut Scheduler<'m, Client>, request: Request, model: &'m Model, context: usize) {
    let Request { prompt, options, adapters, client } = request;
    match Sequence::new(Vocabulary::of(model), &prompt, options, 0..context) {
        Ok(sequence) => scheduler.submit(client, sequence, adapters),
        Err(error) => client.done(Err(error)),
    }
}

/// Forgets sessions with adapters, which may be unloaded, and the oldest of the others until those that are
/// left take no more memory than one with a full context, or are one.
fn trim(scheduler: &mut Scheduler<'_, Client>, full: usize) {
    let (mut count, mut bytes) = (0, 0);
    scheduler.retain_idle(|session| {
        let keep = session.adapters().is_empty();
        count += usize::from(keep);
        bytes += if keep { session.kv_bytes() } else { 0 };
        keep
    });
    scheduler.retain_idle(|session| {
        let keep = bytes <= full || count == 1;
        if !keep {
            count -= 1;
            bytes -= session.kv_bytes();
        }
        keep
    });
}
