//! The absmean weight quantizer of BitNet b1.58 (arXiv 2402.17764, eq. 1–3).

use super::{Fit, Quantizer, QuantizerSettings};
use crate::EPS;

/// Step and scale are `max(mean|W|, 1e-5)`.
#[derive(Debug)]
pub(super) struct Absmean;

impl Quantizer for Absmean {
    fn name(&self) -> &'static str {
        "absmean"
    }

    fn about(&self) -> &'static str {
        "the mean magnitude (BitNet b1.58, arXiv 2402.17764); 31 % zeros on a Gaussian"
    }

    fn fit(&self, weights: &[f32], _: &QuantizerSettings) -> Fit {
        let scale = absmean(weights);
        Fit { step: scale, scale }
    }
}

/// Elements summed into one partial sum. Partial sums are added in order, so the result depends on the data
/// alone.
const CHUNK: usize = 4096;

/// Lanes of a partial sum; fixed, so that every instruction set adds in the same order.
const LANES: usize = 8;

/// The absmean scale `max(mean|W|, 1e-5)` of a tensor.
///
/// The sum is taken in f64 in a fixed order: it depends neither on threads nor on the instruction set. An
/// empty slice gives 1e-5. A NaN or infinite weight gives a NaN or infinite scale, which the caller is to
/// refuse.
pub fn absmean(weights: &[f32]) -> f32 {
    if weights.is_empty() {
        return EPS;
    }
    let sum: f64 = weights.chunks(CHUNK).map(chunk_abs_sum).sum();
    let mean = (sum / weights.len() as f64) as f32;
    // `f32::max` would drop a NaN.
    if mean < EPS { EPS } else { mean }
}

fn chunk_abs_sum(chunk: &[f32]) -> f64 {
    let mut lanes = [0f64; LANES];
    let (blocks, tail) = chunk.as_chunks::<LANES>();
    for block in blocks {
        for (lane, w) in lanes.iter_mut().zip(block) {
            *lane += f64::from(w.abs());
        }
    }
    for (lane, w) in lanes.iter_mut().zip(tail) {
        *lane += f64::from(w.abs());
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// Ternary codes `clamp(round_half_even(W · (1/scale)), -1, 1)`, element by element.
///
/// # Panics
/// If the slices differ in length.
pub fn weight_codes(weights: &[f32], scale: f32, codes: &mut [i8]) {
    assert_eq!(weights.len(), codes.len(), "one code for every weight");
    self::codes(weights, 1.0 / scale, codes);
}

/// The codes by the inverse of a step.
pub(super) fn codes(weights: &[f32], inverse: f32, codes: &mut [i8]) {
    for (code, w) in codes.iter_mut().zip(weights) {
        *code = (w * inverse).round_ties_even().clamp(-1.0, 1.0) as i8;
    }
}
