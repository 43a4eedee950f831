//! What a run says: one JSON object a line in `metrics.jsonl`, and a progress bar for people.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::TrainError;

/// One line of `metrics.jsonl`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// After an optimizer step.
    Train {
        /// Steps taken.
        step: u64,
        /// Mean cross-entropy of the step's targets, in nats.
        loss: f64,
        /// Learning rate of the step.
        lr: f64,
        /// Norm of the gradient before clipping.
        grad_norm: f64,
        /// Target tokens since the run began.
        tokens: u64,
        /// Target tokens a second since the last line.
        tokens_per_second: f64,
    },
    /// After a step whose update was not made.
    Skip {
        /// Steps taken.
        step: u64,
        /// Why.
        reason: String,
    },
    /// After an evaluation.
    Eval {
        /// Steps taken.
        step: u64,
        /// Mean cross-entropy of the held-out targets, in nats.
        loss: f64,
        /// Bits a byte of held-out text.
        bits_per_byte: f64,
        /// A text that the model wrote.
        sample: String,
    },
    /// After a checkpoint.
    Checkpoint {
        /// Steps taken.
        step: u64,
        /// Its directory.
        path: PathBuf,
    },
}

/// The metrics file and the progress bar of a run.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
    file: File,
    bar: ProgressBar,
    quiet: bool,
}

impl Log {
    /// Opens the log of a run that goes on after `step`: lines of later steps, which a crash left, are dropped.
    pub(crate) fn open(path: &Path, steps: u64, step: u64, quiet: bool) -> Result<Self, TrainError> {
        let fault = |action| TrainError::io(path, action);
        if path.exists() {
            let kept: Vec<String> = BufReader::new(File::open(path).map_err(fault("open"))?)
                .lines()
                .map_while(Result::ok)
                .filter(|line| line_step(line).is_some_and(|s| step > 0 && s <= step))
                .collect();
            let mut text = kept.join("\n");
            if !text.is_empty() {
                text.push('\n');
            }
            let temporary = path.with_extension("jsonl.tmp");
            std::fs::write(&temporary, text).map_err(fault("rewrite"))?;
            std::fs::rename(&temporary, path).map_err(fault("replace"))?;
        }
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(fault("open"))?;
        let bar = ProgressBar::new(steps);
        if quiet {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        let style = "{bar:24} {pos}/{len} {msg} [{elapsed} < {eta}]";
        bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(step);
        bar.reset_eta();
        Ok(Self { path: path.to_path_buf(), file, bar, quiet })
    }

    /// Appends a line and shows it.
    pub(crate) fn event(&mut self, event: &Event) -> Result<(), TrainError> {
        let mut line = serde_json::to_string(event).map_err(|e| TrainError::State(e.to_string()))?;
        line.push('\n');
        self.file.write_all(line.as_bytes()).map_err(TrainError::io(&self.path, "write"))?;
        match event {
            Event::Train { step, loss, lr, tokens_per_second, .. } => {
                self.bar.set_position(*step);
                self.bar.set_message(format!("loss {loss:.4} lr {lr:.1e} {tokens_per_second:.0} tokens/s"));
            }
            Event::Skip { step, reason } => self.say(&format!("step {step} skipped: {reason}")),
            Event::Eval { step, loss, bits_per_byte, sample } => self.say(&format!(
                "step {step}: held-out loss {loss:.4}, {bits_per_byte:.4} bits/byte\n{}",
                indented(sample)
            )),
            Event::Checkpoint { .. } => {}
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
            true => println!("{text}"),
            false => self.bar.println(text),
        }
    }

    /// Ends the bar.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn line_step(line: &str) -> Option<u64> {
    serde_json::from_str::<serde_json::Value>(line).ok()?.get("step")?.as_u64()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    │ {line}\n")).collect()
}
