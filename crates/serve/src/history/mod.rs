//! Snapshots of a service over the last day, in a ring, and kept over restarts in a file.

mod energy;
mod reading;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::alerts::Alerts;
use crate::jobs::Jobs;
use energy::{Energy, POWERCAP};
use reading::Reading;

/// How long a snapshot is kept.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How often the file is written.
const SAVE: Duration = Duration::from_secs(60);
/// What the file says it is.
const FORMAT: &str = "tritforge-history";
/// Bytes of a file at most.
const LONGEST_FILE: u64 = 256 << 20;

/// A service during one interval. Rates and shares are of the interval, the rest is as it was at its end; what there was
/// nothing of is absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Snapshot {
    /// Unix time of its end, in seconds.
    pub(crate) time: u64,
    /// Memory of the process.
    pub(crate) memory_bytes: Option<u64>,
    /// Processor time; 100 is one processor.
    pub(crate) cpu_percent: Option<f64>,
    pub(crate) tokens_per_second: f64,
    pub(crate) prompt_tokens_per_second: f64,
    pub(crate) running: i64,
    pub(crate) waiting: i64,
    pub(crate) requests_per_second: f64,
    /// Share of answers with a status of 500 and above.
    pub(crate) error_rate: Option<f64>,
    /// Share of the memory for keys and values that is in use.
    pub(crate) kv_usage: f64,
    /// Share of prompt tokens that came from the prefix cache.
    pub(crate) prefix_hit_rate: Option<f64>,
    /// Share of requests that the response cache answered.
    pub(crate) response_hit_rate: Option<f64>,
    /// Shares of the tokens that prompt look-up and a draft proposed that came.
    pub(crate) lookup_acceptance: Option<f64>,
    pub(crate) draft_acceptance: Option<f64>,
    /// Seconds to the first token.
    pub(crate) first_token_p50: Option<f64>,
    pub(crate) first_token_p95: Option<f64>,
    /// Seconds to the end of the generation.
    pub(crate) latency_p50: Option<f64>,
    pub(crate) latency_p95: Option<f64>,
    pub(crate) watts: Option<f64>,
    pub(crate) joules_per_token: Option<f64>,
}

impl Snapshot {
    /// All values under their names, the time first.
    pub(crate) fn values(&self) -> Vec<(&'static str, Option<f64>)> {
        vec![
            ("time", Some(self.time as f64)),
            ("memory_bytes", self.memory_bytes.map(|bytes| bytes as f64)),
            ("cpu_percent", self.cpu_percent),
            ("tokens_per_second", Some(self.tokens_per_second)),
            ("prompt_tokens_per_second", Some(self.prompt_tokens_per_second)),
            ("running", Some(self.running as f64)),
            ("waiting", Some(self.waiting as f64)),
            ("requests_per_second", Some(self.requests_per_second)),
            ("error_rate", self.error_rate),
            ("kv_usage", Some(self.kv_usage)),
            ("prefix_hit_rate", self.prefix_hit_rate),
            ("response_hit_rate", self.response_hit_rate),
            ("lookup_acceptance", self.lookup_acceptance),
            ("draft_acceptance", self.draft_acceptance),
            ("first_token_p50", self.first_token_p50),
            ("first_token_p95", self.first_token_p95),
            ("latency_p50", self.latency_p50),
            ("latency_p95", self.latency_p95),
            ("watts", self.watts),
            ("joules_per_token", self.joules_per_token),
        ]
    }

    /// Nothing, at no time.
    pub(crate) fn empty() -> Self {
        Self {
            time: 0,
            memory_bytes: None,
            cpu_percent: None,
            tokens_per_second: 0.0,
            prompt_tokens_per_second: 0.0,
            running: 0,
            waiting: 0,
            requests_per_second: 0.0,
            error_rate: None,
            kv_usage: 0.0,
            prefix_hit_rate: None,
            response_hit_rate: None,
            lookup_acceptance: None,
            draft_acceptance: None,
            first_token_p50: None,
            first_token_p95: None,
            latency_p50: None,
            latency_p95: None,
            watts: None,
            joules_per_token: None,
        }
    }
}

