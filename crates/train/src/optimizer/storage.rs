//! How numbers are kept between steps: as f32, or as bf16 with stochastic rounding.
//!
//! A small change to a bf16 number is lost when it is rounded to the nearest: weights and slow averages would
//! stand still. Rounded up or down at random, in proportion to the distances, it is kept on average (arXiv
//! 2010.06192). The random bits are those of [`tritforge_kernels::CounterRng`]: there is no state to store.

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
        // The bits below the cut carry into those above with a probability proportional to their value.
        // Infinities have no bits below the cut and stay; a NaN must not overflow into another number.
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

#[cfg(test)]
mod tests {
    use tritforge_kernels::CounterRng;

    use super::*;

    #[test]
    fn rounding_keeps_the_mean_and_what_needs_no_rounding() {
        let noise = CounterRng::new(1, 2, 3);
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
}
