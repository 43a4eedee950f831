//! The log of a run: `metrics.jsonl` with one JSON object a line, the same numbers in `metrics.csv` and for
//! TensorBoard under `tensorboard/`.
//!
//! TensorBoard's files also have what its HParams plugin compares runs by: the keys of the recipe, and how a run ended.
//! All of them go on consistently after a crash: what was written after the checkpoint that a run goes on
//! from is dropped.

mod event;
mod hparams;
mod matrix_health;
#[cfg(feature = "mlflow")]
mod mlflow;
mod protobuf;
mod scalars;
mod sessions;
mod table;
mod tensorboard;
mod tfevents;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

pub use self::event::{Ending, Event, Train};
pub use self::hparams::{Hparam, Hparams, hparams_of};
pub use self::matrix_health::MatrixHealth;
#[cfg(feature = "mlflow")]
pub use self::mlflow::MlflowOptions;
pub use self::sessions::{Session, write_sessions};
use self::tensorboard::TensorBoard;
use crate::ReportError;

/// The JSON lines of a run, in its directory.
pub(crate) const METRICS: &str = "metrics.jsonl";
const TABLE: &str = "metrics.csv";
const TENSORBOARD: &str = "tensorboard";

/// The log of a run that is going on.
#[derive(Debug)]
pub struct RunLog {
    lines: AppendFile,
    table: AppendFile,
    tensorboard: TensorBoard,
    #[cfg(feature = "mlflow")]
    mlflow: Option<mlflow::Mlflow>,
}

/// A file that grows.
#[derive(Debug)]
struct AppendFile {
    path: PathBuf,
    file: File,
}

impl RunLog {
    /// Opens the log of a run in the directory `dir` that goes on after `step`, or begins at step 0: what
    /// later steps wrote, which a crash left, is dropped.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn open(dir: &Path, step: u64) -> Result<Self, ReportError> {
        let path = dir.join(METRICS);
        let mut lines = String::new();
        let mut table = table::HEADER.to_string();
        if step > 0 && path.exists() {
            let text = std::fs::read(&path).map_err(ReportError::io(&path, "read"))?;
            for line in String::from_utf8_lossy(&text).lines().filter(|line| counts(line, step)) {
                lines.extend([line, "\n"]);
                table.extend(serde_json::from_str(line).ok().and_then(|event| table::row(&event)));
            }
        }
        let lines = AppendFile::replace(path, &lines)?;
        let table = AppendFile::replace(dir.join(TABLE), &table)?;
        let tensorboard = TensorBoard::open(&dir.join(TENSORBOARD), step)?;
        Ok(Self {
            lines,
            table,
            tensorboard,
            #[cfg(feature = "mlflow")]
            mlflow: None,
        })
    }

    /// Logs the run, which goes on after `step` or begins at step 0, also on an MLflow server. That server may be away: this
    /// is told (`log::warn!`), and training goes on.
    ///
    /// # Errors
    /// If the run's earlier lines cannot be read.
    #[cfg(feature = "mlflow")]
    pub fn with_mlflow(mut self, step: u64, options: &MlflowOptions) -> Result<Self, ReportError> {
        let path = &self.lines.path;
        let earlier = std::fs::read_to_string(path).map_err(ReportError::io(path, "read"))?;
        let dir = path.parent().unwrap_or(Path::new(""));
        self.mlflow = Some(mlflow::Mlflow::open(dir, step, &earlier, options));
        Ok(self)
    }

    /// Writes an event down.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn event(&mut self, event: &Event) -> Result<(), ReportError> {
        let line = serde_json::to_string(event).map_err(|e| ReportError::Metrics {
            path: self.lines.path.clone(),
            line: 0,
            message: e.to_string(),
        })?;
        // Each is told, whatever became of the one before: a run whose disk is full has failed everywhere.
        let mut written = self.lines.append(&(line + "\n"));
        if let Some(row) = table::row(event) {
            written = written.and(self.table.append(&row));
        }
        written = written.and(self.tensorboard.event(event));
        // The end of a run waits for its server: last.
        #[cfg(feature = "mlflow")]
        if let Some(mlflow) = &mut self.mlflow {
            mlflow.event(event);
        }
        written
    }
}

