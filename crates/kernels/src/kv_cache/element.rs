//! How a number of a cache is rounded, kept and read.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::COLUMNS;
use crate::vector::{Vector, f16_bits_to_f32};

/// A stored number, or the code of one.
pub(crate) trait Element: Copy {
    const ZERO: Self;
    /// Whether it is a code, to be multiplied by the scale that [`COLUMNS`] columns of a head share.
    const SCALED: bool;
    /// Stores a head's row; `scales` has one for each [`COLUMNS`] columns, or none if numbers have none.
    fn round(numbers: &[f32], out: &mut [Self], scales: &mut [f16]);
    fn widen(self) -> f32;
    /// Sixteen numbers or codes.
    ///
    /// # Safety
    /// They lie in memory at `at`, and the caller has the instructions of `V`.
    unsafe fn load<V: Vector>(at: *const Self) -> V;
}

impl Element for f32 {
    const ZERO: Self = 0.0;
    const SCALED: bool = false;

    fn round(numbers: &[f32], out: &mut [Self], _: &mut [f16]) {
        out.copy_from_slice(numbers);
    }

    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(at: *const Self) -> V {
        // SAFETY: the caller's promises.
        unsafe { V::load(at) }
    }
}

/// Rounded half to even.
impl Element for f16 {
    const ZERO: Self = f16::ZERO;
    const SCALED: bool = false;

    fn round(numbers: &[f32], out: &mut [Self], _: &mut [f16]) {
        out.convert_from_f32_slice(numbers);
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(at: *const Self) -> V {
        // SAFETY: the caller's promises.
        unsafe { V::load_f16(at) }
    }
}

/// The codes of Q8_0.
impl Element for i8 {
    const ZERO: Self = 0;
    const SCALED: bool = true;

    fn round(numbers: &[f32], out: &mut [Self], scales: &mut [f16]) {
        let blocks = numbers.chunks(COLUMNS).zip(out.chunks_mut(COLUMNS));
        for ((numbers, codes), scale) in blocks.zip(scales) {
            *scale = quantize(numbers, codes);
        }
    }

    fn widen(self) -> f32 {
        f32::from(self)
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(at: *const Self) -> V {
        // SAFETY: the caller's promises.
        unsafe { V::load_i8(at) }
    }
}

/// The codes of a block and its scale, absmax / 127. A block with a number that is not finite becomes NaN as a
/// whole: what went wrong stays visible.
fn quantize(numbers: &[f32], codes: &mut [i8]) -> f16 {
    /// Added to a number below 2^22, it leaves the nearest integer in the low bits, half to even.
    const ROUND: f32 = 12_582_912.0;
    let absmax = numbers.iter().fold(0f32, |most, x| most.max(x.abs()));
    // `max` passes over a NaN.
    if numbers.iter().any(|x| !x.is_finite()) {
        codes.fill(0);
        return f16::NAN;
    }
    let scale = absmax / 127.0;
    // Where 1 / scale would overflow, the scale is zero as f16.
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
    for (code, x) in codes.iter_mut().zip(numbers) {
        *code = (x * inverse + ROUND).to_bits() as i8;
    }
    f16::from_f32(scale)
}

/// The number that a code and its scale stand for. The product is exact: 8 bits times 11.
pub(super) fn scaled<T: Element>(code: T, scale: f16) -> f32 {
    code.widen() * f16_bits_to_f32(scale.to_bits())
}
