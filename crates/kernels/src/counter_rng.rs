//! Random bits for stochastic rounding: a hash of a seed, a step, a stream and an element.
//!
//! There is no state to store, a run that goes on from a checkpoint rounds as it would have without, and
//! neither the order of the elements nor the number of threads matters. Rounded up or down at random, in
//! proportion to the distances, a number is kept on average (arXiv 1502.02551).

/// Random bits for the elements of one stream in one step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterRng {
    key: u32,
}

impl CounterRng {
    /// The bits of stream number `stream` at step `step`.
    pub fn new(seed: u64, step: u64, stream: usize) -> Self {
        Self { key: (hash([seed, step, stream as u64]) >> 32) as u32 }
    }

    /// A seed made of a seed and a number: for streams within streams.
    pub fn derive(seed: u64, number: u64) -> u64 {
        hash([seed, number])
    }

    /// 32 bits for element `index`: the finalizer of MurmurHash3.
    #[inline(always)]
    pub fn bits(self, index: u32) -> u32 {
        let mut h = index.wrapping_mul(0x9e37_79b9) ^ self.key;
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^ (h >> 16)
    }
}

/// SplitMix64, fed with the words one after the other.
fn hash<const N: usize>(words: [u64; N]) -> u64 {
    let mut state = 0u64;
    for word in words {
        state = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
    }
    state
}

/// A code for `value`, at most 127 · (1 + 2⁻²³) in magnitude: one of the two integers around it, the nearer
/// more probably, so that the mean over random bits is the value up to 2⁻¹⁶. An integer stays.
#[inline(always)]
pub(crate) fn round_to_code(value: f32, bits: u32) -> i8 {
    // One of 2¹⁵ numbers, evenly in (-½, ½). The largest, ½ - 2⁻¹⁶, leaves 127 · (1 + 2⁻²³) below 127.5.
    let shift = ((bits >> 17) as i32 as f32 + 0.5) * (1.0 / 32768.0) - 0.5;
    // Adding 1.5 · 2²³ rounds a small float to the nearest integer, which the low bits of the sum then hold.
    ((value + shift) + 12_582_912.0).to_bits() as i8
}

/// The integer nearest to `value`, half to even, as a code and as a number; `value` is at most 127.49 in
/// magnitude.
#[inline(always)]
pub(crate) fn nearest_code(value: f32) -> (i8, f32) {
    let sum = value + 12_582_912.0;
    (sum.to_bits() as i8, sum - 12_582_912.0)
}

/// The scale of codes for numbers whose largest magnitude has the bits `largest` (without sign), and its
/// inverse: 1/127 of the magnitude; both 0 where all numbers are too small to have an inverse; the scale NaN
/// where one is NaN or infinite.
#[inline(always)]
pub(crate) fn code_scale(largest: u32) -> (f32, f32) {
    const SMALLEST: f32 = 1e-30;
    let absmax = f32::from_bits(largest);
    if !absmax.is_finite() {
        (f32::NAN, 0.0)
    } else if absmax < SMALLEST {
        (0.0, 0.0)
    } else {
        (absmax / 127.0, 127.0 / absmax)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_and_magnitudes_never_pass_127() {
        let noise = CounterRng::new(1, 2, 3);
        let extremes = [0, u32::MAX, 1 << 17, u32::MAX - (1 << 17)];
        for bits in (0..10_000).map(|i| noise.bits(i)).chain(extremes) {
            for code in -127..=127i8 {
                assert_eq!(round_to_code(f32::from(code), bits), code);
            }
            let most = 127.0f32.next_up();
            assert_eq!((round_to_code(most, bits), round_to_code(-most, bits)), (127, -127));
        }
    }

    #[test]
    fn the_mean_is_kept() {
        // 4 standard deviations of a fair choice are 2 / √n = 0.0064.
        let n = 100_000;
        for (stream, value) in [0.1f32, 0.5, -0.3, 41.75, -126.9].into_iter().enumerate() {
            let noise = CounterRng::new(7, 0, stream);
            let sum: i64 = (0..n).map(|i| i64::from(round_to_code(value, noise.bits(i)))).sum();
            let mean = sum as f64 / f64::from(n);
            assert!((mean - f64::from(value)).abs() < 0.0064, "{value}: {mean}");
        }
    }

    #[test]
    fn scales_of_what_cannot_be_scaled() {
        assert_eq!(code_scale(0), (0.0, 0.0));
        assert_eq!(code_scale(1e-38f32.to_bits()), (0.0, 0.0));
        assert_eq!(code_scale(254f32.to_bits()), (2.0, 0.5));
        for bad in [f32::INFINITY, f32::NAN] {
            let (scale, inverse) = code_scale(bad.to_bits());
            assert!(scale.is_nan() && inverse == 0.0);
        }
    }

    #[test]
    fn bits_differ_by_step_stream_and_seed() {
        let first = |seed, step, stream| CounterRng::new(seed, step, stream).bits(0);
        let all =
            [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(1, 1, 0), first(0, 1, 1)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{all:?}");
        }
        assert_ne!(CounterRng::derive(1, 2), CounterRng::derive(2, 1));
    }
}
