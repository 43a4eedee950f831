//! The metrics of a run, read back.

use std::path::Path;

use crate::log::METRICS;
use crate::{Event, MatrixHealth, ReportError, Train};

/// Everything that a run said.
#[derive(Debug, Default)]
pub struct History {
    /// Its name, or that of its directory.
    pub name: String,
    /// Parameters of the model.
    pub parameters: Option<usize>,
    /// Threads that computed.
    pub threads: Option<usize>,
    /// Measured f32 operations a second of the machine.
    pub gemm_flops: Option<f64>,
    /// How the gradients of ternary projections were multiplied.
    pub backward: Option<String>,
    /// The resolved recipe; empty in metrics of earlier versions.
    pub recipe: String,
    /// Steps at which training went on after an interruption.
    pub resumed: Vec<u64>,
    /// The steps that were logged.
    pub train: Vec<Train>,
    /// The evaluations.
    pub evaluations: Vec<Evaluation>,
    /// How pairs of answers compared.
    pub preferences: Vec<Preference>,
    /// The state of the ternary matrices.
    pub health: Vec<Health>,
    /// Steps whose update was not made, and why.
    pub skipped: Vec<(u64, String)>,
}

/// An evaluation.
#[derive(Debug, Clone)]
pub struct Evaluation {
    /// Steps taken.
    pub step: u64,
    /// Mean loss, in nats a token, or as the objective has it.
    pub loss: f64,
    /// Bits a byte of held-out text.
    pub bits_per_byte: f64,
    /// A text that the model wrote.
    pub sample: String,
}

/// How pairs of answers compare.
#[derive(Debug, Clone)]
pub struct Preference {
    /// Steps taken.
    pub step: u64,
    /// Whether the pairs are held out, or those of the step.
    pub held_out: bool,
    /// Share of the pairs whose chosen answer is preferred.
    pub accuracy: f64,
    /// By how much, in nats.
    pub margin: f64,
}

/// A look at the ternary matrices.
#[derive(Debug, Clone)]
pub struct Health {
    /// Steps taken.
    pub step: u64,
    /// Steps since the look before.
    pub steps: u64,
    /// The matrices.
    pub matrices: Vec<MatrixHealth>,
}

/// Reads the metrics at `path`: a run's directory, or the file itself.
///
/// # Errors
/// If there are none, or a line of them cannot be understood. A last line that was cut off, as a kill leaves it, is passed
/// over.
pub fn history(path: &Path) -> Result<History, ReportError> {
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let file = if path.is_dir() { path.join(METRICS) } else { path.to_path_buf() };
    if !file.is_file() {
        let message = "no such file: expected a run directory or its metrics.jsonl".to_string();
        return Err(ReportError::Metrics { path: file, line: 0, message });
    }
    let bytes = std::fs::read(&file).map_err(ReportError::io(&file, "read"))?;
    let name = dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    let mut run = History { name: name.unwrap_or_else(|| "run".to_string()), ..History::default() };
    let mut lines = bytes.split(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        let last = lines.peek().is_none();
        if line.is_empty() {
            continue;
        }
        match serde_json::from_slice(line) {
            Ok(event) => run.add(event),
            // No line feed follows: the write of this line was cut off.
            Err(_) if last => {}
            Err(error) => {
                let message = format!("{error}; delete the line to ignore it");
                return Err(ReportError::Metrics { path: file, line: number + 1, message });
            }
        }
    }
    Ok(run)
}

impl History {
    fn add(&mut self, event: Event) {
        match event {
            Event::Run { step, name, parameters, threads, gemm_flops, backward, recipe } => {
                if step > 0 {
                    self.resumed.push(step);
                }
                (self.name, self.recipe) = (name, recipe);
                (self.parameters, self.threads) = (Some(parameters), Some(threads));
                (self.gemm_flops, self.backward) = (Some(gemm_flops), backward);
            }
            Event::Train(step) => self.train.push(step),
            Event::Eval { step, loss, bits_per_byte, sample } => {
                self.evaluations.push(Evaluation { step, loss, bits_per_byte, sample });
            }
            Event::Preferences { step, held_out, accuracy, margin, .. } => {
                self.preferences.push(Preference { step, held_out, accuracy, margin });
            }
            Event::Health { step, steps, matrices } => self.health.push(Health { step, steps, matrices }),
            Event::Skip { step, reason } => self.skipped.push((step, reason)),
            Event::Checkpoint { .. } | Event::End { .. } | Event::Unknown => {}
        }
    }

    /// The evaluation with the lowest held-out loss.
    pub(crate) fn best(&self) -> Option<&Evaluation> {
        self.evaluations.iter().filter(|e| e.loss.is_finite()).min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// The median of a number of the logged steps.
    pub(crate) fn median(&self, number: impl Fn(&Train) -> Option<f64>) -> Option<f64> {
        let mut numbers: Vec<f64> = self.train.iter().filter_map(number).filter(|x| x.is_finite()).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied()
    }
}
