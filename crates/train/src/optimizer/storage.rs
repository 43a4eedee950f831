//! How numbers are kept between steps: as f32, or as bf16 with stochastic rounding.
//!
//! A small change to a bf16 number is lost when it is rounded to the nearest: weights and slow averages would stand still.
//! Rounded up or down at random, in proportion to the distances, it is kept on average (arXiv 2010.06192). The random
//! bits are a hash of seed, step, parameter and element: there is no state to store, and a run that goes on
//! from a checkpoint rounds as it would have without.

use half::bf16;

/// The types in which state and weights can be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StoredType {
    /// Four bytes, exact.
    F32,
    /// Two bytes, rounded stochastically.
    Bf16,
}

impl StoredType {
    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            StoredType::F32 => 4,
            StoredType::Bf16 => 2,
        }
    }
}

/// A number as it is kept; arithmetic is always in f32.
pub(crate) trait Stored: Copy + Send + Sync {
    /// Whether [`Stored::store`] looks at its random bits.
    const ROUNDS: bool;
    /// The number in f32, exactly.
    fn load(self) -> f32;
    /// `value`, rounded by the low 16 bits of `random`.
    fn store(value: f32, random: u32) -> Self;
}

impl Stored for f32 {
    const ROUNDS: bool = false;

    #[inline(always)]
    fn load(self) -> f32 {
        self
    }

    #[inline(always)]
    fn store(value: f32, _: u32) -> Self {
        value
    }
}

impl Stored for bf16 {
    const ROUNDS: bool = true;

    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    fn store(value: f32, random: u32) -> Self {
        // The bits below the cut carry into those above with a probability proportional to their value. Infinities have no
        // bits below the cut and stay; a NaN must not overflow into another number.
        let bits = value.to_bits();
        let fraction = if value.is_finite() { random & 0xffff } else { 0 };
        let quiet = if value.is_nan() { 0x0040_0000 } else { 0 };
        bf16::from_bits(((bits | quiet).wrapping_add(fraction) >> 16) as u16)
    }
}

/// Numbers of one parameter, in either type.
#[derive(Debug, Clone, PartialEq)]
pub enum Buffer {
    /// Four bytes a number.
    F32(Vec<f32>),
    /// Two bytes a number.
    Bf16(Vec<bf16>),
}

impl Buffer {
    /// `len` zeros.
    pub fn zeros(kind: StoredType, len: usize) -> Self {
        match kind {
            StoredType::F32 => Buffer::F32(vec![0.0; len]),
            StoredType::Bf16 => Buffer::Bf16(vec![bf16::ZERO; len]),
        }
    }

    /// How many numbers it holds.
    pub fn len(&self) -> usize {
        match self {
            Buffer::F32(values) => values.len(),
            Buffer::Bf16(values) => values.len(),
        }
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Random bits for the elements of one parameter in one step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Noise {
    key: u32,
}

impl Noise {
    /// The bits of parameter number `parameter` at step `step`.
    pub(crate) fn new(seed: u64, step: u64, parameter: usize) -> Self {
        // SplitMix64, fed with the three numbers one after the other.
        let mut state = 0u64;
        for word in [seed, step, parameter as u64] {
            state = (state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
            state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            state ^= state >> 31;
        }
        Self { key: (state >> 32) as u32 }
    }

    /// 32 bits for element `index`: the finalizer of MurmurHash3.
    #[inline(always)]
    pub(crate) fn bits(self, index: u32) -> u32 {
        let mut h = index.wrapping_mul(0x9e37_79b9) ^ self.key;
        h = (h ^ (h >> 16)).wrapping_mul(0x85eb_ca6b);
        h = (h ^ (h >> 13)).wrapping_mul(0xc2b2_ae35);
        h ^ (h >> 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_keeps_the_mean_and_what_needs_no_rounding() {
        let noise = Noise::new(1, 2, 3);
        for value in [1.0f32, -0.5, 0.0, 3.140625, f32::INFINITY, f32::NEG_INFINITY] {
            for i in 0..100 {
                assert_eq!(bf16::store(value, noise.bits(i)).load(), value);
            }
        }
        assert!((0..100).all(|i| bf16::store(f32::from_bits(0x7f80_0001), noise.bits(i)).load().is_nan()));
        // A third of the way between two neighbours: a third goes up. 3 standard deviations are 0.0045.
        let (low, high) = (1.0f32, 1.0078125);
        let value = low + (high - low) / 3.0;
        let n = 100_000;
        let ups = (0..n).filter(|i| bf16::store(value, noise.bits(*i)).load() == high).count();
        assert!((ups as f64 / f64::from(n) - 1.0 / 3.0).abs() < 0.0045, "{ups}");
        assert!((0..n).all(|i| [low, high].contains(&bf16::store(value, noise.bits(i)).load())));
    }

    #[test]
    fn noise_differs_by_step_parameter_and_seed() {
        let first = |seed, step, parameter| Noise::new(seed, step, parameter).bits(0);
        let all =
            [first(0, 0, 0), first(1, 0, 0), first(0, 1, 0), first(0, 0, 1), first(1, 1, 0), first(0, 1, 1)];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b), "{all:?}");
        }
    }
}
