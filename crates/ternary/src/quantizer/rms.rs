//! MSE-optimal for normally distributed weights: the three-level quantizer of Lloyd and Max, whose levels are 0 and
//! ±1.2240 standard deviations (the constant of QuEST, arXiv 2502.05003).

use super::{Fit, Quantizer, QuantizerSettings, at_least_eps};

/// The outer level of the three-level Lloyd-Max quantizer of a standard normal variable.
const LEVEL: f64 = 1.2240;

/// Step and scale are `1.2240 · √(mean W²)`.
#[derive(Debug)]
pub(super) struct Rms;

impl Quantizer for Rms {
    fn name(&self) -> &'static str {
        "rms"
    }

    fn about(&self) -> &'static str {
        "1.2240 · √(mean W²), of least squared error on a Gaussian (arXiv 2502.05003); 46 % zeros there"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let sum: f64 = weights.iter().map(|w| f64::from(*w).powi(2)).sum();
        let scale = at_least_eps((LEVEL * (sum / weights.len().max(1) as f64).sqrt()) as f32);
        Fit { step: scale, scale }
    }
}
