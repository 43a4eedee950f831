//! A rate that stays.

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape};
use crate::recipe::Keys;

/// The rate stays.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct Constant;

impl Shape for Constant {
    fn read(_: &mut Keys<'_>, _: &Run) -> Schedule {
        Schedule::Constant(Self)
    }

    fn rate(&self, at: &At) -> f64 {
        at.lr
    }
}
