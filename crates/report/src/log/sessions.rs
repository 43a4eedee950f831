//! Several runs side by side for TensorBoard's HParams plugin: one event file that says which hyperparameters and metrics
//! there are, and one for each run in a directory of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::hparams::{self, Dataset, Hparam, Hparams, Metric, Status};
use super::scalars::{BITS_PER_BYTE, HELD_OUT};
use super::tensorboard::{PREFIX, wall_time};
use super::tfevents::{self, Value};
use crate::ReportError;

/// What the name of these files ends with, so that no other files are removed.
const SUFFIX: &str = "0000000000.hparams.tritforge";

/// Numbers that runs are compared by, where they have them.
const METRICS: [Metric; 7] = [
    Metric { tag: BITS_PER_BYTE, name: "held-out bits/byte", dataset: Dataset::Validation },
    Metric { tag: HELD_OUT, name: "held-out loss", dataset: Dataset::Validation },
    Metric { tag: "cost/parameters", name: "parameters", dataset: Dataset::None },
    Metric { tag: "cost/file_bytes", name: "bytes of the exported file", dataset: Dataset::None },
    Metric { tag: "cost/seconds", name: "seconds of training", dataset: Dataset::None },
    Metric { tag: "cost/flops", name: "floating-point operations of training", dataset: Dataset::None },
    Metric { tag: "cost/peak_memory", name: "peak memory, bytes", dataset: Dataset::None },
];

/// A run among others.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// Its name: the directory of its file, with slashes between the parts.
    pub name: String,
    /// Runs of one group are shown as one: those of an arm with several seeds.
    pub group: String,
    /// What distinguishes it.
    pub hparams: Hparams,
    /// Its directory.
    pub model: String,
    /// Steps with numbers under their names, as in the run's own event files; what a run costs as `cost/seconds` (s),
    /// `cost/flops`, `cost/file_bytes` and `cost/peak_memory` (bytes), `cost/parameters`.
    pub numbers: Vec<(u64, Vec<(String, f64)>)>,
    /// Whether it has no result.
    pub failed: bool,
}

/// Writes event files of runs into `dir`, in the place of those that an earlier call wrote there.
///
/// # Errors
/// If a file cannot be written or removed.
pub fn write_sessions(dir: &Path, description: &str, sessions: &[Session]) -> Result<(), ReportError> {
    remove(dir)?;
    let now = wall_time();
    let mut known: BTreeMap<&str, Vec<&Hparam>> = BTreeMap::new();
    for (name, value) in sessions.iter().flat_map(|session| &session.hparams) {
        known.entry(name).or_default().push(value);
    }
    let has = |metric: &Metric| {
        let mut numbers = sessions.iter().flat_map(|session| &session.numbers).flat_map(|(_, of)| of);
        numbers.any(|(tag, _)| tag == metric.tag)
    };
    let metrics: Vec<Metric> = METRICS.into_iter().filter(has).collect();
    let experiment = hparams::experiment(description, now, &known, &metrics);
    let whole = tfevents::summary(now, 0, &[(hparams::EXPERIMENT, Value::Hparams(&experiment))]);
    write(dir, now, &[whole])?;
    for session in sessions {
        let start = hparams::session_start(&session.hparams, &session.model, &session.group, now);
        let mut events = vec![tfevents::summary(now, 0, &[(hparams::SESSION_START, Value::Hparams(&start))])];
        for (step, numbers) in &session.numbers {
            let values: Vec<_> =
                numbers.iter().map(|(tag, x)| (tag.as_str(), Value::Scalar(*x as f32))).collect();
            events.push(tfevents::summary(now, *step, &values));
        }
        let end = hparams::session_end(if session.failed { Status::Failure } else { Status::Success }, now);
        events.push(tfevents::summary(now, 0, &[(hparams::SESSION_END, Value::Hparams(&end))]));
        write(&dir.join(&session.name), now, &events)?;
    }
    Ok(())
}

fn write(dir: &Path, now: f64, events: &[Vec<u8>]) -> Result<(), ReportError> {
    fs::create_dir_all(dir).map_err(ReportError::io(dir, "create"))?;
    let path = dir.join(format!("{PREFIX}{SUFFIX}"));
    let mut file = tfevents::record(&tfevents::version(now));
    events.iter().for_each(|event| file.extend(tfevents::record(event)));
    fs::write(&path, file).map_err(ReportError::io(&path, "write"))
}

/// Removes the files that were written before, with directories that are empty then.
fn remove(dir: &Path) -> Result<(), ReportError> {
    if !dir.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(dir).map_err(ReportError::io(dir, "list"))? {
        let path = entry.map_err(ReportError::io(dir, "list"))?.path();
        if path.is_dir() && !path.is_symlink() {
            remove(&path)?;
            // One that holds something else stays.
            let _ = fs::remove_dir(&path);
        } else if path.file_name().is_some_and(|name| name.to_string_lossy() == format!("{PREFIX}{SUFFIX}")) {
            fs::remove_file(&path).map_err(ReportError::io(&path, "remove"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_runs_are_replaced_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let session = |name: &str| Session {
            name: name.to_string(),
            group: "arm".to_string(),
            hparams: Hparams::from([("run.seed".to_string(), Hparam::Number(1.0))]),
            model: "runs/x".to_string(),
            numbers: vec![(3, vec![(BITS_PER_BYTE.to_string(), 2.5)])],
            failed: false,
        };
        fs::create_dir_all(dir.path().join("b")).unwrap();
        let own = dir.path().join("b/events.out.tfevents.1.mine");
        fs::write(&own, "x").unwrap();
        write_sessions(dir.path(), "?", &[session("a/seed-1"), session("b/seed-1")]).unwrap();
        let file = |name: &str| dir.path().join(name).join(format!("{PREFIX}{SUFFIX}"));
        let bytes = fs::read(file("a/seed-1")).unwrap();
        // Start, numbers and end: what the plugin does not read is one record less.
        assert!(tfevents::without_hparams(&bytes).len() < bytes.len());
        assert!(tfevents::without_hparams(&bytes).windows(3).any(|w| w == b"bit"));
        write_sessions(dir.path(), "?", &[session("c/seed-1")]).unwrap();
        assert!(file("").exists() && file("c/seed-1").exists() && own.exists());
        assert!(!dir.path().join("a").exists() && !dir.path().join("b/seed-1").exists());
    }
}
