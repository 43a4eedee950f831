//! Cross-entropy of a row of logits and its gradient, in place: alone, or with terms that change it.

use crate::Backend;
use crate::lanes::{LANES, multiversion, padded, sum};
use crate::softmax::{SEGMENT, exp_and_sum, log_of_sum, max};

/// What changes the loss of a target beside its cross-entropy; the default changes nothing.
///
/// With p the softmax of the row's n logits z, Z = Σ exp(z) and t the target the loss is
/// `w · ((1 − ε) · −ln p(t) + ε/n · Σ −ln p(v)) + c · ln²Z`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossTerms {
    /// ε, as in PyTorch's `cross_entropy` and transformers' `LabelSmoother`: the part of the target's probability that is
    /// spread over all n tokens, the target among them.
    pub label_smoothing: f32,
    /// c of the z-loss (PaLM, arXiv 2204.02311 §5), which keeps the normalizer Z near 1.
    pub z_loss: f32,
    /// Whether w is p(t), taken as a constant (dynamic fine-tuning, arXiv 2508.05629); else it is 1.
    pub dft: bool,
}

/// The loss of a target.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetLoss {
    /// With all terms, as the gradient has it.
    pub total: f32,
    /// −ln p(t).
    pub cross_entropy: f32,
}

/// Replaces a row of logits by `factor · (softmax − one-hot(target))`, the gradient of `factor · −ln
/// softmax[target]`, and returns `−ln softmax[target]`.
///
/// # Panics
/// If the target is outside the row.
pub fn cross_entropy_backward(logits: &mut [f32], target: usize, factor: f32) -> f32 {
    assert!(target < logits.len(), "target {target} is outside a vocabulary of {}", logits.len());
    row(Backend::active(), logits, target, factor)
}

multiversion! {
    fn row(logits: &mut [f32], target: usize, factor: f32) -> f32 {
        let largest = max(logits);
        let logit = logits[target];
        let total = exp_and_sum(logits, largest);
        let scale = factor / total;
        for x in &mut *logits {
            *x *= scale;
        }
        logits[target] -= factor;
        log_of_sum(largest, total) - logit
    }
}

/// Replaces a row of logits by the gradient of `factor` times the loss with these terms, and returns the loss. Without
/// any term it gives the bits of [`cross_entropy_backward`].
///
/// # Panics
/// If the target is outside the row.
pub fn cross_entropy_backward_with(
    logits: &mut [f32],
    target: usize,
    factor: f32,
    terms: LossTerms,
) -> TargetLoss {
    assert!(target < logits.len(), "target {target} is outside a vocabulary of {}", logits.len());
    row_with(Backend::active(), logits, target, factor, terms)
}

multiversion! {
    fn row_with(logits: &mut [f32], target: usize, factor: f32, terms: LossTerms) -> TargetLoss {
        let LossTerms { label_smoothing, z_loss, dft } = terms;
        let (largest, logit) = (max(logits), logits[target]);
        // Only smoothing needs the mean, which is a pass over the row.
        let mean = if label_smoothing > 0.0 { mean(logits) } else { logit };
        let total = exp_and_sum(logits, largest);
        let log_z = log_of_sum(largest, total);
        let weight = if dft { logits[target] / total } else { 1.0 };
        let own = factor * weight;
        let scale = (own + factor * (2.0 * z_loss * log_z)) / total;
        if label_smoothing > 0.0 {
            let uniform = own * label_smoothing / logits.len() as f32;
            for x in &mut *logits {
                *x = *x * scale - uniform;
            }
        } else {
            for x in &mut *logits {
                *x *= scale;
            }
        }
        logits[target] -= own * (1.0 - label_smoothing);
        let cross_entropy = log_z - logit;
        // ln Z less the mean of the logits by the smoothed distribution.
        let smoothed = cross_entropy + label_smoothing * (logit - mean);
        TargetLoss { total: weight * smoothed + z_loss * (log_z * log_z), cross_entropy }
    }
}

/// The mean of a row: by lanes within segments, then segment after segment in f64.
#[inline(always)]
fn mean(row: &[f32]) -> f32 {
    let mut total = 0f64;
    for segment in row.chunks(SEGMENT) {
        let mut acc = [0f32; LANES];
        let (blocks, rest) = segment.as_chunks::<LANES>();
        for block in blocks {
            for i in 0..LANES {
                acc[i] += block[i];
            }
        }
        if !rest.is_empty() {
            let rest = padded(rest, 0.0);
            for i in 0..LANES {
                acc[i] += rest[i];
            }
        }
        total += f64::from(sum(&acc));
    }
    (total / row.len() as f64) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_backend_gives_the_bits_of_the_scalar_one_and_no_terms_those_of_the_plain_loss() {
        let all = LossTerms { label_smoothing: 0.1, z_loss: 1e-3, dft: true };
        for len in [1, 15, 16, 77, 256, 700] {
            let logits: Vec<f32> = (0..len).map(|i| (i as f32 * 1.3).sin() * 4.0).collect();
            let run = |backend, terms| {
                let mut row = logits.clone();
                let loss = row_with(backend, &mut row, len / 2, 0.3, terms);
                (row.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), loss)
            };
            for backend in Backend::supported() {
                for terms in [all, LossTerms { dft: false, ..all }, LossTerms::default()] {
                    assert_eq!(run(backend, terms), run(Backend::Scalar, terms), "{backend:?} {len}");
                }
            }
            let mut row = logits.clone();
            let loss = super::cross_entropy_backward(&mut row, len / 2, 0.3);
            let (found, with) = run(Backend::active(), LossTerms::default());
            assert_eq!((with.total, with.cross_entropy), (loss, loss));
            assert!(found.iter().zip(&row).all(|(a, b)| *a == b.to_bits()), "{len}");
        }
    }

    #[test]
    fn the_loss_is_exact_and_the_gradient_sums_to_zero() {
        let logits: Vec<f32> = (0..77).map(|i| (i * 37 % 50) as f32 * 0.2 - 3.0).collect();
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        let mut row = logits.clone();
        let loss = super::cross_entropy_backward(&mut row, 5, 0.25);
        assert!((f64::from(loss) - (total.ln() - f64::from(logits[5]))).abs() < 1e-5);
        for (i, (g, x)) in row.iter().zip(&logits).enumerate() {
            let p = f64::from(*x).exp() / total - f64::from(u8::from(i == 5));
            assert!((f64::from(*g) - 0.25 * p).abs() < 1e-7);
        }
    }
}
