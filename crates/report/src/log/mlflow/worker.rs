//! The thread that talks to the server. It takes what training says when training says it, sends it in batches, and tries
//! again later while the server is away; training never waits for it but at its end, for a few seconds at most.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::client::{Client, Fault, Point};
use super::record::Record;
use super::{MlflowOptions, Room, now};

/// Numbers and parameters of a request: the most that MLflow takes. A server that does not answer in time gets fewer numbers at once.
const METRICS: usize = 1000;
const PARAMS: usize = 100;
/// Time in which numbers are gathered for a request.
const GATHER: Duration = Duration::from_secs(2);
/// First and longest pause before a server that was away is tried again.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long the end of a run waits for a server.
const END: Duration = Duration::from_secs(10);
/// Bytes of a parameter's value that every server stores.
const VALUE: usize = 500;

/// What training says.
pub(super) enum Item {
    /// A run begins or goes on: its name and parameters.
    Begin { name: String, params: Vec<(String, String)> },
    /// Numbers of a step.
    Points(Vec<Point>),
    /// The run ends, with a status.
    End(&'static str),
}

pub(super) struct Worker {
    pub(super) client: Client,
    pub(super) options: MlflowOptions,
    /// Where the run's id is kept, so that a run that goes on is the same one there.
    pub(super) record: PathBuf,
    pub(super) room: Arc<Room>,
    /// When training ended.
    pub(super) ended: Arc<OnceLock<Instant>>,
    pub(super) begun: Option<(String, Vec<(String, String)>)>,
    run: Option<String>,
    pub(super) points: VecDeque<Point>,
    /// Numbers of a request.
    batch: usize,
    /// The pause after the last request came to nothing; none if it did not.
    pause: Option<Duration>,
    told: bool,
    /// The server does not take this run at all.
    refused: bool,
}

impl Worker {
    pub(super) fn new(
        client: Client,
        options: MlflowOptions,
        record: PathBuf,
        room: Arc<Room>,
        ended: Arc<OnceLock<Instant>>,
    ) -> Self {
        let (begun, run, points) = (None, None, VecDeque::new());
        let (pause, told, refused) = (None, false, false);
        let batch = METRICS;
        Self { client, options, record, room, ended, begun, run, points, batch, pause, told, refused }
    }

    /// Whether training waits no longer. It may have ended while a backlog is being sent.
    fn in_time(&self) -> Result<(), Fault> {
        match self.ended.get() {
            Some(ended) if ended.elapsed() > END => Err(Fault::Away("it is too slow".to_string())),
            _ => Ok(()),
        }
    }

    /// Sends until the run ends. Training that is gone without a word has failed.
    pub(super) fn serve(mut self, items: &Receiver<Item>) {
        let mut next = Instant::now();
        loop {
            let wait = next.saturating_duration_since(Instant::now());
            let item = match self.idle() {
                true => items.recv().map_err(|_| RecvTimeoutError::Disconnected),
                // Whatever training says meanwhile: it may say something all the time.
                false if wait.is_zero() => Err(RecvTimeoutError::Timeout),
                false => items.recv_timeout(wait),
            };
            match item {
                Ok(Item::Begin { name, params }) => {
                    (self.begun, next) = (Some((name, params)), Instant::now());
                }
                Ok(Item::Points(points)) if self.refused => self.lose(points.len()),
                Ok(Item::Points(points)) => {
                    if self.points.is_empty() && self.pause.is_none() && self.begun.is_none() {
                        next = Instant::now() + GATHER;
                    }
                    self.points.extend(points);
                }
                Ok(Item::End(status)) => return self.end(status),
                Err(RecvTimeoutError::Timeout) => {
                    next = Instant::now() + self.attempt();
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.ended.get_or_init(Instant::now);
                    return self.end("FAILED");
                }
            }
        }
    }

    /// Whether there is nothing to send.
    fn idle(&self) -> bool {
        self.refused || self.begun.is_none() && (self.run.is_none() || self.points.is_empty())
    }

    /// Sends what there is, and returns the pause before the next time.
    fn attempt(&mut self) -> Duration {
        match self.send() {
            Ok(()) => {
                self.pause = None;
                GATHER
            }
            Err(fault) => {
                let pause = self.pause.map_or(PAUSES.0, |pause| (2 * pause).min(PAUSES.1));
                self.pause = Some(pause);
                // At the end of training it is said what is missing.
                if !self.told && self.ended.get().is_none() {
                    self.told = true;
                    log::warn!(
                        "mlflow: {} does not answer: {}; training goes on, and what is not sent is sent later",
                        self.options.url,
                        fault.message()
                    );
                }
                pause
            }
        }
    }

