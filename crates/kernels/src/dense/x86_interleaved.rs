//! Few tokens times interleaved Q8_0 rows on x86: decoded in registers, each decoded number used for all
//! tokens.
//!
//! Sixteen sums a row and token, in the order of [`crate::lanes::dot`]: the same bits as every other path.

use std::arch::x86_64::*;
use std::ops::Range;

use super::interleaved::{GROUP, SCALE_BYTES, UNIT_BYTES};
use super::{FEW_TOKENS, Q8_0_BLOCK};
use crate::Backend;
use crate::lanes::{LANES, Lanes, sums};

/// Groups whose sums wait in the L1 cache, with the tokens' numbers for some columns, while all columns pass
/// by.
const GROUPS: usize = 4;

/// Floats of all tokens that the L1 cache holds beside the sums.
const CACHED: usize = 4096;

/// `y[t][i] = row i · x_t` for the rows of `groups`, which are as many as `y` has places for (the last group
/// may have more).
pub(super) fn products(backend: Backend, groups: &[u8], x: &[f32], y: &mut [&mut [f32]]) {
    let tokens = y.len();
    let cols = x.len() / tokens;
    let group_bytes = cols / Q8_0_BLOCK * UNIT_BYTES;
    let rows = y[0].len();
    assert!((1..=FEW_TOKENS).contains(&tokens) && cols.is_multiple_of(Q8_0_BLOCK));
    assert!(groups.len() == rows.div_ceil(GROUP) * group_bytes, "whole groups of rows");
    backend.assert_supported();
    macro_rules! run {
        ($kernel:ident, [$($tokens:literal: $at_once:literal),*]) => {
            match tokens {
                // SAFETY: the processor has the backend's features, and the lengths were asserted.
                $($tokens => unsafe { all::<$tokens, $at_once>(groups, x, cols, y, $kernel::<$tokens, $at_once>) },)*
                _ => unreachable!("{tokens} tokens"),
            }
        };
    }
    // As many rows at once as have registers for their sums.
    match backend {
        Backend::Avx512Vnni => run!(avx512, [1: 4, 2: 4, 3: 4, 4: 4, 5: 2, 6: 2, 7: 2, 8: 2]),
        _ => run!(avx2, [1: 4, 2: 2, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1]),
    }
}

/// The sums of R rows and T tokens.
type Sums<const T: usize, const R: usize> = [[Lanes; R]; T];

/// A kernel: adds the products of some units of a group to the sums of R of its rows.
type Kernel<const T: usize, const R: usize> =
    unsafe fn(group: &[u8], first: usize, units: Range<usize>, x: &[f32], cols: usize, acc: &mut Sums<T, R>);

/// # Safety
/// The processor must have the kernel's features; `groups` must be whole groups of `cols` columns, x [T,
/// cols].
unsafe fn all<const T: usize, const R: usize>(
    groups: &[u8],
    x: &[f32],
    cols: usize,
    y: &mut [&mut [f32]],
    kernel: Kernel<T, R>,
) {
    let units = cols / Q8_0_BLOCK;
    // The numbers of a few tokens stay cached beside the stream as they are; a pass over all columns is one
    // stream.
    let (at_once, groups_at_once) =
        if T <= 3 { (units, 1) } else { ((CACHED / T / Q8_0_BLOCK).max(1), GROUPS) };
    let group_bytes = units * UNIT_BYTES;
    for (i, groups) in groups.chunks(groups_at_once * group_bytes).enumerate() {
        let mut acc = [[[[[0f32; LANES]; R]; T]; GROUP]; GROUPS];
        for start in (0..units).step_by(at_once) {
            let range = start..units.min(start + at_once);
            for (group, acc) in groups.chunks_exact(group_bytes).zip(&mut acc) {
                for (part, acc) in acc[..GROUP / R].iter_mut().enumerate() {
                    // SAFETY: the caller's contract.
                    unsafe { kernel(group, part * R, range.clone(), x, cols, acc) };
                }
            }
        }
        for (g, acc) in acc[..groups.len() / group_bytes].iter().enumerate() {
            for (part, acc) in acc[..GROUP / R].iter().enumerate() {
                let first = (i * groups_at_once + g) * GROUP + part * R;
                for (y, acc) in y.iter_mut().zip(acc) {
                    for (y, sum) in y.iter_mut().skip(first).zip(sums(acc)) {
                        *y = sum;
                    }
                }
            }
        }
    }
}

/// How far ahead the stream is asked for, in bytes.
const AHEAD: usize = 2048;

