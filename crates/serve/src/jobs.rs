//! Running jobs: so many at once, so many waiting, each within its time, on threads of their own.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::adapters::Adapters;
use crate::engine::{Engine, Job, JobError, Outcome};
use crate::error::ApiError;

/// Pieces of text that may wait for a client to read them.
const UNREAD: usize = 64;

/// What a running job says.
#[derive(Debug)]
pub(crate) enum Update {
    /// A piece of text.
    Text(String),
    /// The end.
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
    timeout: Duration,
}

impl Jobs {
    pub(crate) fn new(engine: Engine, concurrency: usize, queue: usize, timeout: Duration) -> Self {
        // A semaphore has a limit of its own, far beyond what any machine runs.
        let most = Semaphore::MAX_PERMITS / 2;
        let (concurrency, queue) = (concurrency.clamp(1, most), queue.min(most));
        Self {
            engine,
            running: Arc::new(Semaphore::new(concurrency)),
            admitted: Arc::new(Semaphore::new(concurrency + queue)),
            timeout,
        }
    }

    pub(crate) fn model(&self) -> &str {
        &self.engine.name
    }

    pub(crate) fn adapters(&self) -> &Arc<Adapters> {
        self.engine.adapters()
    }

    /// Starts a job. Its updates end with [`Update::Done`]; dropping the receiver stops it at its next token.
    ///
    /// # Errors
    /// If too many jobs are waiting, or the time limit passes before its turn.
    pub(crate) async fn start(&self, job: Job) -> Result<mpsc::Receiver<Update>, ApiError> {
        // A limit beyond what a clock can say is none.
        let deadline = Instant::now().checked_add(self.timeout);
        let admitted = match Arc::clone(&self.admitted).try_acquire_owned() {
            Ok(permit) => permit,
            Err(TryAcquireError::NoPermits) => return Err(ApiError::Busy),
            Err(TryAcquireError::Closed) => {
                return Err(ApiError::Internal("the service is closing".to_string()));
            }
        };
        let turn = tokio::time::timeout(self.timeout, Arc::clone(&self.running).acquire_owned());
        let running = match turn.await {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(ApiError::Internal("the service is closing".to_string())),
            Err(_) => return Err(ApiError::Timeout),
        };
        let (sender, receiver) = mpsc::channel(UNREAD);
        let engine = self.engine.clone();
        let handle = Handle::current();
        tokio::task::spawn_blocking(move || {
            let client = Client { sender, handle, deadline, late: false };
            run(&engine, &job, client, [admitted, running]);
        });
        Ok(receiver)
    }
}

/// Whom a job writes to.
struct Client {
    sender: mpsc::Sender<Update>,
    handle: Handle,
    deadline: Option<Instant>,
    /// Whether the deadline has been seen to pass.
    late: bool,
}

impl Client {
    /// Hands text over, and says whether anybody still wants more. No text only asks.
    fn text(&mut self, text: &str) -> ControlFlow<()> {
        self.late |= self.deadline.is_some_and(|deadline| Instant::now() > deadline);
        if self.late || self.sender.is_closed() {
            return ControlFlow::Break(());
        }
        if text.is_empty() {
            return ControlFlow::Continue(());
        }
        match self.sender.try_send(Update::Text(text.to_string())) {
            Ok(()) => ControlFlow::Continue(()),
            Err(TrySendError::Closed(_)) => ControlFlow::Break(()),
            // The client reads more slowly than the model writes: wait, but not beyond the time limit.
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

fn run(engine: &Engine, job: &Job, mut client: Client, permits: [OwnedSemaphorePermit; 2]) {
    // A panic is this job's failure: its client is told so, and its place is free again.
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run(job, &mut |text| client.text(text))));
    drop(permits);
    let outcome = match outcome {
        Err(_) => Err(ApiError::Internal("the engine stopped without an answer".to_string())),
        Ok(Ok(_)) if client.late => Err(ApiError::Timeout),
        Ok(Ok(outcome)) => Ok(outcome),
        Ok(Err(JobError::Invalid(message))) => Err(ApiError::Invalid { message, param: None }),
        Ok(Err(JobError::ContextLength(message))) => Err(ApiError::ContextLength(message)),
        Ok(Err(JobError::Failed(message))) => Err(ApiError::Internal(message)),
    };
    // Without holding a thread for it: a client that does not read gets it when it does, or never.
    let Client { sender, handle, .. } = client;
    handle.spawn(async move { sender.send(Update::Done(outcome)).await });
}
