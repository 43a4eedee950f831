//! Running jobs: so many at once, so many waiting, each within its time, on threads of their own.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use tritforge_infer::{Finish, Model};
use tritforge_text::ToolFormat;

use crate::ServeOptions;
use crate::adapters::Adapters;
use crate::completion_jobs::finish_reason;
use crate::engine::{Engine, Job, Outcome, Piece, Prompt, TokenLogprob};
use crate::error::ApiError;
use crate::filters::{AnswerFilter, FilterSet, Filters, RESPONSE_FILTERED};
use crate::metrics::Metrics;
use crate::prompt_limit::PromptLimit;
use crate::record::Record;
use crate::response_cache::{Answer, ResponseCache};

/// Pieces of text that may wait for a client to read them.
const UNREAD: usize = 64;

/// What a request's jobs say, one after the other.
#[derive(Debug)]
pub(crate) enum Update {
    /// A piece of text, with its tokens if their log-probabilities are asked for.
    Piece { text: String, tokens: Vec<TokenLogprob> },
    /// The end of a job. No job follows one that failed.
    Done(Result<Outcome, ApiError>),
}

/// The engine with its queue.
#[derive(Debug, Clone)]
pub(crate) struct Jobs {
    engine: Engine,
    /// One permit a running job.
    running: Arc<Semaphore>,
    /// One permit a job that runs or waits.
    admitted: Arc<Semaphore>,
    concurrency: usize,
    queue: usize,
    timeout: Duration,
    /// [`ServeOptions::prompt_lookup`].
    pub(crate) prompt_lookup: usize,
    cache: Option<Arc<ResponseCache>>,
    filters: Option<Arc<Filters>>,
}

impl Jobs {
    pub(crate) fn new(engine: Engine, options: &ServeOptions) -> Self {
        // A semaphore has a limit of its own, far beyond what any machine runs.
        let most = Semaphore::MAX_PERMITS / 2;
        let (concurrency, queue) = (options.concurrency.clamp(1, most), options.queue.min(most));
        Self {
            engine,
            running: Arc::new(Semaphore::new(concurrency)),
            admitted: Arc::new(Semaphore::new(concurrency + queue)),
            concurrency,
            queue,
            timeout: options.timeout,
            prompt_lookup: options.prompt_lookup,
            cache: (options.response_cache > 0).then(|| Arc::new(ResponseCache::new(options.response_cache))),
            filters: options.filters.clone(),
        }
    }

    pub(crate) fn model(&self) -> &str {
        &self.engine.name
    }

    pub(crate) fn adapters(&self) -> &Arc<Adapters> {
        self.engine.adapters()
    }

    /// The model, for its tokenizer, and how long its texts may be.
    ///
    /// # Errors
    /// If the engine has none.
    pub(crate) fn text(&self) -> Result<(Arc<Model>, PromptLimit), ApiError> {
        let message = || "this engine has no tokenizer".to_string();
        self.engine.text().ok_or_else(|| ApiError::NotFound { message: message(), param: None, code: None })
    }

    /// How the model writes calls of tools, if that is known.
    pub(crate) fn tool_format(&self) -> Option<ToolFormat> {
        self.engine.tool_format()
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        self.engine.metrics()
    }

    /// Requests that run at once.
    pub(crate) fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Requests that may run and wait.
    pub(crate) fn admits(&self) -> usize {
        self.concurrency + self.queue
    }

    /// The content filters as they are now.
    pub(crate) fn filters(&self) -> Option<Arc<FilterSet>> {
        self.filters.as_ref().map(|filters| filters.current())
    }

    /// The text of tokens that came in the field `param`, for filters.
    pub(crate) fn decode(&self, ids: &[u32], param: &'static str) -> Result<String, ApiError> {
        let invalid = |message: String| ApiError::Invalid { message, param: Some(param) };
        self.text()?.0.tokenizer().decode(ids).map_err(|e| invalid(e.to_string()))
    }

    /// The metrics with the gauges as they are now.
    pub(crate) fn measure(&self) -> &Metrics {
        let metrics = self.metrics();
        let admitted = (self.concurrency + self.queue).saturating_sub(self.admitted.available_permits());
        let running = self.concurrency.saturating_sub(self.running.available_permits()).min(admitted);
        metrics.running.set(running as i64);
        metrics.waiting.set((admitted - running) as i64);
        metrics.adapters.set(self.adapters().list().len() as i64);
        let cached = self.cache.as_ref().map_or(0, |cache| cache.bytes());
        metrics.response_bytes.set(cached.try_into().unwrap_or(i64::MAX));
        // A full context for each request that runs, and one for prompts to come.
        metrics.set_kv_limit(self.concurrency + 1);
        metrics
    }

