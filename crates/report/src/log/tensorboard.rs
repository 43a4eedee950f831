//! A run's event files under `tensorboard/`: which number stands under which tag, and one file for every
//! start of the run.
//!
//! Numbers are only ever appended. A run that goes on begins another file, whose first event makes
//! TensorBoard forget what an interrupted run wrote after its checkpoint.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::hparams::{self, Dataset, Metric, Status, hparams_of};
use super::scalars::{BITS_PER_BYTE, HELD_OUT, TRAIN, scalars};
use super::tfevents::{self, Value};
use super::{Ending, Event};
use crate::ReportError;

/// What the name of every event file begins with: TensorBoard looks for it.
pub(super) const PREFIX: &str = "events.out.tfevents.";

/// What runs are compared by.
const METRICS: [Metric; 3] = [
    Metric { tag: BITS_PER_BYTE, name: "held-out bits/byte", dataset: Dataset::Validation },
    Metric { tag: HELD_OUT, name: "held-out loss", dataset: Dataset::Validation },
    Metric { tag: TRAIN, name: "training loss", dataset: Dataset::Training },
];

/// The event file of a run.
#[derive(Debug)]
pub(super) struct TensorBoard {
    path: PathBuf,
    file: File,
    /// Where the run's checkpoints are.
    model: String,
}

impl TensorBoard {
    /// Begins a file in `dir` for a run that has taken `step` steps; at step 0 earlier files are removed.
    pub(super) fn open(dir: &Path, step: u64) -> Result<Self, ReportError> {
        fs::create_dir_all(dir).map_err(ReportError::io(dir, "create"))?;
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(ReportError::io(dir, "list"))? {
            let name =
                entry.map_err(ReportError::io(dir, "list"))?.file_name().to_string_lossy().into_owned();
            if !name.starts_with(PREFIX) {
                continue;
            }
            if step == 0 {
                let path = dir.join(&name);
                fs::remove_file(&path).map_err(ReportError::io(&path, "remove"))?;
            } else {
                forget_hparams(&dir.join(&name))?;
                names.push(name);
            }
        }
        // TensorBoard reads files in the order of their names, whatever the clock says.
        let seconds = |name: &String| name[PREFIX.len()..].split('.').next()?.parse::<u64>().ok();
        let newest = names.iter().filter_map(seconds).max().unwrap_or(0);
        let now = (wall_time() as u64).max(newest);
        let path = dir.join(format!("{PREFIX}{now:010}.{:06}.tritforge", names.len()));
        let model = dir.parent().unwrap_or(dir).display().to_string();
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(ReportError::io(&path, "create"))?;
        let mut board = Self { path, file, model };
        board.write(&tfevents::version(wall_time()))?;
        board.write(&tfevents::start(wall_time(), step + 1))?;
        Ok(board)
    }

