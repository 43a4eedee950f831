//! Hadamard rotation of activations before they are rounded (BitNet v2, arXiv 2504.18415): it spreads outliers over their
//! block, so that few bits are enough.
//!
//! A row is rotated in blocks of the largest power of two that divides its width, at most [`MOST`]. A block x of n numbers
//! becomes `H·x / √n` with `H[i][j] = (-1)^popcount(i & j)`, Sylvester's matrix. That matrix is symmetric and orthonormal, so
//! that the same function is its inverse, and the backward of the forward.
//!
//! The definition is the fast transform: for h = 1, 2, 4, … below n the numbers `h` apart become their sum and their
//! difference, and all are multiplied by the f32 nearest to 1/√n in the end. Every number is rounded in that order on every
//! instruction set, so that all give the same bits.

use crate::lanes::multiversion;
use crate::{Backend, pool};

/// The largest block.
const MOST: usize = 256;

/// Elements from which threads share the work.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// The number of consecutive inputs that are rotated together in rows of `width`; 1 where it is odd.
pub fn hadamard_block(width: usize) -> usize {
    1 << width.trailing_zeros().min(MOST.trailing_zeros())
}

/// Rotates rows of `width` numbers in place, block by block.
///
/// # Panics
/// If the numbers are no whole rows.
pub fn hadamard_in_place(x: &mut [f32], width: usize) {
    assert!(width > 0 && x.len().is_multiple_of(width), "{} numbers are no whole rows of {width}", x.len());
    let (backend, block) = (Backend::active(), hadamard_block(width));
    if block == 1 {
        return;
    }
    if x.len() < PARALLEL_ELEMENTS {
        return blocks(backend, block, x);
    }
    let chunk = (1 << 14) / block * block;
    pool::for_each(x.chunks_mut(chunk), |part| blocks(backend, block, part));
}

multiversion! {
    fn blocks(block: usize, x: &mut [f32]) {
        let factor = 1.0 / (block as f32).sqrt();
        for x in x.chunks_exact_mut(block) {
            let mut half = 1;
            while half < block {
                for pair in x.chunks_exact_mut(2 * half) {
                    let (low, high) = pair.split_at_mut(half);
                    for (a, b) in low.iter_mut().zip(high) {
                        (*a, *b) = (*a + *b, *a - *b);
                    }
                }
                half *= 2;
            }
            x.iter_mut().for_each(|x| *x *= factor);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(n: usize) -> Vec<f32> {
        (0..n).map(|i| (i as f32 * 1.7 + 0.3).sin()).collect()
    }

    #[test]
    fn it_is_sylvesters_matrix_over_the_root() {
        for width in [2, 6, 12, 64, 96, 256, 768, 1536] {
            let block = hadamard_block(width);
            assert_eq!(
                (width % block, block <= MOST, width / block % 2 == 1 || block == MOST),
                (0, true, true)
            );
            let x = numbers(3 * width);
            let mut y = x.clone();
            hadamard_in_place(&mut y, width);
            for (x, y) in x.chunks_exact(block).zip(y.chunks_exact(block)) {
                for (i, y) in y.iter().enumerate() {
                    let sign = |j: usize| if (i & j).count_ones().is_multiple_of(2) { 1.0 } else { -1.0 };
                    let sum: f64 = x.iter().enumerate().map(|(j, x)| sign(j) * f64::from(*x)).sum();
                    let expected = sum / (block as f64).sqrt();
                    assert!((f64::from(*y) - expected).abs() < 2e-6, "{width}: {y} {expected}");
                }
            }
        }
    }

    #[test]
    fn it_is_its_own_inverse_and_keeps_lengths() {
        for width in [5, 24, 512] {
            let x = numbers(4 * width);
            let mut y = x.clone();
            hadamard_in_place(&mut y, width);
            let norm = |x: &[f32]| x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
            assert!((norm(&x) / norm(&y) - 1.0).abs() < 1e-6);
            hadamard_in_place(&mut y, width);
            assert!(x.iter().zip(&y).all(|(x, y)| (x - y).abs() < 1e-6));
        }
    }

    #[test]
    fn every_backend_and_number_of_threads_gives_the_same_bits() {
        let x = numbers((PARALLEL_ELEMENTS / 768 + 2) * 768);
        let mut whole = x.clone();
        hadamard_in_place(&mut whole, 768);
        for backend in Backend::supported() {
            let mut y = x.clone();
            blocks(backend, 256, &mut y);
            assert!(whole.iter().zip(&y).all(|(a, b)| a.to_bits() == b.to_bits()), "{backend}");
        }
    }
}
