//! What a run says: `metrics.jsonl` with one JSON object a line, the same numbers in `metrics.csv` and for
//! TensorBoard under `tensorboard/`, and a progress bar for people.
//!
//! All of them go on consistently after a crash: what was written after the checkpoint that a run goes on
//! from is dropped.

mod event;
mod table;
mod tensorboard;
mod tfevents;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub(crate) use self::event::{Event, number};
use self::tensorboard::TensorBoard;
use crate::{RunOptions, TrainError};

/// The JSON lines of a run, in its directory.
pub(crate) const METRICS: &str = "metrics.jsonl";
const TABLE: &str = "metrics.csv";
const TENSORBOARD: &str = "tensorboard";

/// The metrics files and the progress bar of a run.
#[derive(Debug)]
pub(crate) struct Log {
    lines: AppendFile,
    table: AppendFile,
    tensorboard: TensorBoard,
    bar: ProgressBar,
    /// Where training stands, in words; empty before the first step that was logged.
    standing: String,
    quiet: bool,
    say: fn(&str),
}

/// A file that grows.
#[derive(Debug)]
struct AppendFile {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens the log of a run in `dir` that goes on after `step`: what later steps wrote, which a crash left,
    /// is dropped.
    pub(crate) fn open(dir: &Path, steps: u64, step: u64, options: &RunOptions) -> Result<Self, TrainError> {
        let RunOptions { quiet, say, .. } = *options;
        let path = dir.join(METRICS);
        let mut lines = String::new();
        let mut table = table::HEADER.to_string();
        if step > 0 && path.exists() {
            let text = std::fs::read(&path).map_err(TrainError::io(&path, "read"))?;
            for line in String::from_utf8_lossy(&text).lines().filter(|line| counts(line, step)) {
                lines.extend([line, "\n"]);
                table.extend(serde_json::from_str(line).ok().and_then(|event| table::row(&event)));
            }
        }
        let lines = AppendFile::replace(path, &lines)?;
        let table = AppendFile::replace(dir.join(TABLE), &table)?;
        let tensorboard = TensorBoard::open(&dir.join(TENSORBOARD), step)?;
        let bar = ProgressBar::new(steps);
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{bar:24} {pos}/{len} {msg} [{elapsed} < {eta}]";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(step);
        bar.reset_eta();
        Ok(Self { lines, table, tensorboard, bar, standing: String::new(), quiet, say })
    }

    /// Writes an event down and shows it.
    pub(crate) fn event(&mut self, event: &Event) -> Result<(), TrainError> {
        let line = serde_json::to_string(event).map_err(|e| TrainError::State(e.to_string()))?;
        self.lines.append(&(line + "\n"))?;
        if let Some(row) = table::row(event) {
            self.table.append(&row)?;
        }
        self.tensorboard.event(event)?;
        match event {
            Event::Train { step, .. } => {
                self.standing = standing(event);
                self.bar.set_position(*step);
                self.bar.set_message(self.standing.clone());
            }
            Event::Skip { step, reason } => self.say(&format!("step {step} skipped: {reason}")),
            Event::Eval { step, loss, bits_per_byte, sample } => {
                let mut text = format!("step {step}: held-out loss {loss:.4}, {bits_per_byte:.4} bits/byte");
                // Where there is no bar, this is the only place to see it.
                if self.bar.is_hidden() && !self.standing.is_empty() {
                    text += &format!("; {}", self.standing);
                }
                self.say(&format!("{text}\n{}", indented(sample)));
            }
            Event::Preferences { step, held_out: true, loss, accuracy, margin } => {
                let share = 100.0 * accuracy;
                self.say(&format!(
                    "step {step}: held-out pairs: DPO loss {loss:.4}, accuracy {share:.1} %, margin \
                     {margin:+.3} nats"
                ));
            }
            Event::Preferences { accuracy, margin, .. } => {
                self.standing += &format!(" accuracy {:.0} % margin {margin:+.2}", 100.0 * accuracy);
                self.bar.set_message(self.standing.clone());
            }
            Event::Run { .. } | Event::Health { .. } | Event::Checkpoint { .. } | Event::Unknown => {}
        }
        Ok(())
    }

