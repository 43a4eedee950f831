//! SEQ (stretched elastic quantization of ParetoQ, arXiv 2502.02631) with three levels.

use super::{Fit, LearnedScale, Quantizer, QuantizerSettings, at_least_eps};

/// Beyond this part of α a weight gets no gradient (`clip_val` of the reference code).
const CLIP: f32 = 0.99;

/// The value is `α · round(1.5 · clip(w/α, ±0.99)) / 1.5`: codes differ from 0 where |w| > α/3, and their scale, which
/// is what is exported, is 2α/3. With u = w/α the derivative with respect to α is round(1.5 u)/1.5 − u for |u| ≤ 0.99
/// and sign(u) beyond, as the reference code has it (the value there is ± 2α/3); a weight gets its gradient where
/// |u| ≤ 0.99. α starts at max|W|, and its gradient is multiplied by 1/√n, n the number of weights of the matrix.
#[derive(Debug)]
pub(super) struct Seq;

impl Quantizer for Seq {
    fn name(&self) -> &'static str {
        "seq"
    }

    fn about(&self) -> &'static str {
        "a learned α from max|W|, codes ±1 beyond α/3, scale 2α/3 (SEQ of ParetoQ, arXiv 2502.02631)"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        LearnedScale::fit(self, self.initial(weights))
    }

    fn learned(&self) -> Option<&dyn LearnedScale> {
        Some(self)
    }
}

impl LearnedScale for Seq {
    fn initial(&self, weights: &[f32]) -> f32 {
        // NaN and infinity must show in the scale.
        let bad = weights.iter().find(|w| !w.is_finite());
        at_least_eps(
            bad.copied().unwrap_or_else(|| weights.iter().fold(0f32, |most, w| most.max(w.abs()))).abs(),
        )
    }

    fn fit(&self, alpha: f32) -> Fit {
        let scale = at_least_eps(2.0 * alpha / 3.0);
        Fit { step: scale, scale }
    }

    fn derivatives(&self, u: f32) -> (f32, bool) {
        let within = u.abs() <= CLIP;
        (if within { (1.5 * u).round_ties_even() / 1.5 - u } else { u.signum() }, within)
    }

    fn gradient_scale(&self, _: usize, total: usize) -> f64 {
        1.0 / (total.max(1) as f64).sqrt()
    }
}
