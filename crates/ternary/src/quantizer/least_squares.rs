//! The codes of absmean with the scale that is best for them: absmean's own scale is not the one of least squared
//! error for its codes.

use super::{Fit, Quantizer, QuantizerSettings, absmean, mean_of_kept};

/// The step is that of absmean; the scale `Σ|W||q| / Σ|q|` minimizes `Σ (W − scale · q)²`.
#[derive(Debug)]
pub(super) struct LeastSquares;

impl Quantizer for LeastSquares {
    fn name(&self) -> &'static str {
        "least_squares"
    }

    fn about(&self) -> &'static str {
        "the codes of absmean with the scale of least squared error, Σ|W||q| / Σ|q|"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let step = absmean(weights);
        Fit { step, scale: mean_of_kept(weights, step) }
    }
}
