//! Linear decay.

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape};
use crate::recipe::Keys;

/// The rate falls linearly to the end of the run.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct Linear;

impl Shape for Linear {
    fn read(_: &mut Keys<'_>, _: &Run) -> Schedule {
        Schedule::Linear(Self)
    }

    fn rate(&self, at: &At) -> f64 {
        at.lr * at.linear(at.warmup_steps)
    }
}
