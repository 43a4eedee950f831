//! Cross-entropy of a row of logits and its gradient, in place.

use crate::Backend;
use crate::lanes::multiversion;
use crate::softmax::{exp_and_sum, log_of_sum, max};

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

#[cfg(test)]
mod tests {
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
