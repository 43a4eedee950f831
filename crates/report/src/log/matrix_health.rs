//! The state of a ternary matrix, as a log has it.

use serde::{Deserialize, Serialize};

use super::event::number;

/// The state of one ternary matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MatrixHealth {
    /// Its name, as in a Hugging Face checkpoint, without `.weight`.
    pub name: String,
    /// Share of the weights whose code is 0. A normal distribution gives 0.31.
    pub zero: f64,
    /// Share of the weights whose code is 1; none in metrics of earlier versions.
    #[serde(default)]
    pub positive: Option<f64>,
    /// Share of the weights whose code is another than the last time; none the first time.
    pub flipped: Option<f64>,
    /// The absmean scale.
    #[serde(deserialize_with = "number")]
    pub scale: f64,
    /// Its change since the last time, relative; none the first time.
    pub drift: Option<f64>,
    /// Mean distance of |W / scale| from 0.5, where codes change. A normal distribution gives 0.66; near 0,
    /// weights hesitate.
    #[serde(deserialize_with = "number")]
    pub distance: f64,
}

impl MatrixHealth {
    /// Share of the weights whose code is -1.
    pub fn negative(&self) -> Option<f64> {
        self.positive.map(|positive| 1.0 - self.zero - positive)
    }

    /// Share of the weights that changed their code in a step, on average over the `steps` since the last
    /// time.
    pub fn flipped_per_step(&self, steps: u64) -> Option<f64> {
        self.flipped.filter(|_| steps > 0).map(|flipped| flipped / steps as f64)
    }
}
