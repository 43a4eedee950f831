//! Straight-through estimators other than the identity: what of the gradients of a step passes to latent weights.

use tritforge_kernels::parallel_for_each;
use tritforge_ternary::Ste;

use crate::{Decoder, Gradients};

impl Decoder {
    /// Multiplies the gradients of latent weights by what the estimator lets pass, element by element. It is linear in
    /// the gradients, so that it may follow the sum over all micro-batches of a step. Weights that are not quantized, and
    /// those that are not trained, have none.
    ///
    /// # Panics
    /// If the gradients are another model's.
    pub fn apply_ste(&self, ste: Ste, gradients: &mut Gradients) {
        if ste == Ste::Identity {
            return;
        }
        let blocks = self.blocks.iter().map(|b| b.projections.iter().zip(b.projection_indices).collect());
        for matrices in blocks.chain([self.ternary_tables().collect::<Vec<_>>()]) {
            for (linear, index) in matrices {
                let (Some(fitted), Some(latent)) = (linear.fitted(), linear.latent()) else { continue };
                // Of a frozen parameter, or one whose gradient is 0, there is nothing to mask.
                let Some(gradient) = gradients.get_mut(index) else { continue };
                let (_, cols) = linear.dims();
                assert_eq!(gradient.len(), latent.len(), "a gradient for every weight");
                let rows = latent.chunks_exact(cols).zip(gradient.chunks_exact_mut(cols)).enumerate();
                parallel_for_each(rows, |(row, (weights, gradients))| {
                    let (inverses, scales) = (fitted.inverse_steps(row), fitted.scales().row(row));
                    let width = cols / scales.len();
                    let groups = weights.chunks_exact(width).zip(gradients.chunks_exact_mut(width));
                    for ((weights, gradients), (inverse, scale)) in groups.zip(inverses.iter().zip(scales)) {
                        ste.mask(weights, *inverse, *scale, gradients);
                    }
                });
            }
        }
    }
}
