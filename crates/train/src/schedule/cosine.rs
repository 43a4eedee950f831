//! Cosine decay (arXiv 1608.03983, without restarts).

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape};
use crate::recipe::Keys;

/// The rate falls along half a cosine.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct Cosine;

impl Shape for Cosine {
    fn read(_: &mut Keys<'_>, _: &Run) -> Schedule {
        Schedule::Cosine(Self)
    }

    fn rate(&self, at: &At) -> f64 {
        let (floor, progress) = (at.min_lr_ratio, at.progress(at.warmup_steps));
        at.lr * (floor + (1.0 - floor) * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()))
    }
}