    /// Sends what there is; only a server that is away, or too slow at the end of training, is a fault here.
    pub(super) fn send(&mut self) -> Result<(), Fault> {
        if let Some((name, params)) = self.begun.take() {
            let sent = self.introduce(&name, &params);
            if sent.is_err() {
                self.begun = Some((name, params));
            }
            sent?;
        }
        let Some(run) = self.run.clone() else { return Ok(()) };
        while !self.points.is_empty() {
            self.in_time()?;
            let count = self.points.len().min(self.batch);
            match self.client.log_metrics(&run, self.points.iter().take(count)) {
                Ok(()) => {
                    // Not by requests that were small anyway.
                    if count == self.batch {
                        self.batch = (self.batch + self.batch / 8 + 1).min(METRICS);
                    }
                    self.pause = None;
                    self.room.leave(count);
                }
                Err(fault) if fault.passes() => {
                    if matches!(fault, Fault::Slow(_)) {
                        self.batch = (count / 2).max(1);
                    }
                    return Err(fault);
                }
                Err(fault) => {
                    log::warn!("mlflow: {count} numbers are not logged: {}", fault.message());
                    self.lose(count);
                }
            }
            self.points.drain(..count);
        }
        Ok(())
    }

    /// Begins the run and sends its parameters. One that the server does not take is given up.
    fn introduce(&mut self, name: &str, params: &[(String, String)]) -> Result<(), Fault> {
        let run = match self.run.clone().map_or_else(|| self.begin(name), Ok) {
            Ok(run) => run,
            Err(fault) if fault.passes() => return Err(fault),
            Err(fault) => {
                let url = &self.options.url;
                log::warn!(
                    "mlflow: {url} does not take this run, which is not logged there: {}",
                    fault.message()
                );
                self.refused = true;
                let waiting = self.points.len();
                self.points.clear();
                self.lose(waiting);
                return Ok(());
            }
        };
        // From now on it can be told how the run ends.
        self.run = Some(run.clone());
        for params in params.chunks(PARAMS) {
            self.in_time()?;
            match self.client.log_params(&run, params) {
                Err(fault) if fault.passes() => return Err(fault),
                Err(fault) => log::warn!(
                    "mlflow: parameters that are not logged (a run that goes on keeps those it began with): {}",
                    fault.message()
                ),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    /// Finds the run that was begun before, or begins one.
    fn begin(&self, name: &str) -> Result<String, Fault> {
        let MlflowOptions { url, experiment, tags } = &self.options;
        if let Some(known) = Record::read(&self.record, url, experiment) {
            match self.client.update_run(&known.run_id, "RUNNING", None) {
                Ok(()) => return Ok(known.run_id),
                // It was deleted there: a new one takes its place.
                Err(Fault::Refused { .. }) => {}
                Err(away) => return Err(away),
            }
        }
        self.in_time()?;
        let id = self.client.experiment(experiment)?;
        self.in_time()?;
        let named =
            tags.iter().find(|(key, _)| key == "mlflow.runName").map_or(name, |(_, value)| value.as_str());
        let mut tags: Vec<(String, String)> =
            tags.iter().filter(|(key, _)| key != "mlflow.runName").cloned().collect();
        let version = env!("CARGO_PKG_VERSION");
        for (key, value) in [
            ("mlflow.source.name", "tritforge"),
            ("mlflow.source.type", "LOCAL"),
            ("tritforge.version", version),
        ] {
            tags.push((key.to_string(), value.to_string()));
        }
        let run_id = self.client.create_run(&id, named, now(), &tags)?;
        let record = Record { url: url.clone(), experiment: experiment.clone(), run_id };
        if let Err(error) = record.write(&self.record) {
            log::warn!("mlflow: {error}; a run that goes on will be another run at {url}");
        }
        Ok(record.run_id)
    }

    /// Sends the last, and how the run ended. A server that was away before is tried once.
    fn end(mut self, status: &'static str) {
        let ended = now();
        while !self.refused {
            let (tried_before, batch, waiting) = (self.pause.is_some(), self.batch, self.points.len());
            if self.send().is_ok() || self.in_time().is_err() {
                break;
            }
            // It answers, but not so much at once.
            if self.batch < batch || self.points.len() < waiting {
                continue;
            }
            if tried_before {
                break;
            }
            self.pause = Some(PAUSES.0);
            std::thread::sleep(PAUSES.0);
        }
        let url = &self.options.url;
        match &self.run {
            // One that did not take all numbers is still told of the end.
            Some(run) => match self.client.update_run(run, status, Some(ended)) {
                Ok(()) => {}
                Err(fault) if fault.passes() => {
                    log::warn!("mlflow: {url} does not answer: the run is still marked as running there");
                }
                Err(fault) => log::warn!("mlflow: the end of the run is not logged: {}", fault.message()),
            },
            None if self.begun.is_some() => log::warn!("mlflow: {url} does not answer: the run is not there"),
            None => {}
        }
        self.lose(self.points.len());
        let lost = self.room.lost();
        if lost > 0 {
            log::warn!(
                "mlflow: {lost} numbers did not reach {url}; metrics.jsonl in the run's directory has all of them"
            );
        }
    }

    fn lose(&self, count: usize) {
        self.room.leave(count);
        self.room.lose(count);
    }
}

/// A value that every server stores.
pub(super) fn short(value: String) -> String {
    if value.len() <= VALUE {
        return value;
    }
    let end = (0..=VALUE - 3).rev().find(|at| value.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", &value[..end])
}
