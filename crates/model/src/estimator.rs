//! What the quantizer makes of the gradients of a step: straight-through estimators other than the identity, and the
//! gradients of learned scales.

use tritforge_kernels::parallel_for_each;
use tritforge_ternary::{Granularity, Ste};

use crate::linear::{LearnedScales, Linear};
use crate::{Decoder, Gradients, TrainingCodes};

impl Decoder {
    /// Turns the gradients of ternary values into those of latent weights, element by element, and adds the gradients of
    /// learned scales and what weights with code 0 get through their bias. All are linear in the gradients, so that they may follow the sum over all micro-batches of a
    /// step. Weights that are not quantized, and those that are not trained, have none; learned scales come with an
    /// estimator of their own, and `ste` is not used.
    ///
    /// # Panics
    /// If the gradients are another model's.
    pub fn apply_ste(&self, ste: Ste, gradients: &mut Gradients) {
        let changed = self.blocks.iter().flat_map(|block| &block.projections).any(changes_gradients);
        let dead_zone = self.config().dead_zone_bias.is_some();
        if ste == Ste::Identity && !self.config().learns_scales() && !changed && !dead_zone {
            return;
        }
        let blocks = self.blocks.iter().map(|b| b.projections.iter().zip(b.projection_indices).collect());
        for matrices in blocks.chain([self.ternary_tables().collect::<Vec<_>>()]) {
            for (linear, index) in matrices {
                let Some(latent) = linear.latent() else { continue };
                // Of a frozen parameter, or one whose gradient is 0, there is nothing to mask.
                let Some(gradient) = gradients.get_mut(index) else { continue };
                assert_eq!(gradient.len(), latent.len(), "a gradient for every weight");
                match linear.learned() {
                    None if changes_gradients(linear) => derive(linear, &latent, gradient),
                    None => mask(ste, linear, &latent, gradient),
                    Some(learned) => {
                        let of_scales = learn(linear, learned, &latent, gradient);
                        gradients.add_to(learned.index, &of_scales);
                    }
                }
                // Behind the mask: it does not pass through the rounding.
                linear.add_dead_zone_gradient(&latent, index, gradients);
            }
        }
    }
}

/// Whether what training sees of a weight has a derivative of its own.
fn changes_gradients(linear: &Linear) -> bool {
    matches!(linear.training_codes(), TrainingCodes::Soft { .. } | TrainingCodes::Residual { .. })
}

/// Makes the gradient of what training saw that of its weight [out, in].
fn derive(linear: &Linear, latent: &[f32], gradient: &mut [f32]) {
    let Some(fitted) = linear.fitted() else { return };
    linear.training_codes().gradients(latent, linear.dims().1, fitted, gradient);
}

/// Masks the gradient of a weight [out, in].
fn mask(ste: Ste, linear: &Linear, latent: &[f32], gradient: &mut [f32]) {
    let Some(fitted) = linear.fitted() else { return };
    let (_, cols) = linear.dims();
    let rows = latent.chunks_exact(cols).zip(gradient.chunks_exact_mut(cols)).enumerate();
    parallel_for_each(rows, |(row, (weights, gradients))| {
        let (inverses, scales) = (fitted.inverse_steps(row), fitted.scales().row(row));
        let mut codes = vec![0i8; cols];
        fitted.codes(row, cols, weights, &mut codes);
        let width = cols / scales.len();
        let groups = weights.chunks_exact(width).zip(gradients.chunks_exact_mut(width));
        let steps = inverses.iter().zip(scales).zip(codes.chunks_exact(width));
        for ((weights, gradients), ((inverse, scale), codes)) in groups.zip(steps) {
            ste.mask(weights, codes, *inverse, *scale, gradients);
        }
    });
}

/// Masks the gradient of a weight [out, in] as its learned scales have it, and gives the gradient of these. Sums are in
/// f64: of a row or a group in its order, of a tensor by rows.
fn learn(linear: &Linear, learned: &LearnedScales, latent: &[f32], gradient: &mut [f32]) -> Vec<f32> {
    let ((quantizer, granularity), (rows, cols)) = (linear.quantizer(), linear.dims());
    let Some(rule) = quantizer.learned() else { return Vec::new() };
    let alphas = learned.values.read();
    let width = granularity.width(rows, cols).min(cols);
    let per_row = cols / width;
    let mut sums = vec![0f64; rows * per_row];
    let each =
        latent.chunks_exact(cols).zip(gradient.chunks_exact_mut(cols)).zip(sums.chunks_exact_mut(per_row));
    parallel_for_each(each.enumerate(), |(row, ((weights, gradients), sums))| {
        let groups = weights.chunks_exact(width).zip(gradients.chunks_exact_mut(width)).zip(sums);
        for (group, ((weights, gradients), sum)) in groups.enumerate() {
            let part = if granularity == Granularity::Tensor { 0 } else { row * per_row + group };
            *sum = quantizer.learn(alphas[part], weights, gradients);
        }
    });
    if granularity == Granularity::Tensor {
        sums = vec![sums.iter().sum()];
    }
    // While the quantization sets in, the forward sees that part of it.
    let factor = rule.gradient_scale(granularity.width(rows, cols), rows * cols) * f64::from(linear.blend());
    sums.iter().map(|sum| (sum * factor) as f32).collect()
}
