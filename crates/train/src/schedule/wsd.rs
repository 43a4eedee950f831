//! Warm-up, stable, decay (arXiv 2404.06395).

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape};
use crate::recipe::{Keys, Optim};

/// The rate stays, and falls linearly in the last `decay_steps`: warm-up, stable, decay.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Wsd {
    /// The steps of the final decay; by default a fifth of the run.
    pub decay_steps: u64,
}

impl Shape for Wsd {
    fn read(keys: &mut Keys<'_>, run: &Run) -> Schedule {
        let decay_steps = keys.integer("decay_steps", 1, u64::MAX).unwrap_or((run.steps / 5).max(1));
        Schedule::Wsd(Self { decay_steps })
    }

    fn check(&self, optim: &Optim, steps: u64, keys: &mut Keys<'_>) {
        let (decay, room) = (self.decay_steps, steps - optim.warmup_steps);
        if decay > room {
            let message = format!(
                "optim.decay_steps = {decay}: expected at most train.steps - optim.warmup_steps = {room}"
            );
            keys.fault("decay_steps", message);
        }
    }

    fn rate(&self, at: &At) -> f64 {
        at.lr * at.linear(at.steps.saturating_sub(self.decay_steps))
    }
}
