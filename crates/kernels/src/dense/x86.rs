//! Few tokens on x86: rows decoded in registers, each decoded number used for all tokens, as fast as memory
//! gives them.
//!
//! Sixteen sums a row and token, in the order of [`crate::lanes::dot`]: the same bits as every other path.

use std::arch::x86_64::*;

use super::rows::f16_to_f32;
use super::{DenseType, FEW_TOKENS};
use crate::Backend;
use crate::lanes::{LANES, Lanes, sums};

/// What stands for the 2 bytes of BF16 where those of F16 are 2.
const BF16: usize = 16;

/// Columns of a unit: the columns of a matrix must be a multiple of it.
pub(super) const UNIT: usize = 32;

/// `y[t][i] = row i · x_t` for the rows in `bytes`; `y` is at most 8 tokens.
pub(super) fn products(
    backend: Backend,
    ty: DenseType,
    bytes: &[u8],
    row_bytes: usize,
    x: &[f32],
    y: &mut [&mut [f32]],
) {
    let cols = x.len() / y.len();
    assert!(y.len() <= FEW_TOKENS && cols.is_multiple_of(UNIT) && ty.row_bytes(cols) == row_bytes);
    backend.assert_supported();
    // One row is one stream, which the prefetcher follows best. From four tokens on two rows share the loads
    // of x.
    let at_once = if y.len() < 4 { 1 } else { 2 };
    macro_rules! run {
        ($kernel:ident) => {
            for (i, rows) in bytes.chunks(at_once * row_bytes).enumerate() {
                let (first, count) = (i * at_once, rows.len() / row_bytes);
                // SAFETY: the processor has the backend's features; `rows` holds as many rows as the kernel
                // reads, x as many tokens (asserted above).
                unsafe {
                    match (y.len(), count) {
                        (1, _) => put(y, first, $kernel::<1, 1>(ty, rows, row_bytes, x)),
                        (2, _) => put(y, first, $kernel::<1, 2>(ty, rows, row_bytes, x)),
                        (3, _) => put(y, first, $kernel::<1, 3>(ty, rows, row_bytes, x)),
                        (4, 2) => put(y, first, $kernel::<2, 4>(ty, rows, row_bytes, x)),
                        (4, _) => put(y, first, $kernel::<1, 4>(ty, rows, row_bytes, x)),
                        (5, 2) => put(y, first, $kernel::<2, 5>(ty, rows, row_bytes, x)),
                        (5, _) => put(y, first, $kernel::<1, 5>(ty, rows, row_bytes, x)),
                        (6, 2) => put(y, first, $kernel::<2, 6>(ty, rows, row_bytes, x)),
                        (6, _) => put(y, first, $kernel::<1, 6>(ty, rows, row_bytes, x)),
                        (7, 2) => put(y, first, $kernel::<2, 7>(ty, rows, row_bytes, x)),
                        (7, _) => put(y, first, $kernel::<1, 7>(ty, rows, row_bytes, x)),
                        (8, 2) => put(y, first, $kernel::<2, 8>(ty, rows, row_bytes, x)),
                        (8, _) => put(y, first, $kernel::<1, 8>(ty, rows, row_bytes, x)),
                        (tokens, _) => unreachable!("{tokens} tokens"),
                    }
                }
            }
        };
    }
    match backend {
        Backend::Avx512Vnni => run!(avx512),
        _ => run!(avx2),
    }
}

/// Writes the sums of R rows and T tokens.
fn put<const R: usize, const T: usize>(y: &mut [&mut [f32]], first: usize, acc: [[Lanes; R]; T]) {
    for (y, acc) in y.iter_mut().zip(&acc) {
        y[first..first + R].copy_from_slice(&sums(acc));
    }
}

/// # Safety
/// The processor must have AVX-512; `rows` must hold R rows of `row_bytes`, which is the length of rows of
/// this type with `x.len() / T` columns, a multiple of 32.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn avx512<const R: usize, const T: usize>(
    ty: DenseType,
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
) -> [[Lanes; R]; T] {
    match ty {
        // SAFETY: passed on to the caller.
        DenseType::F32 => unsafe { avx512_of::<R, T, 4>(rows, row_bytes, x) },
        // SAFETY: as above.
        DenseType::F16 => unsafe { avx512_of::<R, T, 2>(rows, row_bytes, x) },
        // SAFETY: as above.
        DenseType::Bf16 => unsafe { avx512_of::<R, T, BF16>(rows, row_bytes, x) },
        // SAFETY: as above.
        DenseType::Q8_0 => unsafe { avx512_of::<R, T, 1>(rows, row_bytes, x) },
        DenseType::Q6K => unreachable!("has products of its own"),
    }
}

