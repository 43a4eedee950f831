//! The metrics of a run, read back.

use std::path::Path;

use crate::log::METRICS;
use crate::{Event, MatrixHealth, ReportError};

/// Everything that a run said.
#[derive(Debug, Default)]
pub(super) struct Run {
    /// Its name, or that of its directory.
    pub(super) name: String,
    pub(super) parameters: Option<usize>,
    pub(super) threads: Option<usize>,
    pub(super) gemm_flops: Option<f64>,
    /// How the gradients of ternary projections were multiplied.
    pub(super) backward: Option<String>,
    /// The resolved recipe; empty in metrics of earlier versions.
    pub(super) recipe: String,
    /// Steps at which training went on after an interruption.
    pub(super) resumed: Vec<u64>,
    pub(super) train: Vec<Train>,
    pub(super) evaluations: Vec<Evaluation>,
    pub(super) preferences: Vec<Preference>,
    pub(super) health: Vec<Health>,
    pub(super) skipped: Vec<(u64, String)>,
}

/// A step that was logged.
#[derive(Debug, Clone)]
pub(super) struct Train {
    pub(super) step: u64,
    pub(super) loss: f64,
    /// How far the relations of tokens are from a teacher's.
    pub(super) relation: Option<f64>,
    pub(super) lr: f64,
    pub(super) grad_norm: f64,
    pub(super) tokens: u64,
    pub(super) tokens_per_second: f64,
    pub(super) mfu: Option<f64>,
    pub(super) rss: Option<u64>,
    pub(super) peak_rss: Option<u64>,
}

/// An evaluation.
#[derive(Debug, Clone)]
pub(super) struct Evaluation {
    pub(super) step: u64,
    pub(super) loss: f64,
    pub(super) bits_per_byte: f64,
    pub(super) sample: String,
}

/// How pairs of answers compare.
#[derive(Debug, Clone)]
pub(super) struct Preference {
    pub(super) step: u64,
    pub(super) held_out: bool,
    pub(super) accuracy: f64,
    pub(super) margin: f64,
}

/// A look at the ternary matrices.
#[derive(Debug, Clone)]
pub(super) struct Health {
    pub(super) step: u64,
    /// Steps since the look before.
    pub(super) steps: u64,
    pub(super) matrices: Vec<MatrixHealth>,
}

/// Reads the metrics at `path`: a run's directory, or the file itself.
pub(super) fn run(path: &Path) -> Result<Run, ReportError> {
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let file = if path.is_dir() { path.join(METRICS) } else { path.to_path_buf() };
    if !file.is_file() {
        let message = "no such file: expected a run directory or its metrics.jsonl".to_string();
        return Err(ReportError::Metrics { path: file, line: 0, message });
    }
    let bytes = std::fs::read(&file).map_err(ReportError::io(&file, "read"))?;
    let name = dir.canonicalize().ok().and_then(|dir| Some(dir.file_name()?.to_string_lossy().into_owned()));
    let mut run = Run { name: name.unwrap_or_else(|| "run".to_string()), ..Run::default() };
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

impl Run {
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
            Event::Train {
                step,
                loss,
                lr,
                grad_norm,
                tokens,
                tokens_per_second,
                mfu,
                rss,
                peak_rss,
                metrics,
            } => {
                let relation = metrics.get("relation").copied();
                self.train.push(Train {
                    step,
                    loss,
                    relation,
                    lr,
                    grad_norm,
                    tokens,
                    tokens_per_second,
                    mfu,
                    rss,
                    peak_rss,
                });
            }
            Event::Eval { step, loss, bits_per_byte, sample } => {
                self.evaluations.push(Evaluation { step, loss, bits_per_byte, sample });
            }
            Event::Preferences { step, held_out, accuracy, margin, .. } => {
                self.preferences.push(Preference { step, held_out, accuracy, margin });
            }
            Event::Health { step, steps, matrices } => self.health.push(Health { step, steps, matrices }),
            Event::Skip { step, reason } => self.skipped.push((step, reason)),
            Event::Checkpoint { .. } | Event::Unknown => {}
        }
    }

    /// The evaluation with the lowest held-out loss.
    pub(super) fn best(&self) -> Option<&Evaluation> {
        self.evaluations.iter().filter(|e| e.loss.is_finite()).min_by(|a, b| a.loss.total_cmp(&b.loss))
    }

    /// The median of a number of the logged steps.
    pub(super) fn median(&self, number: impl Fn(&Train) -> Option<f64>) -> Option<f64> {
        let mut numbers: Vec<f64> = self.train.iter().filter_map(number).filter(|x| x.is_finite()).collect();
        numbers.sort_by(f64::total_cmp);
        numbers.get(numbers.len() / 2).copied()
    }
}
