//! A run on an MLflow tracking server: its parameters, its numbers over the steps, how it ended.
//!
//! Requests are made by a thread of their own. A server that is away neither stops training nor slows it: numbers wait, up
//! to [`WAITING`] of them, and are sent when it answers again. What is lost in the end is counted and told.

mod client;
mod record;
#[cfg(test)]
mod tests;
mod worker;

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use self::client::{Client, Point};
use self::record::Record;
use self::worker::{Item, Worker};
use super::hparams::hparams_of;
use super::scalars::scalars;
use super::{Ending, Event};

/// Numbers that wait to be sent, at most: about 10 MB.
const WAITING: usize = 100_000;

/// Where a run is logged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MlflowOptions {
    /// The server, as `http://127.0.0.1:5000`.
    pub url: String,
    /// The name of the experiment, which is made if there is none.
    pub experiment: String,
    /// Tags of the run. `mlflow.runName` is its name there, in the place of its own.
    pub tags: Vec<(String, String)>,
}

/// The log of a run on a server.
#[derive(Debug)]
pub(super) struct Mlflow {
    items: Option<Sender<Item>>,
    thread: Option<JoinHandle<()>>,
    room: Arc<Room>,
    /// When training ended, which the thread looks at between its requests.
    ended: Arc<OnceLock<Instant>>,
}

/// How many numbers wait, and how many are lost.
#[derive(Debug, Default)]
struct Room {
    waiting: AtomicUsize,
    lost: AtomicUsize,
}

impl Room {
    /// Whether there is room for so many more, which is then theirs.
    fn enter(&self, count: usize) -> bool {
        let fits = |waiting: usize| waiting.checked_add(count).filter(|sum| *sum <= WAITING);
        self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    fn leave(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    fn lose(&self, count: usize) {
        self.lost.fetch_add(count, Ordering::Relaxed);
    }

    fn lost(&self) -> usize {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Mlflow {
    /// Begins to log the run in `dir` that goes on after `step`, or begins at step 0. `earlier` are the lines of its log: if
    /// the server does not know the run yet, it gets their numbers too.
    pub(super) fn open(dir: &Path, step: u64, earlier: &str, options: &MlflowOptions) -> Self {
        let file = dir.join(record::FILE);
        if step == 0 {
            // Another run, in the directory of an earlier one. What cannot be removed cannot be written later either.
            let _ = std::fs::remove_file(&file);
        }
        let known = Record::read(&file, &options.url, &options.experiment).is_some();
        let (room, (items, received)) = (Arc::new(Room::default()), channel());
        let client = Client::new(&options.url, |name| std::env::var(name).ok());
        let ended = Arc::new(OnceLock::new());
        let worker = Worker::new(client, options.clone(), file, Arc::clone(&room), Arc::clone(&ended));
        let thread = std::thread::Builder::new().name("mlflow".to_string());
        let thread = thread.spawn(move || worker.serve(&received));
        if let Err(error) = &thread {
            log::warn!(
                "mlflow: no thread can be started: {error}; this run is not logged at {}",
                options.url
            );
        }
        let log = Self { items: Some(items), thread: thread.ok(), room, ended };
        if !known {
            earlier
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .for_each(|event| log.numbers(&event));
        }
        log
    }

    /// Tells an event. At the end of a run it waits until the server has everything, or for some seconds.
    pub(super) fn event(&mut self, event: &Event) {
        match event {
            Event::Run { name, recipe, .. } => {
                let params = hparams_of(recipe).into_iter();
                let params = params.map(|(key, value)| (key, worker::short(value.text()))).collect();
                self.send(Item::Begin { name: name.clone(), params });
            }
            Event::End { ending, .. } => {
                self.ended.get_or_init(Instant::now);
                self.send(Item::End(match ending {
                    Ending::Finished => "FINISHED",
                    Ending::Failed => "FAILED",
                    Ending::Stopped => "KILLED",
                }));
                self.items = None;
                // A thread that panicked has nothing left to say.
                let _ = self.thread.take().map(JoinHandle::join);
            }
            event => self.numbers(event),
        }
    }

    fn numbers(&self, event: &Event) {
        let Some((step, numbers)) = scalars(event).filter(|(_, numbers)| !numbers.is_empty()) else { return };
        if !self.room.enter(numbers.len()) {
            self.room.lose(numbers.len());
            return;
        }
        let time = now();
        let point = |(key, value)| Point { key, value, step, time };
        self.send(Item::Points(numbers.into_iter().map(point).collect()));
    }

    fn send(&self, item: Item) {
        if let Some(items) = &self.items {
            // Without its thread nothing is logged, which was said.
            let _ = items.send(item);
        }
    }
}

impl Drop for Mlflow {
    /// A run that ends without an event, as by a panic, is told to the server as one that failed.
    fn drop(&mut self) {
        self.ended.get_or_init(Instant::now);
        self.items = None;
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Milliseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}