impl AppendFile {
    /// A file with this text and nothing else; a crash leaves the old one or the new.
    fn replace(path: PathBuf, text: &str) -> Result<Self, ReportError> {
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        std::fs::write(&temporary, text).map_err(ReportError::io(&path, "rewrite"))?;
        std::fs::rename(&temporary, &path).map_err(ReportError::io(&path, "replace"))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(ReportError::io(&path, "open"))?;
        Ok(Self { path, file })
    }

    fn append(&mut self, text: &str) -> Result<(), ReportError> {
        self.file.write_all(text.as_bytes()).map_err(ReportError::io(&self.path, "write"))
    }
}

/// Whether a line belongs to a run that goes on after `step`. That a run began here is said again, and it has not ended.
fn counts(line: &str, step: u64) -> bool {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { return false };
    let (begins, ends) = (value["event"] == "run", value["event"] == "end");
    value["step"].as_u64().is_some_and(|s| s < step || s == step && !begins) && !ends
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn train(step: u64) -> Event {
        Event::Train(Train {
            step,
            loss: 3.0,
            lr: 1e-3,
            grad_norm: 0.5,
            tokens: 64 * step,
            tokens_per_second: 100.0,
            mfu: Some(0.5),
            rss: Some(1_000_000),
            peak_rss: Some(2_000_000),
            metrics: [("z_loss".to_string(), 0.25)].into(),
        })
    }

    fn run(step: u64) -> Event {
        let (name, recipe) = ("n".to_string(), "steps = 9".to_string());
        Event::Run { step, name, parameters: 7, threads: 2, gemm_flops: 1e9, backward: None, recipe }
    }

    fn read(dir: &Path) -> (Vec<Event>, String) {
        let lines = fs::read_to_string(dir.join(METRICS)).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (events, fs::read_to_string(dir.join(TABLE)).unwrap())
    }

    #[test]
    fn a_run_that_goes_on_drops_what_came_after_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = RunLog::open(dir.path(), 0).unwrap();
        let nan = Event::Eval { step: 2, loss: f64::NAN, bits_per_byte: 1.0, sample: String::new() };
        let end = Event::End { step: 2, ending: Ending::Failed, reason: "no disk".to_string() };
        for event in [run(0), train(1), train(2), nan, end, run(2), train(3)] {
            log.event(&event).unwrap();
        }
        drop(log);
        // A kill in the middle of a line, in both files.
        for (name, torn) in [(METRICS, "{\"event\":\"tra"), (TABLE, "4,1.2")] {
            OpenOptions::new()
                .append(true)
                .open(dir.path().join(name))
                .unwrap()
                .write_all(torn.as_bytes())
                .unwrap();
        }
        let mut log = RunLog::open(dir.path(), 2).unwrap();
        log.event(&run(2)).unwrap();
        log.event(&train(3)).unwrap();
        let (events, table) = read(dir.path());
        assert_eq!(events.len(), 6);
        assert_eq!([&events[0], &events[1], &events[2]], [&run(0), &train(1), &train(2)]);
        assert!(matches!(events[3], Event::Eval { loss, .. } if loss.is_nan()));
        assert_eq!([&events[4], &events[5]], [&run(2), &train(3)]);
        let steps: Vec<&str> = table.lines().skip(1).map(|row| row.split(',').next().unwrap()).collect();
        assert_eq!(steps, ["1", "2", "2", "3"]);
        // From the beginning again: nothing is left.
        RunLog::open(dir.path(), 0).unwrap();
        assert_eq!(read(dir.path()), (vec![], table::HEADER.to_string()));
    }
}