/// A file of history cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// It cannot be read or written.
    #[error("{}: cannot {what} the history: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What failed.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// It is something else.
    #[error("{}: {message}; move it away, or name another file", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What was found and expected.
        message: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved<'a> {
    format: std::borrow::Cow<'a, str>,
    version: u32,
    snapshots: std::borrow::Cow<'a, [Snapshot]>,
}

/// The snapshots of the last day.
#[derive(Debug)]
pub struct History {
    file: Option<PathBuf>,
    every: Duration,
    most: usize,
    ring: Mutex<VecDeque<Snapshot>>,
    energy: Option<Energy>,
    alerts: Mutex<Alerts>,
}

impl History {
    /// A history with a snapshot `every` so often, which goes on from that of a file if there is one. `watts` is what the
    /// machine takes where it does not say so itself.
    ///
    /// # Errors
    /// If the file is no history, or cannot be written.
    pub fn open(
        file: Option<&Path>,
        every: Duration,
        watts: Option<f64>,
        alerts: Alerts,
    ) -> Result<Self, HistoryError> {
        let every = every.max(Duration::from_secs(1));
        let most = (DAY.as_secs() / every.as_secs()).max(1) as usize;
        let mut ring = match file {
            Some(path) => read(path)?,
            None => VecDeque::new(),
        };
        ring.drain(..ring.len().saturating_sub(most));
        let energy = Energy::find(Path::new(POWERCAP), watts);
        let history = Self {
            file: file.map(Path::to_path_buf),
            every,
            most,
            ring: Mutex::new(ring),
            energy,
            alerts: Mutex::new(alerts),
        };
        // A file that cannot be written is better known now than in a minute.
        history.save()?;
        Ok(history)
    }

    /// Seconds between two snapshots.
    pub(crate) fn interval(&self) -> u64 {
        self.every.as_secs()
    }

    /// Where the numbers of energy come from: `measured`, `estimate`, or nowhere.
    pub(crate) fn energy_source(&self) -> Option<&'static str> {
        self.energy.as_ref().map(Energy::source)
    }

    fn ring(&self) -> MutexGuard<'_, VecDeque<Snapshot>> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, snapshot: Snapshot) {
        let mut ring = self.ring();
        let oldest = snapshot.time.saturating_sub(DAY.as_secs());
        ring.push_back(snapshot);
        // Those of the future are of a clock that was wrong.
        let newest = ring.back().map_or(0, |snapshot| snapshot.time);
        ring.retain(|snapshot| (oldest..=newest).contains(&snapshot.time));
        let more = ring.len().saturating_sub(self.most);
        ring.drain(..more);
    }

    /// The snapshots from a Unix time on, oldest first.
    pub(crate) fn since(&self, time: u64) -> Vec<Snapshot> {
        self.ring().iter().filter(|snapshot| snapshot.time >= time).cloned().collect()
    }

    /// The alerts that are on, under their names with their severity.
    pub(crate) fn firing(&self) -> Vec<(String, String)> {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).firing()
    }

    /// Writes the file, so that it is whole at every moment.
    fn save(&self) -> Result<(), HistoryError> {
        let Some(path) = &self.file else { return Ok(()) };
        let snapshots: Vec<Snapshot> = self.ring().iter().cloned().collect();
        let saved = Saved { format: FORMAT.into(), version: 1, snapshots: snapshots.into() };
        let failed = |source| HistoryError::Io { path: path.clone(), what: "write", source };
        let text = serde_json::to_vec(&saved).map_err(|e| failed(e.into()))?;
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let write = || {
            let mut file = File::create(&temporary)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(failed)
    }

    /// Takes snapshots, watches the alerts, and writes the file. Never returns; [`Self::end`] writes the last of it.
    pub(crate) async fn follow(self: Arc<Self>, jobs: Jobs) {
        self.alerts.lock().unwrap_or_else(PoisonError::into_inner).start();
        let joules = || self.energy.as_ref().and_then(Energy::joules);
        let mut before = Reading::now(jobs.measure(), joules());
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + self.every, self.every);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut saved, mut failed) = (Instant::now(), false);
        loop {
            tick.tick().await;
            let metrics = jobs.measure();
            let now = Reading::now(metrics, joules());
            let time = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
            let snapshot = now.since(&before, metrics, time);
            before = now;
            self.alerts.lock().unwrap_or_else(PoisonError::into_inner).observe(&snapshot);
            self.push(snapshot);
            if saved.elapsed() < SAVE {
                continue;
            }
            saved = Instant::now();
            let history = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || history.save()).await {
                Ok(Err(error)) if !failed => {
                    log::warn!("{error}; it is tried again every minute");
                    failed = true;
                }
                Ok(Ok(())) => failed = false,
                _ => {}
            }
        }
    }

    /// Writes what the file does not have yet.
    pub(crate) fn end(&self) {
        if let Err(error) = self.save() {
            log::warn!("{error}");
        }
    }
}

