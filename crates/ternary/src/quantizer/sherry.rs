//! Sherry (arXiv 2601.07892): exactly one zero in every four weights, which 1.25 bits a weight can hold.

use super::{Fit, Quantizer, QuantizerSettings, at_least_eps};
use crate::Sparsity;

/// Of every four consecutive inputs the weight of least magnitude becomes 0 and the others their sign, that of 0 being
/// +1: 25 % zeros, no more. The scale is the mean magnitude of those that are kept. The gradient reaches all four.
/// Training is without Arenas, the residual `ε · W` that the paper's forward adds and takes away again.
#[derive(Debug)]
pub(super) struct Sherry;

impl Quantizer for Sherry {
    fn name(&self) -> &'static str {
        "sherry"
    }

    fn about(&self) -> &'static str {
        "3:4 sparse signs, scale the mean of |W| kept (arXiv 2601.07892): exactly 25 % zeros"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let (mut sum, mut kept) = (0f64, 0usize);
        for window in weights.chunks(Sparsity::SHERRY.window()) {
            for (i, w) in window.iter().enumerate() {
                // A weight that is NaN must show in the scale, wherever it stands.
                if Sparsity::SHERRY.keeps(window, i) || !w.is_finite() {
                    (sum, kept) = (sum + f64::from(w.abs()), kept + 1);
                }
            }
        }
        let scale = at_least_eps((sum / kept.max(1) as f64) as f32);
        Fit { step: scale, scale }
    }

    fn signs(&self) -> bool {
        true
    }

    fn sparsity(&self) -> Option<Sparsity> {
        Some(Sparsity::SHERRY)
    }
}
