//! Runs in processes of their own. Each has its memory to itself, so that what one run leaves behind is no part of the
//! next one's measurements; its threads, which are a setting of the whole process; and its end: a run that the system
//! kills for its memory is a run that failed, and not the end of the experiment.
//!
//! A process that starts runs may be killed at any moment. Its runs notice, since their standard input ends, write a
//! checkpoint and stop (`tritforge train --stop-on-eof`); until then they hold the lock on the file that they print to,
//! which they inherit, so that nobody else trains in the same directory.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;

use crate::plan::FrozenRun;
use crate::store::last_words;
use crate::{AblateError, Program};

/// Exit status of `tritforge train` for a run that diverged.
const DIVERGED: i32 = 3;
/// How often a process is asked whether it has ended.
const WAIT: Duration = Duration::from_millis(20);

/// How a run's process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ended {
    /// With a loss.
    Trained,
    /// Loss, gradient or weights were no numbers any more.
    Diverged(String),
    /// With anything else, and why.
    Failed(String),
    /// It was asked to stop.
    Stopped,
}

/// Trains a run whose recipe is in `recipe`, from its newest checkpoint if it has one, and keeps the checkpoint of
/// `keep_step`; `tags` are those of the server that the recipe's `[log]` names. `output` is locked.
pub(crate) fn train(
    program: &Program,
    run: &FrozenRun,
    recipe: &Path,
    output: File,
    keep_step: Option<u64>,
    tags: &[(&str, String)],
    threads: usize,
    stop: &AtomicBool,
) -> Result<Ended, AblateError> {
    let start = |action| AblateError::io(&program.path, action);
    let errors = output.try_clone().map_err(AblateError::io(&run.dir, "open the output of a run in"))?;
    let mut child = Command::new(&program.path)
        .arg("train")
        .arg(recipe)
        .args(["--resume", "--quiet", "--document-losses", "--stop-on-eof", "--data-dir"])
        .arg(&run.data_dir)
        .args(["--threads", &threads.to_string()])
        .args(tags.iter().flat_map(|(key, value)| ["--tag".to_string(), format!("{key}={value}")]))
        .args(keep_step.iter().flat_map(|step| ["--keep-step".to_string(), step.to_string()]))
        .stdin(Stdio::piped())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(start("start"))?;
    let status = wait(&mut child, stop).map_err(start("wait for"))?;
    if stop.load(Ordering::Relaxed) && !run_has_ended(status) {
        return Ok(Ended::Stopped);
    }
    Ok(match status.code() {
        Some(0) => Ended::Trained,
        Some(DIVERGED) => Ended::Diverged(last_words(&run.dir)),
        Some(code) => Ended::Failed(format!("{} (exit status {code})", last_words(&run.dir))),
        None => Ended::Failed(format!("{status}: killed, perhaps for its memory")),
    })
}

/// Whether a run that was asked to stop had come to its end by itself: it diverged. One that stopped ends as one that
/// finished does, and what it lacks is told by its log.
fn run_has_ended(status: ExitStatus) -> bool {
    status.code() == Some(DIVERGED)
}

/// Waits for a process; asks it to stop, by ending its input, once `stop` is true.
fn wait(child: &mut Child, stop: &AtomicBool) -> std::io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if stop.load(Ordering::Relaxed) {
            child.stdin = None;
        }
        std::thread::sleep(WAIT);
    }
}

/// What a dry run measured.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub(crate) struct Measured {
    /// Seconds of a whole run.
    pub(crate) total_seconds: Option<f64>,
    /// Bytes of memory.
    pub(crate) peak_memory: Option<u64>,
}

/// Measures what a recipe costs, in a process of its own. With why not, if it cannot be measured.
pub(crate) fn dry_run(program: &Program, recipe: &Path, threads: usize) -> Result<Measured, String> {
    let output = Command::new(&program.path)
        .arg("train")
        .arg(recipe)
        .args(["--dry-run", "--json", "--threads", &threads.to_string()])
        .stdin(Stdio::null())
        .output()
        .map_err(|e| format!("{}: cannot start: {e}", program.path.display()))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(errors
            .lines()
            .last()
            .unwrap_or("it printed nothing")
            .trim_start_matches("error: ")
            .to_string());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("the dry run printed no figures: {e}"))
}