fn read(path: &Path) -> Result<VecDeque<Snapshot>, HistoryError> {
    let cannot = |source| HistoryError::Io { path: path.to_path_buf(), what: "read", source };
    let invalid = |message: String| HistoryError::Invalid { path: path.to_path_buf(), message };
    let length = match fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(VecDeque::new()),
        Err(error) => return Err(cannot(error)),
    };
    if length > LONGEST_FILE {
        return Err(invalid(format!("{length} bytes; expected at most {LONGEST_FILE}")));
    }
    let text = fs::read(path).map_err(cannot)?;
    let saved: Saved<'_> =
        serde_json::from_slice(&text).map_err(|e| invalid(format!("not a history that this wrote: {e}")))?;
    if saved.format != FORMAT || saved.version != 1 {
        return Err(invalid(format!(
            "format {:?} version {}; expected {FORMAT:?} version 1",
            saved.format, saved.version
        )));
    }
    Ok(saved.snapshots.into_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: u64) -> Snapshot {
        Snapshot { time, tokens_per_second: time as f64 / 3.0, error_rate: Some(0.1), ..Snapshot::empty() }
    }

    fn open(path: &Path, seconds: u64) -> Result<History, HistoryError> {
        History::open(Some(path), Duration::from_secs(seconds), None, Alerts::default())
    }

    #[test]
    fn a_day_is_kept_and_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.json");
        let history = open(&path, 3600).unwrap();
        for hour in 0..30 {
            history.push(at(3600 * hour));
        }
        let kept = history.since(0);
        assert_eq!(kept.iter().map(|s| s.time / 3600).collect::<Vec<_>>(), (6..30).collect::<Vec<_>>());
        assert_eq!(history.since(3600 * 28), [at(3600 * 28), at(3600 * 29)]);
        history.end();
        assert_eq!(open(&path, 3600).unwrap().since(0), kept);
        assert_eq!(open(&path, 7200).unwrap().since(0), kept[12..]);
        // What is older than a day goes with the next snapshot, and so does the future.
        let history = open(&path, 3600).unwrap();
        history.push(at(3600 * 20));
        assert_eq!(history.since(0).last(), Some(&at(3600 * 20)));
        assert!(history.since(3600 * 21).is_empty());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the file is left");
    }

    #[test]
    fn a_file_of_something_else_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.json");
        for text in [
            "",
            "{",
            "[]",
            r#"{"format":"x","version":1,"snapshots":[]}"#,
            r#"{"format":"tritforge-history","version":2,"snapshots":[]}"#,
        ] {
            fs::write(&path, text).unwrap();
            let message = open(&path, 10).unwrap_err().to_string();
            assert!(message.contains("history.json") && message.contains("move it away"), "{message}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let message = open(&dir.path().join("absent/history.json"), 10).unwrap_err().to_string();
        assert!(message.contains("cannot write the history"), "{message}");
    }

    #[test]
    fn the_names_are_those_of_the_json() {
        let json = serde_json::to_value(at(1)).unwrap();
        let names: Vec<&str> = at(1).values().iter().map(|(name, _)| *name).collect();
        assert_eq!(json.as_object().unwrap().keys().collect::<Vec<_>>(), names);
    }
}
