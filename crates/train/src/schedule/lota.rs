//! The percentile of LoTA-QAF (arXiv 2505.18724: 5 %, 0.1 %, 0.01 %).

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape};
use crate::recipe::Keys;

/// The rate falls linearly to a fiftieth over the first four fifths of the run, then to a five-hundredth: the share of
/// gradients that t-SignSGD takes.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct Lota;

impl Shape for Lota {
    fn read(_: &mut Keys<'_>, _: &Run) -> Schedule {
        Schedule::Lota(Self)
    }

    fn rate(&self, at: &At) -> f64 {
        let (done, turn) = (at.progress(at.warmup_steps), 0.8);
        let share = if done <= turn {
            1.0 - (1.0 - 0.02) * done / turn
        } else {
            0.02 - (0.02 - 0.002) * (done - turn) / (1.0 - turn)
        };
        at.lr * share
    }
}
