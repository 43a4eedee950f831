//! A fixed threshold: weights beyond a fraction of the mean magnitude become the mean of their magnitudes.

use super::{Fit, Quantizer, QuantizerSettings, absmean, mean_of_kept};

/// What the first experiments of TWN (arXiv 1605.04711, section 2.2) had: about 0.7 · mean|W|.
pub(super) const DEFAULT: f32 = 0.7;

/// The code is sign(w) where |w| > t · mean|W|, so the step is 2t · mean|W|; the scale is the mean of |W| above the
/// threshold. t is [`QuantizerSettings::threshold`].
#[derive(Debug)]
pub(super) struct Threshold;

impl Quantizer for Threshold {
    fn name(&self) -> &'static str {
        "threshold"
    }

    fn about(&self) -> &'static str {
        "threshold t · mean|W| with t chosen, scale the mean of |W| above it; 42 % zeros on a Gaussian at t = 0.7"
    }

    fn fit(&self, weights: &[f32], settings: &QuantizerSettings) -> Fit {
        let step = 2.0 * settings.threshold * absmean(weights);
        Fit { step, scale: mean_of_kept(weights, step) }
    }
}
