//! Sixteen f32 lanes held in registers, for kernels that convert f16 as they read: written once over
//! [`Vector`], compiled for each instruction set.
//!
//! [`crate::lanes`] leaves the choice of registers to the compiler, which knows no f16; here it is spelled
//! out. The operations are the same IEEE ones, so the bits are too.

use half::f16;

use crate::lanes::{self, LANES, Lanes};

/// Sixteen f32 numbers.
///
/// # Safety
/// Every function needs the instructions of its implementor: it is to be inlined into a function that enables
/// them.
pub(crate) trait Vector: Copy {
    /// Whether there are registers for 8 × 2 sums and not only for 4 × 1.
    const MANY: bool;
    /// Zeros.
    unsafe fn zero() -> Self;
    /// Sixteen numbers from memory, of any alignment.
    unsafe fn load(at: *const f32) -> Self;
    /// Sixteen f16 numbers from memory, of any alignment, converted exactly.
    unsafe fn load_f16(at: *const f16) -> Self;
    /// Sixteen int8 numbers from memory.
    unsafe fn load_i8(at: *const i8) -> Self;
    /// Into memory, of any alignment.
    unsafe fn store(self, at: *mut f32);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self · factor`.
    unsafe fn scale(self, factor: f32) -> Self;
    /// `self · factor + sum`, rounded once.
    unsafe fn fma(self, factor: f32, sum: Self) -> Self;
    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self · other + sum`, rounded once.
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self;
}

impl Vector for Lanes {
    const MANY: bool = false;

    #[inline(always)]
    unsafe fn zero() -> Self {
        [0.0; LANES]
    }

    #[inline(always)]
    unsafe fn load(at: *const f32) -> Self {
        // SAFETY: the caller promises sixteen numbers.
        unsafe { at.cast::<Lanes>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(at: *const f16) -> Self {
        // SAFETY: the caller promises sixteen numbers.
        let numbers = unsafe { at.cast::<[f16; LANES]>().read_unaligned() };
        let mut out = [0f32; LANES];
        for i in 0..LANES {
            out[i] = f16_bits_to_f32(numbers[i].to_bits());
        }
        out
    }

    #[inline(always)]
    unsafe fn load_i8(at: *const i8) -> Self {
        // SAFETY: the caller promises sixteen numbers.
        unsafe { at.cast::<[i8; LANES]>().read() }.map(f32::from)
    }

    #[inline(always)]
    unsafe fn store(self, at: *mut f32) {
        // SAFETY: the caller promises room for sixteen numbers.
        unsafe { at.cast::<Lanes>().write_unaligned(self) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        let mut out = self;
        for i in 0..LANES {
            out[i] += other[i];
        }
        out
    }

    #[inline(always)]
    unsafe fn scale(self, factor: f32) -> Self {
        self.map(|x| x * factor)
    }

    #[inline(always)]
    unsafe fn fma(self, factor: f32, sum: Self) -> Self {
        lanes::fma(&self, &[factor; LANES], &sum)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        let mut out = self;
        for i in 0..LANES {
            out[i] *= other[i];
        }
        out
    }

    #[inline(always)]
    unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
        lanes::fma(&self, &other, &sum)
    }
}

/// Asks for the memory at `at`, which need not exist.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch reads nothing and faults nowhere; SSE belongs to the baseline.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// An f16 as f32, exactly. `half` asks for the processor's features at every number, which loops cannot
/// afford.
#[inline(always)]
pub(crate) fn f16_bits_to_f32(bits: u16) -> f32 {
    /// 2^112: the difference of the exponents' biases.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let wide = u32::from(bits) << 16;
    let (sign, magnitude) = (wide & 0x8000_0000, (wide & 0x7fff_0000) >> 3);
    // Exponent and mantissa now stand where f32 has them; the product also makes subnormal f16 numbers
    // normal.
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let bits = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(sign | bits)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use half::f16;

    use super::Vector;

    // SAFETY of all blocks below: the caller has the instructions (AVX-512 F, or AVX2, FMA and F16C), and
    // promises the memory.

    impl Vector for __m512 {
        const MANY: bool = true;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { _mm512_setzero_ps() }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_loadu_ps(at) }
        }

        #[inline(always)]
        unsafe fn load_f16(at: *const f16) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
        }

        #[inline(always)]
        unsafe fn load_i8(at: *const i8) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast()))) }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: see above.
            unsafe { _mm512_storeu_ps(at, self) }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_add_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn scale(self, factor: f32) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_mul_ps(self, _mm512_set1_ps(factor)) }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: f32, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(self, _mm512_set1_ps(factor), sum) }
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_mul_ps(self, other) }
        }

        #[inline(always)]
        unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe { _mm512_fmadd_ps(self, other, sum) }
        }
    }

    impl Vector for [__m256; 2] {
        const MANY: bool = false;

        #[inline(always)]
        unsafe fn zero() -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_setzero_ps(); 2] }
        }

        #[inline(always)]
        unsafe fn load(at: *const f32) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))] }
        }

        #[inline(always)]
        unsafe fn load_f16(at: *const f16) -> Self {
            // SAFETY: see above.
            unsafe {
                [
                    _mm256_cvtph_ps(_mm_loadu_si128(at.cast())),
                    _mm256_cvtph_ps(_mm_loadu_si128(at.add(8).cast())),
                ]
            }
        }

        #[inline(always)]
        unsafe fn load_i8(at: *const i8) -> Self {
            // SAFETY: see above.
            unsafe {
                [
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))),
                    _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.add(8).cast()))),
                ]
            }
        }

        #[inline(always)]
        unsafe fn store(self, at: *mut f32) {
            // SAFETY: see above.
            unsafe {
                _mm256_storeu_ps(at, self[0]);
                _mm256_storeu_ps(at.add(8), self[1]);
            }
        }

        #[inline(always)]
        unsafe fn add(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_add_ps(self[0], other[0]), _mm256_add_ps(self[1], other[1])] }
        }

        #[inline(always)]
        unsafe fn scale(self, factor: f32) -> Self {
            // SAFETY: see above.
            unsafe {
                let factor = _mm256_set1_ps(factor);
                [_mm256_mul_ps(self[0], factor), _mm256_mul_ps(self[1], factor)]
            }
        }

        #[inline(always)]
        unsafe fn fma(self, factor: f32, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                let factor = _mm256_set1_ps(factor);
                [_mm256_fmadd_ps(self[0], factor, sum[0]), _mm256_fmadd_ps(self[1], factor, sum[1])]
            }
        }

        #[inline(always)]
        unsafe fn mul(self, other: Self) -> Self {
            // SAFETY: see above.
            unsafe { [_mm256_mul_ps(self[0], other[0]), _mm256_mul_ps(self[1], other[1])] }
        }

        #[inline(always)]
        unsafe fn mul_add(self, other: Self, sum: Self) -> Self {
            // SAFETY: see above.
            unsafe {
                [_mm256_fmadd_ps(self[0], other[0], sum[0]), _mm256_fmadd_ps(self[1], other[1], sum[1])]
            }
        }
    }
}
