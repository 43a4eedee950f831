//! What the backends with 256-bit vectors share: sums of a tile and how they begin and end.

use std::arch::x86_64::*;

use crate::ternary_weights::{BLOCK_ROWS, GroupScales, Line};

/// Tokens of a full tile.
pub(super) const TILE_TOKENS: usize = 6;

/// Vectors of 8 rows in a block.
pub(super) const VECTORS: usize = BLOCK_ROWS / 8;

/// Vectors of 8 rows in a line.
pub(super) const LINE_VECTORS: usize = 2;

/// Sums of a tile: for every token 4 vectors of 8 rows.
pub(super) type Sums<const T: usize> = [[__m256i; VECTORS]; T];

/// `Σ (code + 1) · x = Σ code · x + Σ x`, so sums start at minus the token's sum.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn start<const T: usize>(token_sums: &[i32]) -> Sums<T> {
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; T];
    let token_sums = &token_sums[..T];
    for t in 0..T {
        sums[t] = [_mm256_set1_epi32(-token_sums[t]); VECTORS];
    }
    sums
}

/// Adds the sums of a group times its scales: multiply, then add.
#[inline]
#[target_feature(enable = "avx2,f16c")]
pub(super) fn add_group<const T: usize>(
    values: &mut [[__m256; VECTORS]; T],
    sums: &Sums<T>,
    scales: &GroupScales,
) {
    let (quarters, _) = scales.as_chunks::<8>();
    for (v, scales) in quarters.iter().enumerate() {
        // SAFETY: eight f16 numbers are 16 bytes; the load may be unaligned.
        let scales = _mm256_cvtph_ps(unsafe { _mm_loadu_si128(scales.as_ptr().cast()) });
        for t in 0..T {
            let product = _mm256_mul_ps(scales, _mm256_cvtepi32_ps(sums[t][v]));
            values[t][v] = _mm256_add_ps(values[t][v], product);
        }
    }
}

/// The two vectors of a line.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load(line: &Line) -> [__m256i; LINE_VECTORS] {
    let vectors = (&raw const *line).cast::<__m256i>();
    // SAFETY: a line is 64 bytes, aligned to 64: two vectors of 32.
    unsafe { [_mm256_load_si256(vectors), _mm256_load_si256(vectors.add(1))] }
}

/// The sums of one token as integers.
pub(super) fn lanes(sums: &[__m256i; VECTORS]) -> &[i32; BLOCK_ROWS] {
    // SAFETY: four vectors of 8 i32 are 32 i32, and every bit pattern is one.
    unsafe { &*(&raw const *sums).cast() }
}

/// The values of one token.
pub(super) fn floats(values: &[__m256; VECTORS]) -> &[f32; BLOCK_ROWS] {
    // SAFETY: four vectors of 8 f32 are 32 f32.
    unsafe { &*(&raw const *values).cast() }
}
