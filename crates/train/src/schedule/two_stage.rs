//! BitNet's two stages ("The Era of 1-bit LLMs: Training Tips, Code and FAQ").

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape, reached};
use crate::recipe::{Keys, Range};

/// The rate falls linearly to the end of the run, and drops to a lower line, without weight decay, from `stage2_at` on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct TwoStage {
    /// Learning rate of the second stage, instead of `lr`; by default two thirds of `lr`.
    pub stage2_lr: f64,
    /// Where the second stage begins, as a share of the run; by default 0.5.
    pub stage2_at: f64,
}

impl Shape for TwoStage {
    /// By default the stages of the runs that BitNet's authors describe: two thirds of the rate, from the middle
    /// on, without decay.
    fn read(keys: &mut Keys<'_>, run: &Run) -> Schedule {
        let stage2_lr = keys.number("stage2_lr", Range::above(0.0).at_most(10.0));
        let stage2_at = keys.number("stage2_at", Range::above(0.0).below(1.0));
        Schedule::TwoStage(Self {
            stage2_lr: stage2_lr.unwrap_or(run.lr * 2.0 / 3.0),
            stage2_at: stage2_at.unwrap_or(0.5),
        })
    }

    fn weight_decay_until(&self) -> f64 {
        self.stage2_at
    }

    fn rate(&self, at: &At) -> f64 {
        let second = reached(self.stage2_at, at.steps, at.step);
        let peak = if second { self.stage2_lr } else { at.lr };
        peak * at.linear(at.warmup_steps)
    }
}
