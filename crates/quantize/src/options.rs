//! How a model is made ternary.

use serde::Serialize;
use tritforge_config::{ModelConfig, Projection};
use tritforge_ternary::{Granularity, TernaryError, WeightQuantizer};

use crate::QuantizeError;

/// How a model is made ternary.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Options {
    /// How steps and scales are found.
    #[serde(serialize_with = "displayed")]
    pub quantizer: WeightQuantizer,
    /// Which weights share a scale.
    #[serde(serialize_with = "displayed")]
    pub granularity: Granularity,
    /// Blocks that are trained together.
    pub window: usize,
    /// Blocks that the window moves on by: those that are then finished. At most `window`.
    pub stride: usize,
    /// Passes through the calibration sequences for each window; 0 rounds the weights without training.
    pub epochs: usize,
    /// Sequences a step.
    pub batch: usize,
    /// The peak learning rate of AdamW, in units of each tensor's mean magnitude: the share of it by which a step moves
    /// a weight at most, or nearly so.
    pub learning_rate: f64,
    /// The share of the steps over which quantization sets in, from none of it to all of it.
    pub soft: f64,
    /// Of the order of the sequences.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            quantizer: WeightQuantizer::default(),
            granularity: Granularity::Group(128),
            window: 2,
            stride: 1,
            epochs: 8,
            batch: 4,
            learning_rate: 0.06,
            soft: 0.5,
            seed: 0,
        }
    }
}

impl Options {
    /// Whether everything is possible for a model.
    pub(crate) fn check(&self, config: &ModelConfig) -> Result<(), QuantizeError> {
        let fault = |option, found: String, expected: &str| {
            Err(QuantizeError::Option { option, found, expected: expected.to_string() })
        };
        if self.window == 0 {
            return fault("--window", "0".to_string(), "at least one block");
        }
        if self.stride == 0 || self.stride > self.window {
            let expected = format!("from 1 to the window's {}", self.window);
            return fault("--stride", self.stride.to_string(), &expected);
        }
        if self.batch == 0 {
            return fault("--batch", "0".to_string(), "at least one sequence");
        }
        if !(self.learning_rate > 0.0 && self.learning_rate <= 1.0) {
            return fault("--learning-rate", self.learning_rate.to_string(), "above 0, at most 1");
        }
        if !(0.0..=1.0).contains(&self.soft) {
            return fault("--soft", self.soft.to_string(), "from 0 to 1");
        }
        if self.quantizer.learned().is_some() || self.quantizer.on_grid() {
            let expected =
                "a quantizer that computes scales from latent weights, such as absmean, twn or rms";
            return fault("--scale", self.quantizer.to_string(), expected);
        }
        let fault_of_group = |projection: Projection, found: &TernaryError| {
            let expected = "a group that divides the inputs of every projection";
            fault("--granularity", format!("{}: {found}", projection.hf_name()), expected)
        };
        for projection in Projection::ALL {
            let [_, cols] = config.projection_shape(projection);
            if let Err(fault) = self.granularity.check(cols) {
                return fault_of_group(projection, &fault);
            }
        }
        Ok(())
    }

    /// The windows of a model of `layers` blocks, each with the number of blocks that are finished after it.
    pub(crate) fn windows(&self, layers: usize) -> Vec<(std::ops::Range<usize>, usize)> {
        let mut windows = Vec::new();
        let mut first = 0;
        while first < layers {
            let end = (first + self.window).min(layers);
            let kept = if end == layers { end - first } else { self.stride };
            windows.push((first..end, kept));
            first += kept;
        }
        windows
    }
}

fn displayed<T: std::fmt::Display, S: serde::Serializer>(value: &T, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_finish_every_block_once() {
        let of = |window, stride, layers| Options { window, stride, ..Options::default() }.windows(layers);
        assert_eq!(of(2, 1, 3), [(0..2, 1), (1..3, 2)]);
        assert_eq!(of(4, 2, 5), [(0..4, 2), (2..5, 3)]);
        assert_eq!(of(4, 2, 7), [(0..4, 2), (2..6, 2), (4..7, 3)]);
        assert_eq!(of(3, 3, 3), [(0..3, 3)]);
        assert_eq!(of(8, 1, 3), [(0..3, 3)]);
        for (window, stride, layers) in [(1, 1, 5), (2, 2, 5), (3, 2, 8), (5, 3, 13)] {
            let kept: Vec<usize> =
                of(window, stride, layers).into_iter().flat_map(|(w, kept)| w.take(kept)).collect();
            assert_eq!(kept, (0..layers).collect::<Vec<_>>(), "{window} {stride} {layers}");
        }
    }

    #[test]
    fn impossible_options_are_named() {
        let config = ModelConfig::default();
        let fault = |options: Options| options.check(&config).unwrap_err().to_string();
        let default = Options::default;
        assert!(default().check(&config).is_ok());
        assert!(fault(Options { window: 0, ..default() }).contains("--window"));
        let stride = fault(Options { stride: 3, ..default() });
        assert!(stride.contains("--stride: found 3, expected from 1 to the window's 2"), "{stride}");
        let scale = fault(Options { quantizer: "lsq".parse().unwrap(), ..default() });
        assert!(scale.contains("--scale: found lsq"), "{scale}");
        assert!(fault(Options { batch: 0, ..default() }).contains("--batch"));
        assert!(fault(Options { learning_rate: f64::NAN, ..default() }).contains("--learning-rate"));
        assert!(fault(Options { soft: 1.5, ..default() }).contains("--soft"));
    }
}
