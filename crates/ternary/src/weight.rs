//! The absmean weight quantizer of BitNet b1.58 (arXiv 2402.17764, eq. 1–3): one scale a tensor, codes in
//! {-1, 0, +1}.

use crate::EPS;

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
    let inverse = 1.0 / scale;
    for (code, w) in codes.iter_mut().zip(weights) {
        *code = (w * inverse).round_ties_even().clamp(-1.0, 1.0) as i8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absmean_is_the_mean_of_magnitudes() {
        assert_eq!(absmean(&[1.0, -3.0, 0.5, -0.5]), 1.25);
        assert_eq!(absmean(&[]), EPS);
        assert_eq!(absmean(&[0.0; 100]), EPS);
        assert!(absmean(&[1.0, f32::NAN]).is_nan());
    }

    #[test]
    fn ties_round_to_even() {
        // ±0.5 of the scale is a tie: to even means to 0. Away from zero would give ±1.
        let mut codes = [9i8; 6];
        weight_codes(&[1.0, -1.0, 1.0001, -1.0001, 3.0, -7.0], 2.0, &mut codes);
        assert_eq!(codes, [0, 0, 1, -1, 1, -1]);
    }

    #[test]
    fn zero_fraction_of_a_gaussian_is_31_percent() {
        // P(|x| < mean|x|/2) for a standard normal: erf(sqrt(2/π)/2/√2) = 0.3101.
        let n = 200_000;
        let mut state = 1u64;
        let mut uniform = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
        };
        let weights: Vec<f32> = (0..n)
            .map(|_| ((-2.0 * uniform().ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32)
            .collect();
        let mut codes = vec![0i8; n];
        weight_codes(&weights, absmean(&weights), &mut codes);
        let zeros = codes.iter().filter(|c| **c == 0).count() as f64 / n as f64;
        assert!((zeros - 0.3101).abs() < 0.005, "zero fraction {zeros}");
    }
}