/// [`avx512`] for the type with SIZE bytes a number (Q8_0: 1, BF16: [`BF16`]).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
unsafe fn avx512_of<const R: usize, const T: usize, const SIZE: usize>(
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
) -> [[Lanes; R]; T] {
    let cols = x.len() / T;
    let unit_bytes = row_bytes / (cols / UNIT);
    let mut acc = [[_mm512_setzero_ps(); R]; T];
    for unit in 0..cols / UNIT {
        for r in 0..R {
            // SAFETY: unit `unit` of row r lies in `rows`, 32 columns of every token in `x`; no load needs
            // alignment.
            unsafe {
                let weights = rows.as_ptr().add(r * row_bytes + unit * unit_bytes);
                if R > 1 {
                    // The next rows, in the order in which they lie in memory.
                    let next = rows.as_ptr().wrapping_add(R * row_bytes + (unit * R + r) * unit_bytes);
                    _mm_prefetch::<_MM_HINT_T0>(next.cast());
                }
                let w: [__m512; 2] = match SIZE {
                    4 => [_mm512_loadu_ps(weights.cast()), _mm512_loadu_ps(weights.add(64).cast())],
                    2 => [
                        _mm512_cvtph_ps(_mm256_loadu_si256(weights.cast())),
                        _mm512_cvtph_ps(_mm256_loadu_si256(weights.add(32).cast())),
                    ],
                    BF16 => {
                        let wide = |at: usize| {
                            let halves = _mm256_loadu_si256(weights.add(at).cast());
                            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
                        };
                        [wide(0), wide(32)]
                    }
                    _ => {
                        let d = _mm512_cvtph_ps(_mm256_set1_epi16(weights.cast::<i16>().read_unaligned()));
                        let codes = |at: usize| {
                            let codes = _mm_loadu_si128(weights.add(2 + at).cast());
                            _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)), d)
                        };
                        [codes(0), codes(16)]
                    }
                };
                for t in 0..T {
                    let x = x.as_ptr().add(t * cols + unit * UNIT);
                    acc[t][r] = _mm512_fmadd_ps(w[0], _mm512_loadu_ps(x), acc[t][r]);
                    acc[t][r] = _mm512_fmadd_ps(w[1], _mm512_loadu_ps(x.add(LANES)), acc[t][r]);
                }
            }
        }
    }
    // SAFETY: sixteen f32 lanes are an array of sixteen f32.
    acc.map(|acc| acc.map(|acc| unsafe { std::mem::transmute::<__m512, Lanes>(acc) }))
}

/// # Safety
/// As [`avx512`], with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const R: usize, const T: usize>(
    ty: DenseType,
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
) -> [[Lanes; R]; T] {
    match ty {
        // SAFETY: passed on to the caller.
        DenseType::F32 => unsafe { avx2_of::<R, T, 4>(rows, row_bytes, x) },
        // SAFETY: as above.
        DenseType::F16 => unsafe { avx2_of::<R, T, 2>(rows, row_bytes, x) },
        // SAFETY: as above.
        DenseType::Bf16 => unsafe { avx2_of::<R, T, BF16>(rows, row_bytes, x) },
        // SAFETY: as above.
        DenseType::Q8_0 => unsafe { avx2_of::<R, T, 1>(rows, row_bytes, x) },
        DenseType::Q6K => unreachable!("has products of its own"),
    }
}

/// [`avx2`] for the type with SIZE bytes a number (Q8_0: 1, BF16: [`BF16`]).
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2_of<const R: usize, const T: usize, const SIZE: usize>(
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
) -> [[Lanes; R]; T] {
    let cols = x.len() / T;
    let unit_bytes = row_bytes / (cols / UNIT);
    let mut acc = [[[_mm256_setzero_ps(); 2]; R]; T];
    for unit in 0..cols / UNIT {
        for r in 0..R {
            // SAFETY: unit `unit` of row r lies in `rows`, 32 columns of every token in `x`; no load needs
            // alignment.
            unsafe {
                let weights = rows.as_ptr().add(r * row_bytes + unit * unit_bytes);
                if R > 1 {
                    // The next rows, in the order in which they lie in memory.
                    let next = rows.as_ptr().wrapping_add(R * row_bytes + (unit * R + r) * unit_bytes);
                    _mm_prefetch::<_MM_HINT_T0>(next.cast());
                }
                let d = if SIZE == 1 { f16_to_f32(weights.cast::<[u8; 2]>().read()) } else { 1.0 };
                let d = _mm256_set1_ps(d);
                for part in 0..UNIT / 8 {
                    let w = match SIZE {
                        4 => _mm256_loadu_ps(weights.cast::<f32>().add(8 * part)),
                        2 => _mm256_cvtph_ps(_mm_loadu_si128(weights.add(16 * part).cast())),
                        BF16 => {
                            let halves = _mm_loadu_si128(weights.add(16 * part).cast());
                            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
                        }
                        _ => {
                            let codes = _mm_loadl_epi64(weights.add(2 + 8 * part).cast());
                            _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)), d)
                        }
                    };
                    for t in 0..T {
                        let x = _mm256_loadu_ps(x.as_ptr().add(t * cols + unit * UNIT + 8 * part));
                        acc[t][r][part % 2] = _mm256_fmadd_ps(w, x, acc[t][r][part % 2]);
                    }
                }
            }
        }
    }
    // SAFETY: two vectors of eight f32 lanes are an array of sixteen f32.
    acc.map(|acc| acc.map(|acc| unsafe { std::mem::transmute::<[__m256; 2], Lanes>(acc) }))
}
