//! Running jobs: so many at once, so many waiting, each within its time, on threads of their own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError, mpsc};

use crate::adapters::Adapters;
use crate::engine::{Engine, Job, JobError, Outcome};
use crate::error::ApiError;

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

    /// Starts a job. Its updates end with [`Update::Done`]; dropping the receiver stops it at its next piece of text.
    ///
    /// # Errors
    /// If too many jobs are waiting, or the time limit passes before its turn.
    pub(crate) async fn start(&self, job: Job) -> Result<mpsc::UnboundedReceiver<Update>, ApiError> {
        let deadline = Instant::now() + self.timeout;
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
        let (sender, receiver) = mpsc::unbounded_channel();
        let engine = self.engine.clone();
        tokio::task::spawn_blocking(move || {
            run(&engine, &job, deadline, &sender, [admitted, running]);
        });
        Ok(receiver)
    }
}

fn run(
    engine: &Engine,
    job: &Job,
    deadline: Instant,
    sender: &mpsc::UnboundedSender<Update>,
    permits: [OwnedSemaphorePermit; 2],
) {
    let mut late = false;
    let outcome = engine.run(job, &mut |text| {
        late = Instant::now() > deadline;
        let gone = sender.send(Update::Text(text.to_string())).is_err();
        if late || gone { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    drop(permits);
    let outcome = match outcome {
        Ok(_) if late => Err(ApiError::Timeout),
        Ok(outcome) => Ok(outcome),
        Err(JobError::Invalid(message)) => Err(ApiError::Invalid { message, param: None }),
        Err(JobError::Failed(message)) => Err(ApiError::Internal(message)),
    };
    // A client that is gone needs no answer.
    let _ = sender.send(Update::Done(outcome));
}
