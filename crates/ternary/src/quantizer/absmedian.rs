//! Absmedian: the median magnitude in place of the mean, which outliers do not move (arXiv 2407.09527, the
//! default of its reference code, `bitlinear`).

use super::{Fit, Quantizer, QuantizerSettings, at_least_eps};

/// Step and scale are `max(median|W|, 1e-5)`; of an even number of weights the lower of the two in the middle, as
/// `torch.median` has it.
#[derive(Debug)]
pub(super) struct Absmedian;

impl Quantizer for Absmedian {
    fn name(&self) -> &'static str {
        "absmedian"
    }

    fn about(&self) -> &'static str {
        "the median magnitude (arXiv 2407.09527); 26 % zeros on a Gaussian"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let mut magnitudes: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
        let middle = magnitudes.len().saturating_sub(1) / 2;
        let scale = match magnitudes.iter().find(|m| !m.is_finite()) {
            Some(bad) => *bad,
            None if magnitudes.is_empty() => 0.0,
            None => *magnitudes.select_nth_unstable_by(middle, f32::total_cmp).1,
        };
        let scale = at_least_eps(scale);
        Fit { step: scale, scale }
    }
}