    /// Starts a request's jobs, `n` for each prompt, which run one after the other in one place. The updates of each end with
    /// [`Update::Done`]; dropping the receiver stops the one that runs at its next token.
    ///
    /// # Errors
    /// If a content filter blocks a prompt, too many jobs are waiting, or the time limit passes before its turn.
    pub(crate) async fn start(
        &self,
        mut jobs: Vec<Job>,
        n: usize,
        record: Arc<Record>,
    ) -> Result<mpsc::Receiver<Update>, ApiError> {
        let filters = self.filters();
        if let Some(filters) = &filters {
            filters.prompts(&mut jobs, self.metrics(), |ids| self.decode(ids, "prompt"))?;
        }
        if let Some(answers) = self.kept(&jobs) {
            return Ok(self.replay(answers, n, filters, record));
        }
        let place = self.place(&record).await?;
        if let Some(first) = jobs.first_mut() {
            first.arrived = Some(record.arrived);
        }
        let (sender, receiver) = mpsc::channel(UNREAD);
        let engine = self.engine.clone();
        let handle = Handle::current();
        let cache = self.cache.clone();
        tokio::task::spawn_blocking(move || {
            let client = Client { sender, handle, deadline: place.deadline, late: false, record };
            run(&engine, cache.as_deref(), filters.as_ref(), &jobs, n, client, place);
        });
        Ok(receiver)
    }

