//! Noise on the embeddings in training (NEFTune, Jain et al. 2023, arXiv 2310.05914).

use tritforge_kernels::{CounterRng, parallel_for_each};

use crate::ModelError;

/// Noise for the embeddings of a pass: to each of the d numbers of a token one drawn evenly from ± `alpha / √(L·d)`, L
/// being the tokens of its segment. Each number depends on the seed, the row and the place in the row alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EmbeddingNoise {
    /// How much; 0 is none.
    pub alpha: f32,
    /// A number of the run and the step.
    pub seed: u64,
    /// The number of the pass's first row among those of the step, so that the rows of a step get the same noise in one
    /// micro-batch or in several.
    pub first_row: usize,
}

impl EmbeddingNoise {
    /// Adds it to embeddings x [rows · length, width] whose segments have these lengths. The result does not depend on the
    /// number of threads.
    pub(super) fn add(&self, x: &mut [f32], width: usize, length: usize, segments: &[usize]) {
        let lengths = segments.iter().flat_map(|segment| std::iter::repeat_n(*segment, *segment));
        let tokens = x.chunks_exact_mut(width).zip(lengths).enumerate();
        parallel_for_each(tokens, |(token, (numbers, segment))| {
            let noise = CounterRng::new(self.seed, 0, self.first_row + token / length);
            let first = (token % length * width) as u32;
            let most = self.most(segment, width);
            for (i, x) in (0u32..).zip(numbers) {
                *x += most * even(noise.bits(first.wrapping_add(i)));
            }
        });
    }

    /// Whether it is a noise.
    ///
    /// # Errors
    /// If `alpha` is negative or not finite.
    pub(super) fn check(&self) -> Result<(), ModelError> {
        if self.alpha >= 0.0 && self.alpha.is_finite() {
            return Ok(());
        }
        let what = "alpha of the embeddings' noise";
        let expected = "a number of at least 0".to_string();
        Err(ModelError::Input { what, found: self.alpha.to_string(), expected })
    }

    fn most(&self, segment: usize, width: usize) -> f32 {
        (f64::from(self.alpha) / ((segment * width) as f64).sqrt()) as f32
    }
}

/// One of 2²³ numbers, evenly in (−1, 1).
#[inline(always)]
fn even(bits: u32) -> f32 {
    ((bits >> 9) as f32 + 0.5) * (1.0 / 4_194_304.0) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_within_one() {
        assert!(even(0) > -1.0 && even(u32::MAX) < 1.0 && even(0) == -even(u32::MAX));
    }

    /// transformers' hook: `uniform_(-a, a)` with `a = alpha / sqrt(L · d)`.
    #[test]
    fn it_is_even_within_alpha_over_the_root_of_length_and_width() {
        let (width, length) = (64, 96);
        let noise = EmbeddingNoise { alpha: 5.0, seed: 3, first_row: 0 };
        let mut x = vec![0f32; 2 * length * width];
        // A whole row, and a row of two segments.
        noise.add(&mut x, width, length, &[length, 32, 64]);
        let parts = [(0, length), (length, 32), (length + 32, 64)];
        for (first, segment) in parts {
            let own = &x[first * width..][..segment * width];
            let most = 5.0 / ((segment * width) as f64).sqrt();
            let n = own.len() as f64;
            let largest = own.iter().fold(0f64, |m, x| m.max(f64::from(x.abs())));
            assert!(largest < most * (1.0 + 1e-6) && largest > 0.99 * most, "{largest} {most}");
            let mean = own.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
            let square = own.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n;
            // Five standard deviations of the mean and of the mean square of n even numbers.
            assert!(mean.abs() < 5.0 * most / (3.0 * n).sqrt(), "{mean}");
            let off = square - most * most / 3.0;
            assert!(off.abs() < 5.0 * most * most * (4.0 / 45.0 / n).sqrt(), "{square}");
        }
        // Rows differ, and a row of a later micro-batch gets what it gets in the first.
        let mut second = vec![0f32; length * width];
        let later = EmbeddingNoise { first_row: 1, ..noise };
        later.add(&mut second, width, length, &[32, 64]);
        assert_eq!(second, x[length * width..]);
        let bits = |x: &[f32]| x.iter().map(|x| x.is_sign_negative()).collect::<Vec<_>>();
        assert_ne!(bits(&x[..length * width]), bits(&second));
    }
}
