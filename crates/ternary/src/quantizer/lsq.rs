//! LSQ (Learned Step Size Quantization, arXiv 1902.08153) with three levels.

use super::{Fit, LearnedScale, Quantizer, QuantizerSettings, absmean};

/// The value is `α · clamp(round(w/α), −1, 1)`, so step and scale are the trained α. With u = w/α its derivative is
/// round(u) − u for |u| < 1 and sign(u) beyond (eq. 3 there), and a weight gets its gradient where |u| < 1 (eq. 5).
/// α starts at 2 · mean|W| (section 2.1) and its gradient is multiplied by 1/√n, n the number of weights that share it
/// (section 2.2).
#[derive(Debug)]
pub(super) struct Lsq;

impl Quantizer for Lsq {
    fn name(&self) -> &'static str {
        "lsq"
    }

    fn about(&self) -> &'static str {
        "a learned scale α · clamp(round(W/α)), from 2 · mean|W| (LSQ, arXiv 1902.08153)"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        LearnedScale::fit(self, self.initial(weights))
    }

    fn learned(&self) -> Option<&dyn LearnedScale> {
        Some(self)
    }
}

impl LearnedScale for Lsq {
    fn initial(&self, weights: &[f32]) -> f32 {
        2.0 * absmean(weights)
    }

    fn fit(&self, alpha: f32) -> Fit {
        Fit { step: alpha, scale: alpha }
    }

    fn derivatives(&self, u: f32) -> (f32, bool) {
        let within = u.abs() < 1.0;
        (if within { u.round_ties_even() - u } else { u.signum() }, within)
    }

    fn gradient_scale(&self, sharing: usize, _: usize) -> f64 {
        1.0 / (sharing.max(1) as f64).sqrt()
    }
}