    /// Appends an event's numbers, and what the HParams plugin shows of a run.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), ReportError> {
        match event {
            Event::Run { step, name, recipe, .. } => self.begin(*step, name, recipe),
            Event::End { step, ending, .. } => match ending {
                Ending::Finished => self.end(*step, Status::Success),
                Ending::Failed => self.end(*step, Status::Failure),
                // It may go on.
                Ending::Stopped => Ok(()),
            },
            event => self.numbers(event),
        }
    }

    fn numbers(&mut self, event: &Event) -> Result<(), ReportError> {
        let Some((step, numbers)) = scalars(event) else { return Ok(()) };
        let mut values: Vec<_> =
            numbers.iter().map(|(tag, x)| (tag.as_str(), Value::Scalar(*x as f32))).collect();
        let text: String = match event {
            // Indented by four, Markdown shows it as it is.
            Event::Eval { sample, .. } => sample.lines().map(|line| format!("    {line}\n")).collect(),
            _ => String::new(),
        };
        if !text.is_empty() {
            values.push(("sample", Value::Text(&text)));
        }
        self.summary(step, &values)
    }

    /// The hyperparameters of a run: the keys of its recipe.
    fn begin(&mut self, step: u64, name: &str, recipe: &str) -> Result<(), ReportError> {
        let hparams = hparams_of(recipe);
        let known = hparams.iter().map(|(name, value)| (name.as_str(), vec![value])).collect();
        let experiment = hparams::experiment(name, wall_time(), &known, &METRICS);
        self.summary(step, &[(hparams::EXPERIMENT, Value::Hparams(&experiment))])?;
        let start = hparams::session_start(&hparams, &self.model, "", wall_time());
        self.summary(step, &[(hparams::SESSION_START, Value::Hparams(&start))])
    }

    fn end(&mut self, step: u64, status: Status) -> Result<(), ReportError> {
        let end = hparams::session_end(status, wall_time());
        self.summary(step, &[(hparams::SESSION_END, Value::Hparams(&end))])
    }

    fn summary(&mut self, step: u64, values: &[(&str, Value<'_>)]) -> Result<(), ReportError> {
        self.write(&tfevents::summary(wall_time(), step, values))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), ReportError> {
        self.file.write_all(&tfevents::record(event)).map_err(ReportError::io(&self.path, "write"))
    }
}

/// Removes what the HParams plugin reads from the file of an earlier start: of a run it believes what it finds first, and a
/// run that goes on has not ended, and may have other hyperparameters.
fn forget_hparams(path: &Path) -> Result<(), ReportError> {
    let file = fs::read(path).map_err(ReportError::io(path, "read"))?;
    let kept = tfevents::without_hparams(&file);
    if kept.len() == file.len() {
        return Ok(());
    }
    let new = path.with_file_name("events.tmp");
    fs::write(&new, kept).map_err(ReportError::io(&new, "write"))?;
    fs::rename(&new, path).map_err(ReportError::io(path, "replace"))
}

/// Seconds since 1970.
pub(super) fn wall_time() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The tags of the HParams plugin in all files of a directory, in the order in which TensorBoard reads them.
    fn tags(dir: &Path) -> Vec<&'static str> {
        let files = names(dir).into_iter().flat_map(|name| fs::read(dir.join(name)).unwrap());
        let all: Vec<u8> = files.collect();
        let known = [hparams::EXPERIMENT, hparams::SESSION_START, hparams::SESSION_END];
        let at = |at: usize| known.into_iter().find(|tag| all[at..].starts_with(tag.as_bytes()));
        (0..all.len()).filter_map(at).collect()
    }

    /// What was said of a run's hyperparameters and end before it went on does not count: TensorBoard believes what it
    /// finds first.
    #[test]
    fn a_run_that_goes_on_begins_and_ends_once() {
        let dir = tempfile::tempdir().unwrap();
        let write = |step: u64, ending: Ending| {
            let mut board = TensorBoard::open(dir.path(), step).unwrap();
            let (name, recipe) = ("n".to_string(), format!("[train]\nsteps = {}", step + 1));
            let (parameters, threads, backward) = (7, 2, None);
            let run = Event::Run { step, name, parameters, threads, gemm_flops: 1e9, backward, recipe };
            let eval = Event::Eval { step: step + 1, loss: 2.0, bits_per_byte: 1.0, sample: "x".to_string() };
            for event in [run, eval, Event::End { step: step + 1, ending, reason: String::new() }] {
                board.event(&event).unwrap();
            }
        };
        let (begin, end) = ([hparams::EXPERIMENT, hparams::SESSION_START], hparams::SESSION_END);
        write(0, Ending::Failed);
        assert_eq!(tags(dir.path()), [&begin[..], &[end]].concat());
        write(1, Ending::Stopped);
        assert_eq!(tags(dir.path()), begin);
        write(2, Ending::Finished);
        assert_eq!(tags(dir.path()), [&begin[..], &[end]].concat());
        // Numbers of all three starts are there.
        let files = names(dir.path()).into_iter().map(|name| fs::read(dir.path().join(name)).unwrap());
        let held_out =
            |file: Vec<u8>| file.windows(BITS_PER_BYTE.len()).any(|w| w == BITS_PER_BYTE.as_bytes());
        assert_eq!(files.map(held_out).collect::<Vec<_>>(), [true; 3]);
    }

    #[test]
    fn every_start_begins_a_file_that_sorts_last_and_a_new_run_removes_them() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        drop(TensorBoard::open(dir.path(), 0).unwrap());
        // One from a clock that was ahead.
        let ahead = format!("{PREFIX}9999999999.000001.tritforge");
        fs::write(dir.path().join(&ahead), "").unwrap();
        drop(TensorBoard::open(dir.path(), 5).unwrap());
        let found = names(dir.path());
        assert_eq!(found.len(), 4);
        assert_eq!(found[1..], [ahead, format!("{PREFIX}9999999999.000002.tritforge"), "notes.txt".into()]);
        drop(TensorBoard::open(dir.path(), 0).unwrap());
        assert_eq!(names(dir.path()).len(), 2);
    }
}