    /// A place among those that run, as soon as one is free.
    ///
    /// # Errors
    /// If too many are waiting, or the time limit passes before its turn.
    pub(crate) async fn place(&self, record: &Record) -> Result<Place, ApiError> {
        let waited = Instant::now();
        // A limit beyond what a clock can say is none.
        let deadline = Instant::now().checked_add(self.timeout);
        let admitted = match Arc::clone(&self.admitted).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits) => return Err(ApiError::Busy),
            Err(TryAcquireError::Closed) => {
                return Err(ApiError::Internal("the service is shutting down".to_string()));
            }
        };
        let turn = tokio::time::timeout(self.timeout, Arc::clone(&self.running).acquire_owned());
        let running = match turn.await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(ApiError::Internal("the service is shutting down".to_string())),
            Err(_) => return Err(ApiError::Timeout),
        };
        let waited = waited.elapsed().as_secs_f64();
        self.metrics().queue_time.observe(waited);
        record.queued(waited);
        Ok(Place { deadline, _permits: [admitted, running] })
    }

    /// The answers of all jobs, if the cache has them.
    fn kept(&self, jobs: &[Job]) -> Option<Vec<Arc<Answer>>> {
        let cache = self.cache.as_ref().filter(|_| jobs.iter().all(|job| job.deterministic))?;
        self.metrics().response_queries.inc();
        let answers = jobs.iter().map(|job| cache.get(job)).collect::<Option<Vec<_>>>()?;
        self.metrics().response_hits.inc();
        Some(answers)
    }

    /// Says again what jobs got before. Nothing waits for that.
    fn replay(
        &self,
        answers: Vec<Arc<Answer>>,
        n: usize,
        filters: Option<Arc<FilterSet>>,
        record: Arc<Record>,
    ) -> mpsc::Receiver<Update> {
        let (sender, receiver) = mpsc::channel(UNREAD);
        let metrics = Arc::clone(self.metrics());
        tokio::spawn(async move {
            record.cached.store(true, Ordering::Relaxed);
            for (i, answer) in answers.iter().enumerate() {
                let Answer { text, tokens, outcome } = answer.as_ref();
                let (mut text, mut outcome) = (text.clone(), *outcome);
                if let Some(mut filter) = filters.as_ref().and_then(|set| AnswerFilter::new(set, &metrics)) {
                    text = filter.push(&text, true);
                    if filter.is_blocked() {
                        record.code(RESPONSE_FILTERED);
                        outcome.finish = Finish::Withheld;
                    }
                }
                record.tokens(
                    if i.is_multiple_of(n) { outcome.prompt_tokens } else { 0 },
                    outcome.completion_tokens,
                );
                metrics.generations.with_label_values(&[finish_reason(outcome.finish)]).inc();
                if !text.is_empty() || !tokens.is_empty() {
                    record.text();
                    let piece = Update::Piece { text, tokens: tokens.clone() };
                    if sender.send(piece).await.is_err() {
                        return;
                    }
                }
                if i + 1 == answers.len() {
                    metrics.request_duration.observe(record.arrived.elapsed().as_secs_f64());
                }
                if sender.send(Update::Done(Ok(outcome))).await.is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// A request's place among those that run, which is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    /// When the request's time is over.
    deadline: Option<Instant>,
    _permits: [OwnedSemaphorePermit; 2],
}

impl Place {
    /// Whether the request's time is over.
    pub(crate) fn is_late(&self) -> bool {
        self.deadline.is_some_and(|deadline| Instant::now() > deadline)
    }
}

/// Whom a job writes to.
struct Client {
    sender: mpsc::Sender<Update>,
    handle: Handle,
    deadline: Option<Instant>,
    /// Whether the deadline has been seen to pass.
    late: bool,
    record: Arc<Record>,
}

impl Client {
    /// Hands text over, and says whether anybody still wants more. No text only asks.
    fn piece(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        self.late |= self.deadline.is_some_and(|deadline| Instant::now() > deadline);
        if self.late || self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        if piece.text.is_empty() && piece.tokens.is_empty() {
            return ControlFlow::Continue(());
        }
        self.record.text();
        self.send(Update::Piece { text: piece.text.to_string(), tokens: piece.tokens.to_vec() })
    }

    /// Hands over what a filter lets through of a piece, the text's end if `last`.
    fn filtered(&mut self, filter: &mut AnswerFilter, piece: Piece<'_>, last: bool) -> ControlFlow<()> {
        let text = filter.push(piece.text, last);
        self.piece(Piece { text: &text, tokens: piece.tokens })?;
        if filter.is_blocked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    /// Hands an update over; waits for a slow client, but not beyond the time limit.
    fn send(&mut self, update: Update) -> ControlFlow<()> {
        match self.sender.try_send(update) {
            Ok(()) => ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
            // The client reads more slowly than the model writes.
            Err(TrySendError::Full(update)) => {
                let wait =
                    self.deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
                let sent = async { tokio::time::timeout(wait, self.sender.send(update)).await };
                match self.handle.block_on(sent) {
                    Ok(Ok(())) => ControlFlow::Continue(()),
                    Ok(Err(_)) => ControlFlow::Break(()),
                    Err(_) => {
                        self.late = true;
                        ControlFlow::Break(())
                    }
                }
            }
        }
    }
}

/// Runs the jobs, until one fails or nobody wants more.
fn run(
    engine: &Engine,
    cache: Option<&ResponseCache>,
    filters: Option<&Arc<FilterSet>>,
    jobs: &[Job],
    n: usize,
    mut client: Client,
    place: Place,
) {
    let mut outcome = Err(ApiError::Internal("the request has no job".to_string()));
    for (i, job) in jobs.iter().enumerate() {
        // The prompt of `n` choices counts once, as in the usage.
        outcome = run_one(engine, cache, filters, job, i.is_multiple_of(n), &mut client);
        // The last one's place is free before its client reads the end.
        if outcome.is_err() || client.sender.is_closed() || i + 1 == jobs.len() {
            break;
        }
        if client.send(Update::Done(outcome.clone())).is_break() {
            outcome = Err(ApiError::Timeout);
            break;
        }
    }
    engine.metrics().request_duration.observe(client.record.arrived.elapsed().as_secs_f64());
    drop(place);
    // Without holding a thread for it: a client that does not read gets it when it does, or never.
    let Client { sender, handle, record, .. } = client;
    handle.spawn(async move {
        let _ = sender.send(Update::Done(outcome)).await;
        drop(record);
    });
}

fn run_one(
    engine: &Engine,
    cache: Option<&ResponseCache>,
    filters: Option<&Arc<FilterSet>>,
    job: &Job,
    count_prompt: bool,
    client: &mut Client,
) -> Result<Outcome, ApiError> {
    // A panic is this job's failure: its client is told so, and its place is free again.
    let cache = cache.filter(|_| job.deterministic);
    let (mut text, mut tokens) = (String::new(), Vec::new());
    let mut filter = filters.and_then(|set| AnswerFilter::new(set, engine.metrics()));
    let mut on_piece = |piece: Piece<'_>| {
        if cache.is_some() {
            text.push_str(piece.text);
            tokens.extend_from_slice(piece.tokens);
        }
        match &mut filter {
            None => client.piece(piece),
            Some(filter) => client.filtered(filter, piece, false),
        }
    };
    let mut outcome = catch_unwind(AssertUnwindSafe(|| engine.run(job, &mut on_piece)));
    if let (Some(filter), Ok(Ok(outcome))) = (&mut filter, &mut outcome) {
        // What was held back; of a text that nobody wants more of, nothing.
        if outcome.finish != Finish::Cancelled {
            let _ = client.filtered(filter, Piece::from(""), true);
        }
        if filter.is_blocked() {
            client.record.code(RESPONSE_FILTERED);
            outcome.finish = Finish::Withheld;
        }
    }
    let reason = match &outcome {
        Ok(Ok(_)) if client.late => "abort",
        Ok(Ok(Outcome { finish: Finish::Cancelled, .. })) => "abort",
        Ok(Ok(outcome)) => finish_reason(outcome.finish),
        Ok(Err(_)) | Err(_) => "error",
    };
    if let Ok(Ok(Outcome { prompt_tokens, completion_tokens, .. })) = outcome {
        client.record.tokens(if count_prompt { prompt_tokens } else { 0 }, completion_tokens);
    }
    if let (Some(cache), Ok(Ok(outcome)), "stop" | "length") = (cache, &outcome, reason) {
        cache.put(job, Answer { text, tokens, outcome: *outcome });
    }
    engine.metrics().generations.with_label_values(&[reason]).inc();
    match outcome {
        Err(_) => Err(ApiError::Internal("the engine stopped without an answer".to_string())),
        Ok(Ok(_)) if client.late => Err(ApiError::Timeout),
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(error)) => {
            let param = if matches!(job.prompt, Prompt::Chat(_)) { "messages" } else { "prompt" };
            Err(ApiError::of_job(error, param))
        }
    }
}
