//! The runs that experiments share: a directory for each, named by all that its result depends on, and the result in it
//! once there is one.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::AblateError;
use crate::experiment::Metric;
use crate::plan::FrozenRun;

/// Files written so far, so that no two threads take the same temporary name.
static WRITTEN: AtomicU64 = AtomicU64::new(0);

const RESULT: &str = "result.json";
const RECIPE: &str = "recipe.toml";
/// What the run printed. It is locked as long as the run's process lives.
const OUTPUT: &str = "output.log";

/// The result of a run: of one that diverged too.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RunResult {
    /// All that it depends on.
    pub id: String,
    /// Why there is no loss, of a run that diverged.
    pub diverged: Option<String>,
    /// Held-out bits a byte at the end.
    pub bits_per_byte: Option<f64>,
    /// Held-out loss at the end.
    pub held_out_loss: Option<f64>,
    /// Parameters of the model.
    pub parameters: Option<usize>,
    /// Steps taken.
    pub steps: u64,
    /// Target tokens seen.
    pub tokens: u64,
    /// Seconds in training steps, as measured when the run was made.
    pub seconds: f64,
    /// Most bytes of memory that its process held.
    pub peak_memory: Option<u64>,
    /// Bytes of the exported file.
    pub file_bytes: Option<u64>,
    /// Why the model could not be exported.
    pub not_exported: Option<String>,
    /// Bytes of held-out text by documents, if their losses were kept.
    pub documents: Option<usize>,
}

impl RunResult {
    /// The value of a metric; none of a run that diverged.
    pub fn value(&self, metric: Metric) -> Option<f64> {
        let value = match metric {
            Metric::BitsPerByte => self.bits_per_byte,
            Metric::HeldOutLoss => self.held_out_loss,
        };
        value.filter(|value| value.is_finite())
    }
}

/// The result of a run, if it has ended with one.
///
/// # Errors
/// If the file cannot be read, or is no result.
pub(crate) fn result(dir: &Path) -> Result<Option<RunResult>, AblateError> {
    let path = dir.join(RESULT);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(AblateError::io(&path, "read")(error)),
    };
    let damaged = |e: serde_json::Error| AblateError::Damaged {
        path: path.clone(),
        line: 0,
        message: format!("{e}; delete the file: the run is made again"),
    };
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

/// Keeps the result of a run, whole or not at all.
pub(crate) fn keep(dir: &Path, result: &RunResult) -> Result<(), AblateError> {
    let text = serde_json::to_string_pretty(result).map_err(|e| AblateError::Request(e.to_string()))?;
    replace(&dir.join(RESULT), &(text + "\n"))
}

/// Writes a file that is there whole or not at all, and stays after a loss of power.
pub(crate) fn replace(path: &Path, content: impl AsRef<[u8]>) -> Result<(), AblateError> {
    // Another process may be writing the same file.
    let mut new = path.to_path_buf().into_os_string();
    new.push(format!(".{}-{}.tmp", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let write = || {
        let mut file = File::create(&new)?;
        std::io::Write::write_all(&mut file, content.as_ref())?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(AblateError::io(path, "write"))
}

/// Makes a run's directory and writes its recipe; with the path of the recipe.
pub(crate) fn freeze(run: &FrozenRun) -> Result<std::path::PathBuf, AblateError> {
    std::fs::create_dir_all(&run.dir).map_err(AblateError::io(&run.dir, "create"))?;
    let path = run.dir.join(RECIPE);
    let text = run.recipe.to_toml().map_err(|e| AblateError::Request(e.to_string()))?;
    replace(&path, &text)?;
    Ok(path)
}

/// The file for what a run prints, if no process trains it: one that was left behind by a kill may still do so, and one
/// of another experiment.
pub(crate) fn claim(dir: &Path) -> Result<Option<File>, AblateError> {
    let path = dir.join(OUTPUT);
    let file =
        OpenOptions::new().create(true).append(true).open(&path).map_err(AblateError::io(&path, "open"))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(AblateError::io(&path, "lock")(source)),
    }
}

/// The last error that a run printed, or its last line.
pub(crate) fn last_words(dir: &Path) -> String {
    let bytes = std::fs::read(dir.join(OUTPUT)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let error = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
    let last = || text.lines().rev().find(|line| !line.trim().is_empty());
    error.or_else(last).unwrap_or("it printed nothing").to_string()
}

/// Whether a run says of its end that it was asked to.
pub(crate) fn was_stopped(dir: &Path) -> bool {
    let bytes = std::fs::read(dir.join(OUTPUT)).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    text.lines()
        .rev()
        .find(|line| line.starts_with("trained "))
        .is_some_and(|line| line.contains("stopped; continue"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_comes_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(result(dir.path()).unwrap(), None);
        let one = RunResult {
            id: "ab".to_string(),
            diverged: None,
            bits_per_byte: Some(0.1 + 0.2),
            held_out_loss: Some(1.0 / 3.0),
            parameters: Some(7),
            steps: 3,
            tokens: 96,
            seconds: 1e-3,
            peak_memory: None,
            file_bytes: Some(12),
            not_exported: None,
            documents: None,
        };
        keep(dir.path(), &one).unwrap();
        let read = result(dir.path()).unwrap().unwrap();
        assert_eq!(read, one);
        assert_eq!(read.value(Metric::BitsPerByte), Some(0.1 + 0.2));
        std::fs::write(dir.path().join(RESULT), "{").unwrap();
        assert!(result(dir.path()).unwrap_err().to_string().contains("delete the file"));
    }

    #[test]
    fn a_run_has_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let mine = claim(dir.path()).unwrap();
        assert!(mine.is_some() && claim(dir.path()).unwrap().is_none());
        drop(mine);
        assert!(claim(dir.path()).unwrap().is_some());
        assert_eq!(last_words(dir.path()), "it printed nothing");
        std::fs::write(dir.path().join(OUTPUT), "a\nerror: no room\nb\n").unwrap();
        assert_eq!(last_words(dir.path()), "no room");
    }
}