    /// Prints a line above the bar.
    pub(crate) fn say(&self, text: &str) {
        if self.quiet {
            return;
        }
        // Without a terminal there is no bar to print above.
        match self.bar.is_hidden() {
            true => (self.say)(text),
            false => self.bar.println(text),
        }
    }

    /// Ends the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl AppendFile {
    /// A file with this text and nothing else; a crash leaves the old one or the new.
    fn replace(path: PathBuf, text: &str) -> Result<Self, TrainError> {
        let mut temporary = path.clone().into_os_string();
        temporary.push(".tmp");
        std::fs::write(&temporary, text).map_err(TrainError::io(&path, "rewrite"))?;
        std::fs::rename(&temporary, &path).map_err(TrainError::io(&path, "replace"))?;
        let file = OpenOptions::new().append(true).open(&path).map_err(TrainError::io(&path, "open"))?;
        Ok(Self { path, file })
    }

    fn append(&mut self, text: &str) -> Result<(), TrainError> {
        self.file.write_all(text.as_bytes()).map_err(TrainError::io(&self.path, "write"))
    }
}

/// Whether a line belongs to a run that goes on after `step`. That a run began here is said again.
fn counts(line: &str, step: u64) -> bool {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(line) else { return false };
    let begins = value["event"] == "run";
    value["step"].as_u64().is_some_and(|s| s < step || s == step && !begins)
}

/// Loss, learning rate, gradient norm, speed and memory in a line; nothing for other events than training's.
fn standing(event: &Event) -> String {
    let Event::Train { loss, relation, lr, grad_norm, tokens_per_second, mfu, rss, peak_rss, .. } = event
    else {
        return String::new();
    };
    let mut text = format!("loss {loss:.4}");
    if let Some(relation) = relation {
        text += &format!(" relation {relation:.3e}");
    }
    text += &format!(" lr {lr:.1e} |g| {grad_norm:.2} {tokens_per_second:.0} tokens/s");
    if let Some(mfu) = mfu {
        text += &format!(" MFU {:.0} %", 100.0 * mfu);
    }
    if let (Some(now), Some(peak)) = (rss, peak_rss) {
        text += &format!(" {:.0} MB, peak {:.0}", *now as f64 / 1e6, *peak as f64 / 1e6);
    }
    text
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    │ {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn train(step: u64) -> Event {
        Event::Train {
            step,
            loss: 3.0,
            relation: None,
            lr: 1e-3,
            grad_norm: 0.5,
            tokens: 64 * step,
            tokens_per_second: 100.0,
            mfu: Some(0.5),
            rss: Some(1_000_000),
            peak_rss: Some(2_000_000),
        }
    }

    fn run(step: u64) -> Event {
        let (name, recipe) = ("n".to_string(), "steps = 9".to_string());
        Event::Run { step, name, parameters: 7, threads: 2, gemm_flops: 1e9, backward: None, recipe }
    }

    fn quiet() -> RunOptions {
        RunOptions { quiet: true, ..RunOptions::default() }
    }

    fn read(dir: &Path) -> (Vec<Event>, String) {
        let lines = fs::read_to_string(dir.join(METRICS)).unwrap();
        let events = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (events, fs::read_to_string(dir.join(TABLE)).unwrap())
    }

    #[test]
    fn a_run_that_goes_on_drops_what_came_after_its_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::open(dir.path(), 9, 0, &quiet()).unwrap();
        let nan = Event::Eval { step: 2, loss: f64::NAN, bits_per_byte: 1.0, sample: String::new() };
        for event in [run(0), train(1), train(2), nan, run(2), train(3)] {
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
        let mut log = Log::open(dir.path(), 9, 2, &quiet()).unwrap();
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
        Log::open(dir.path(), 9, 0, &quiet()).unwrap();
        assert_eq!(read(dir.path()), (vec![], table::HEADER.to_string()));
    }

    #[test]
    fn where_training_stands_is_one_line() {
        let expected = "loss 3.0000 lr 1.0e-3 |g| 0.50 100 tokens/s MFU 50 % 1 MB, peak 2";
        assert_eq!(standing(&train(1)), expected);
        let mut related = train(1);
        if let Event::Train { relation, .. } = &mut related {
            *relation = Some(0.00125);
        }
        assert_eq!(standing(&related), expected.replace(" lr", " relation 1.250e-3 lr"));
        assert_eq!(standing(&run(0)), "");
    }
}
