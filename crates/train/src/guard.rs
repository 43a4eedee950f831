//! What to make of a step's loss and gradient before they reach the weights.

use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::recipe::{OnFault, Train};

/// Skipped steps in a row after which a run is beyond help.
const MAX_SKIPS: u64 = 20;
/// Steps over which the gradient norm is averaged, about.
const WINDOW: u64 = 100;
/// Norms that are averaged before any counts as a spike: the first of a run vary much.
const SETTLED: u64 = 20;

/// What the guard remembers; part of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// Running mean of the gradient norms of steps that were taken.
    mean_norm: f64,
    /// How many there were.
    norms: u64,
    /// Steps skipped so far.
    pub(crate) skipped: u64,
    /// Steps skipped since the last that was taken.
    skipped_in_a_row: u64,
}

/// Whether a step's update is made.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    /// It is.
    Take,
    /// It is not, for this reason.
    Skip(String),
}

impl Guard {
    /// Judges step `step` (from 1). `checkpoint` is where a user could go on from.
    pub(crate) fn judge(
        &mut self,
        options: &Train,
        step: u64,
        loss: f64,
        grad_norm: f64,
        checkpoint: &str,
    ) -> Result<Verdict, TrainError> {
        let checkpoint = checkpoint.to_string();
        let (what, value) = if loss.is_finite() { ("gradient norm", grad_norm) } else { ("loss", loss) };
        let spike = self.is_spike(options, grad_norm);
        let (on_fault, error) = if !value.is_finite() {
            (options.on_nonfinite, TrainError::NotFinite { step, what, value, checkpoint })
        } else if spike {
            let mean = self.mean_norm;
            let on_spike = options.on_spike.unwrap_or(OnFault::Skip);
            (on_spike, TrainError::Spike { step, norm: grad_norm, mean, checkpoint })
        } else {
            self.norms += 1;
            self.mean_norm += (grad_norm - self.mean_norm) / self.norms.min(WINDOW) as f64;
            self.skipped_in_a_row = 0;
            return Ok(Verdict::Take);
        };
        self.skipped += 1;
        self.skipped_in_a_row += 1;
        if on_fault == OnFault::Stop || self.skipped_in_a_row >= MAX_SKIPS {
            return Err(error);
        }
        Ok(Verdict::Skip(if spike {
            format!("gradient norm spike: {grad_norm:.3} (running mean {:.3})", self.mean_norm)
        } else {
            format!("{what} is {value}")
        }))
    }

    fn is_spike(&self, options: &Train, norm: f64) -> bool {
        let settled = self.norms >= SETTLED;
        settled && options.spike_threshold.is_some_and(|threshold| norm > threshold * self.mean_norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(set: &[&str]) -> Train {
        let text = "[model]\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
                    num_attention_heads = 4\n[data]\nsource = \"rust-sources\"\n[train]\nsteps = 9\n";
        let set: Vec<String> = set.iter().map(|s| s.to_string()).collect();
        crate::recipe::Recipe::from_toml("r.toml".as_ref(), text, &set).unwrap().train
    }

    #[test]
    fn numbers_that_are_none_stop_or_skip_a_run() {
        let stop = options(&[]);
        let error = Guard::default().judge(&stop, 7, f64::NAN, 1.0, "c").unwrap_err().to_string();
        assert!(error.contains("step 7: loss is NaN") && error.contains("checkpoint is c"), "{error}");
        let error = Guard::default().judge(&stop, 7, 1.0, f64::INFINITY, "c").unwrap_err().to_string();
        assert!(error.contains("gradient norm is inf"), "{error}");

        let skip = options(&["train.on_nonfinite=skip"]);
        let mut guard = Guard::default();
        let mut judge = |loss| guard.judge(&skip, 1, loss, 1.0, "c");
        for _ in 0..MAX_SKIPS - 1 {
            assert!(matches!(judge(f64::NAN), Ok(Verdict::Skip(_))));
        }
        assert_eq!(judge(1.0).unwrap(), Verdict::Take);
        for _ in 0..MAX_SKIPS - 1 {
            assert!(judge(f64::NAN).is_ok());
        }
        assert!(judge(f64::NAN).is_err());
        assert_eq!(guard.skipped, 2 * MAX_SKIPS - 1);
    }

    #[test]
    fn spikes_are_measured_by_the_running_mean() {
        let skip = options(&["train.spike_threshold=3"]);
        let mut guard = Guard::default();
        // The first norms of a run may be anything.
        assert_eq!(guard.judge(&skip, 1, 1.0, 100.0, "c").unwrap(), Verdict::Take);
        for step in 2..300 {
            assert_eq!(guard.judge(&skip, step, 1.0, 2.0, "c").unwrap(), Verdict::Take);
        }
        assert!((guard.mean_norm - 2.0).abs() < 0.2, "{}", guard.mean_norm);
        assert!(matches!(guard.judge(&skip, 300, 1.0, 6.7, "c"), Ok(Verdict::Skip(_))));
        assert_eq!(guard.judge(&skip, 301, 1.0, 5.9, "c").unwrap(), Verdict::Take);
        let stop = options(&["train.spike_threshold=3", "train.on_spike=stop"]);
        let error = guard.judge(&stop, 302, 1.0, 9.0, "c").unwrap_err().to_string();
        assert!(error.contains("step 302") && error.contains("spike"), "{error}");
    }
}