/// # Safety
/// The processor must have AVX-512 F, BW, VL and DQ, and F16C; `first + R` is at most [`GROUP`], the group
/// has the units, and x is [T, cols].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
unsafe fn avx512<const T: usize, const R: usize>(
    group: &[u8],
    first: usize,
    units: Range<usize>,
    x: &[f32],
    cols: usize,
    acc: &mut Sums<T, R>,
) {
    debug_assert!(first + R <= GROUP && units.end * UNIT_BYTES <= group.len() && x.len() == T * cols);
    // Plain loops: closures of `map` are not always inlined, and sums would then live in memory.
    let mut sums = [[_mm512_setzero_ps(); R]; T];
    for t in 0..T {
        for r in 0..R {
            // SAFETY: sixteen f32 are one vector.
            sums[t][r] = unsafe { _mm512_loadu_ps(acc[t][r].as_ptr()) };
        }
    }
    for unit in units {
        // SAFETY: the unit lies in the group, its 32 columns in every token of x; no load needs alignment.
        unsafe {
            let base = group.as_ptr().add(unit * UNIT_BYTES);
            if first == 0 {
                _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD + 64).cast());
            }
            let scales = _mm512_castps128_ps512(_mm_cvtph_ps(_mm_loadl_epi64(base.cast())));
            for r in 0..R {
                let d = _mm512_permutexvar_ps(_mm512_set1_epi32((first + r) as i32), scales);
                let codes = base.add(SCALE_BYTES + (first + r) * Q8_0_BLOCK);
                let low = _mm512_cvtepi8_epi32(_mm_loadu_si128(codes.cast()));
                let high = _mm512_cvtepi8_epi32(_mm_loadu_si128(codes.add(LANES).cast()));
                let low = _mm512_mul_ps(_mm512_cvtepi32_ps(low), d);
                let high = _mm512_mul_ps(_mm512_cvtepi32_ps(high), d);
                for t in 0..T {
                    let x = x.as_ptr().add(t * cols + unit * Q8_0_BLOCK);
                    sums[t][r] = _mm512_fmadd_ps(low, _mm512_loadu_ps(x), sums[t][r]);
                    sums[t][r] = _mm512_fmadd_ps(high, _mm512_loadu_ps(x.add(LANES)), sums[t][r]);
                }
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            // SAFETY: sixteen f32 are one vector.
            unsafe { _mm512_storeu_ps(acc[t][r].as_mut_ptr(), sums[t][r]) };
        }
    }
}

/// # Safety
/// As [`avx512`], with AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<const T: usize, const R: usize>(
    group: &[u8],
    first: usize,
    units: Range<usize>,
    x: &[f32],
    cols: usize,
    acc: &mut Sums<T, R>,
) {
    const HALF: usize = LANES / 2;
    debug_assert!(first + R <= GROUP && units.end * UNIT_BYTES <= group.len() && x.len() == T * cols);
    let mut sums = [[[_mm256_setzero_ps(); 2]; R]; T];
    for t in 0..T {
        for r in 0..R {
            for half in 0..2 {
                // SAFETY: eight f32 are one vector.
                sums[t][r][half] = unsafe { _mm256_loadu_ps(acc[t][r].as_ptr().add(half * HALF)) };
            }
        }
    }
    for unit in units {
        // SAFETY: the unit lies in the group, its 32 columns in every token of x; no load needs alignment.
        unsafe {
            let base = group.as_ptr().add(unit * UNIT_BYTES);
            if first == 0 {
                _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD).cast());
                _mm_prefetch::<_MM_HINT_T0>(base.wrapping_add(AHEAD + 64).cast());
            }
            let scales = _mm256_castps128_ps256(_mm_cvtph_ps(_mm_loadl_epi64(base.cast())));
            for r in 0..R {
                let d = _mm256_permutevar8x32_ps(scales, _mm256_set1_epi32((first + r) as i32));
                let codes = base.add(SCALE_BYTES + (first + r) * Q8_0_BLOCK);
                for part in 0..Q8_0_BLOCK / HALF {
                    let codes = _mm256_cvtepi8_epi32(_mm_loadl_epi64(codes.add(part * HALF).cast()));
                    let w = _mm256_mul_ps(_mm256_cvtepi32_ps(codes), d);
                    for t in 0..T {
                        let x = x.as_ptr().add(t * cols + unit * Q8_0_BLOCK + part * HALF);
                        sums[t][r][part % 2] = _mm256_fmadd_ps(w, _mm256_loadu_ps(x), sums[t][r][part % 2]);
                    }
                }
            }
        }
    }
    for t in 0..T {
        for r in 0..R {
            for half in 0..2 {
                // SAFETY: eight f32 are one vector.
                unsafe { _mm256_storeu_ps(acc[t][r].as_mut_ptr().add(half * HALF), sums[t][r][half]) };
            }
        }
    }
}
