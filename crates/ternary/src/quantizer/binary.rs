//! Binary weights (XNOR-Net, arXiv 1603.05279, eq. 6; BitNet, arXiv 2310.11453): signs, and the scale that is best for
//! them.

use super::{Fit, Quantizer, QuantizerSettings, absmean};

/// The code is sign(w), that of 0 being +1; the scale is mean|W|, which minimizes `Σ (w − scale · code)²`. BitNet
/// subtracts the mean of W from it first; no packing has room for a mean, and this quantizer does not.
#[derive(Debug)]
pub(super) struct Binary;

impl Quantizer for Binary {
    fn name(&self) -> &'static str {
        "binary"
    }

    fn about(&self) -> &'static str {
        "sign(W) · mean|W| (arXiv 1603.05279), no zeros: sign(0) is +1"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let scale = absmean(weights);
        Fit { step: scale, scale }
    }

    fn signs(&self) -> bool {
        true
    }
}
