//! DQT (direct quantized training, arXiv 2412.04787) with three levels: no latent weights, the weights are ternary
//! themselves.

use super::{Fit, Quantizer, QuantizerSettings, at_least_eps};

/// Step and scale are max|W|, which of weights that are −s, 0 or s is s. After every step of the optimizer training
/// rounds the weights onto these levels at random, up or down in proportion to the distances, so that they are what the
/// step made of them on average. A run begins with the codes and the scale of absmean.
#[derive(Debug)]
pub(super) struct Dqt;

impl Quantizer for Dqt {
    fn name(&self) -> &'static str {
        "dqt"
    }

    fn about(&self) -> &'static str {
        "no latent weights: max|W| of weights that are rounded at random after every step (arXiv 2412.04787)"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        // NaN and infinity must show in the scale.
        let bad = weights.iter().find(|w| !w.is_finite()).map(|w| w.abs());
        let scale =
            at_least_eps(bad.unwrap_or_else(|| weights.iter().fold(0f32, |most, w| most.max(w.abs()))));
        Fit { step: scale, scale }
    }

    fn on_grid(&self) -> bool {
        true
    }
}
