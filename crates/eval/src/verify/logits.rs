//! Comparing logits: largest difference, top-1 agreement, Kullback–Leibler divergence.

use serde::Serialize;
use tritforge_kernels::log_sum_exp;

use crate::EvalError;

/// Two models' logits over the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Comparison {
    /// The largest difference of a logit.
    pub max_difference: f32,
    /// Share of positions at which the largest logit is the same token's.
    pub top1_agreement: f64,
    /// Mean KL(left ‖ right) in nats a position.
    pub mean_kl: f64,
}

impl Comparison {
    /// Whether all three are finite numbers.
    pub fn is_finite(&self) -> bool {
        self.max_difference.is_finite() && self.top1_agreement.is_finite() && self.mean_kl.is_finite()
    }

    /// Compares rows of logits [tokens, vocab].
    pub fn of(left: &[f32], right: &[f32], vocab: usize) -> Self {
        let rows = left.len() / vocab;
        let mut agree = 0usize;
        let mut kl = 0f64;
        for (a, b) in left.chunks_exact(vocab).zip(right.chunks_exact(vocab)) {
            agree += usize::from(argmax(a) == argmax(b));
            let (za, zb) = (f64::from(log_sum_exp(a)), f64::from(log_sum_exp(b)));
            kl += a
                .iter()
                .zip(b)
                .map(|(a, b)| {
                    let (la, lb) = (f64::from(*a) - za, f64::from(*b) - zb);
                    la.exp() * (la - lb)
                })
                .sum::<f64>();
        }
        Self {
            max_difference: max_difference(left, right),
            top1_agreement: agree as f64 / rows as f64,
            mean_kl: kl / rows as f64,
        }
    }
}

/// The largest difference of two numbers; infinite if one is NaN or infinite, also where both are and have
/// the same bits, or if the lengths differ.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter().zip(b).fold(0f32, |m, (a, b)| {
        // Of NaN or infinity the difference is NaN or infinite, of equal infinities NaN.
        let d = (a - b).abs();
        if d.is_nan() { f32::INFINITY } else { m.max(d) }
    })
}

/// The token of the largest logit; of equal ones the first.
pub(crate) fn argmax(row: &[f32]) -> u32 {
    let mut best = 0;
    for (i, x) in row.iter().enumerate() {
        if *x > row[best] {
            best = i;
        }
    }
    best as u32
}

/// `count` tokens, each the largest logit of what `next` gives for the token before (none for the first).
pub(crate) fn greedy_tokens(
    count: usize,
    mut next: impl FnMut(Option<u32>) -> Result<Vec<f32>, EvalError>,
) -> Result<Vec<u32>, EvalError> {
    let mut tokens = Vec::with_capacity(count);
    while tokens.len() < count {
        let logits = next(tokens.last().copied())?;
        tokens.push(argmax(&logits));
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identical_logits_differ_by_nothing() {
        let a = [1.0, 2.0, 3.0, 0.5];
        let c = Comparison::of(&a, &a, 2);
        assert_eq!((c.max_difference, c.top1_agreement), (0.0, 1.0));
        assert!(c.mean_kl.abs() < 1e-12);
    }

    #[test]
    fn kl_is_that_of_the_definition() {
        // p = (.5, .5), q = (.25, .75): KL = .5 ln 2 + .5 ln (2/3).
        let c = Comparison::of(&[0.0, 0.0], &[0.25f32.ln(), 0.75f32.ln()], 2);
        let expected = 0.5 * 2f64.ln() + 0.5 * (2.0f64 / 3.0).ln();
        assert!((c.mean_kl - expected).abs() < 1e-6, "{}", c.mean_kl);
        assert_eq!(c.top1_agreement, 0.0);
    }

    #[test]
    fn a_nan_is_an_infinite_difference() {
        assert_eq!(max_difference(&[1.0], &[f32::NAN]), f32::INFINITY);
        assert_eq!(max_difference(&[1.0], &[1.0, 2.0]), f32::INFINITY);
        // In both, bit for bit: the models are equally broken, not verified.
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert_eq!(max_difference(&[0.0, bad], &[0.0, bad]), f32::INFINITY);
            assert!(!Comparison::of(&[0.0, bad], &[0.0, bad], 2).is_finite());
        }
        assert_eq!(max_difference(&[0.0], &[-0.0]), 0.0);
    }
}
