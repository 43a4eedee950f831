//! A run's event files under `tensorboard/`: which number stands under which tag, and one file for every
//! start of the run.
//!
//! Files are only ever appended to. A run that goes on begins another one, whose first event makes
//! TensorBoard forget what an interrupted run wrote after its checkpoint.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::Event;
use super::tfevents::{self, Value};
use crate::ReportError;

/// What the name of every event file begins with: TensorBoard looks for it.
const PREFIX: &str = "events.out.tfevents.";

/// The event file of a run.
#[derive(Debug)]
pub(super) struct TensorBoard {
    path: PathBuf,
    file: File,
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
                names.push(name);
            }
        }
        // TensorBoard reads files in the order of their names, whatever the clock says.
        let seconds = |name: &String| name[PREFIX.len()..].split('.').next()?.parse::<u64>().ok();
        let newest = names.iter().filter_map(seconds).max().unwrap_or(0);
        let now = (wall_time() as u64).max(newest);
        let path = dir.join(format!("{PREFIX}{now:010}.{:06}.tritforge", names.len()));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(ReportError::io(&path, "create"))?;
        let mut board = Self { path, file };
        board.write(&tfevents::version(wall_time()))?;
        board.write(&tfevents::start(wall_time(), step + 1))?;
        Ok(board)
    }

    /// Appends an event's numbers.
    pub(super) fn event(&mut self, event: &Event) -> Result<(), ReportError> {
        let scalar = |x: f64| Value::Scalar(x as f32);
        match event {
            Event::Train(train) => {
                let named: Vec<_> =
                    train.metrics.iter().map(|(name, x)| (format!("loss/{name}"), *x)).collect();
                let mut values = vec![
                    ("loss/train", scalar(train.loss)),
                    ("optimizer/lr", scalar(train.lr)),
                    ("optimizer/grad_norm", scalar(train.grad_norm)),
                    ("speed/tokens_per_second", scalar(train.tokens_per_second)),
                ];
                values.extend(named.iter().map(|(tag, x)| (tag.as_str(), scalar(*x))));
                values.extend(train.mfu.map(|mfu| ("speed/mfu", scalar(mfu))));
                values.extend(train.rss.map(|bytes| ("memory/rss", scalar(bytes as f64))));
                values.extend(train.peak_rss.map(|bytes| ("memory/peak_rss", scalar(bytes as f64))));
                self.summary(train.step, &values)
            }
            Event::Eval { step, loss, bits_per_byte, sample } => {
                // Indented by four, Markdown shows it as it is.
                let text: String = sample.lines().map(|line| format!("    {line}\n")).collect();
                let mut values =
                    vec![("loss/held_out", scalar(*loss)), ("loss/bits_per_byte", scalar(*bits_per_byte))];
                if !sample.is_empty() {
                    values.push(("sample", Value::Text(&text)));
                }
                self.summary(*step, &values)
            }
            Event::Health { step, steps, matrices } => {
                let mut named = Vec::new();
                for matrix in matrices {
                    let mut add = |what, x: f64| named.push((format!("{what}/{}", matrix.name), x));
                    add("ternary_zero", matrix.zero);
                    add("ternary_scale", matrix.scale);
                    add("ternary_distance", matrix.distance);
                    if let Some(flipped) = matrix.flipped_per_step(*steps) {
                        add("ternary_flipped_per_step", flipped);
                    }
                }
                let values: Vec<_> = named.iter().map(|(tag, x)| (tag.as_str(), scalar(*x))).collect();
                self.summary(*step, &values)
            }
            Event::Preferences { step, held_out, loss, accuracy, margin, point } => {
                let [of_loss, of_accuracy, of_margin, of_point] = match held_out {
                    true => [
                        "preferences/held_out_loss",
                        "preferences/held_out_accuracy",
                        "preferences/held_out_margin",
                        "preferences/held_out_point",
                    ],
                    false => [
                        "preferences/train_loss",
                        "preferences/train_accuracy",
                        "preferences/train_margin",
                        "preferences/train_point",
                    ],
                };
                let values = [(of_loss, *loss), (of_accuracy, *accuracy), (of_margin, *margin)];
                let all = values.into_iter().chain(point.map(|point| (of_point, point)));
                self.summary(*step, &all.map(|(tag, x)| (tag, scalar(x))).collect::<Vec<_>>())
            }
            Event::Run { .. } | Event::Skip { .. } | Event::Checkpoint { .. } | Event::Unknown => Ok(()),
        }
    }

    fn summary(&mut self, step: u64, values: &[(&str, Value<'_>)]) -> Result<(), ReportError> {
        self.write(&tfevents::summary(wall_time(), step, values))
    }

    fn write(&mut self, event: &[u8]) -> Result<(), ReportError> {
        self.file.write_all(&tfevents::record(event)).map_err(ReportError::io(&self.path, "write"))
    }
}

/// Seconds since 1970.
fn wall_time() -> f64 {
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
