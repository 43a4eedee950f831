//! TWN (Ternary Weight Networks, arXiv 1605.04711, eq. 5–6): weights beyond a threshold become the mean of their
//! magnitudes.

use super::{Fit, Quantizer, QuantizerSettings, absmean, mean_of_kept};

/// The threshold is Δ = 0.75 · mean|W|, the paper's for normally distributed weights, so the step is 2Δ; the scale
/// is the mean of |W| above Δ.
#[derive(Debug)]
pub(super) struct Twn;

impl Quantizer for Twn {
    fn name(&self) -> &'static str {
        "twn"
    }

    fn about(&self) -> &'static str {
        "threshold 0.75 · mean|W|, scale the mean of |W| above it (arXiv 1605.04711); 45 % zeros on a Gaussian"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let step = 1.5 * absmean(weights);
        Fit { step, scale: mean_of_kept(weights, step) }
    }
}
