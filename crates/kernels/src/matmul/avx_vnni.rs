//! AVX-VNNI: `vpdpbusd` on 256-bit vectors adds 4 products a lane, 32 an instruction, straight into i32, on processors
//! without AVX-512.
//!
//! Operands and sums are those of `avx512`, in vectors of 8 rows. The instruction reads no operand that is broadcast on
//! the way, so a word of activations is one load and serves as many rows as there are registers for.

use std::arch::x86_64::*;
use std::ops::Range;

use super::cell::multiply_cell;
use super::output::{Output, Sink};
use super::pack::{STEP_WORDS, Tile};
use super::ymm::{self, LINE_VECTORS, Sums, VECTORS, add_group, floats, lanes, load, start};
use crate::TernaryWeights;
use crate::ternary_weights::{Line, STEP_LINES};

/// Tokens of a full tile: 6 × 2 accumulators, 2 vectors of fields, one of activations and a mask fill the 16 registers.
pub(super) const TILE_TOKENS: usize = ymm::TILE_TOKENS;

/// Multiplies every tile with the blocks of weights.
///
/// # Safety
/// The processor must support AVX2, F16C and AVX-VNNI. No other thread may write the same tokens and blocks to the sink.
#[target_feature(enable = "avx2,f16c,avxvnni")]
pub(super) unsafe fn multiply<'a, T: Output>(
    tiles: &(impl Iterator<Item = Tile<'a>> + Clone),
    w: &TernaryWeights,
    blocks: Range<usize>,
    sink: &Sink<'_, T>,
) {
    let mut unpacked = Vec::new();
    for block in blocks {
        let lines = w.lines(block, &mut unpacked);
        let groups = w.groups(block).filter(|_| T::SCALED);
        for tile in tiles.clone() {
            macro_rules! run {
                ($kernel:ident, $tokens:literal) => {
                    multiply_cell!($kernel, $tokens, _mm256_setzero_ps, VECTORS; lines, STEP_LINES, groups, tile, sink, block)
                };
            }
            match tile.sums.len() {
                1 => run!(one, 1),
                2 => run!(narrow, 2),
                3 => run!(narrow, 3),
                4 => run!(wide, 4),
                5 => run!(wide, 5),
                6 => run!(wide, 6),
                tokens => unreachable!("a tile of {tokens} tokens"),
            }
        }
    }
}

/// One token, bound by memory: the second and the fourth field of a byte stay where they are, times 4, in accumulators
/// of their own, which are shifted once at the end. A sum of multiples of 4 is at most 2¹³ steps · 8 · 8 · 128 = 2²⁶.
/// T is 1; all kernels of a tile are named with their number of tokens.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn one<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut low = start::<1>(tile.sums)[0];
    let mut high = [_mm256_setzero_si256(); VECTORS];
    let (mask, mask_by_4) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    for (lines, words) in lines.chunks_exact(STEP_LINES).zip(tile.words.as_chunks::<STEP_WORDS>().0) {
        let ([a, b], [c, d]) = (load(&lines[0]), load(&lines[1]));
        let mut packed = [a, b, c, d];
        for pair in 0..STEP_WORDS / 2 {
            let [x, by_4] = [0, 1].map(|i| _mm256_set1_epi32(words[2 * pair + i]));
            for v in 0..VECTORS {
                low[v] = _mm256_dpbusd_avx_epi32(low[v], _mm256_and_si256(packed[v], mask), x);
                high[v] = _mm256_dpbusd_avx_epi32(high[v], _mm256_and_si256(packed[v], mask_by_4), by_4);
                // Bits that a 16-bit shift brings over from the neighbouring byte fall outside the masks.
                packed[v] = _mm256_srli_epi16::<4>(packed[v]);
            }
        }
    }
    for v in 0..VECTORS {
        low[v] = _mm256_add_epi32(low[v], _mm256_srai_epi32::<2>(high[v]));
    }
    [low; T]
}

/// Few tokens, 32 rows at a time: the packed lines are read once.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn narrow<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut acc = start::<T>(tile.sums);
    let steps = lines.chunks_exact(STEP_LINES).zip(tile.words.chunks_exact(STEP_WORDS * T));
    for (lines, words) in steps {
        for (l, line) in lines.iter().enumerate() {
            for (v, packed) in load(line).into_iter().enumerate() {
                for (s, fields) in fields(packed).into_iter().enumerate() {
                    for t in 0..T {
                        let x = _mm256_set1_epi32(words[s * T + t]);
                        let acc = &mut acc[t][l * LINE_VECTORS + v];
                        *acc = _mm256_dpbusd_avx_epi32(*acc, fields, x);
                    }
                }
            }
        }
    }
    acc
}

/// Several tokens, 16 rows at a time, so that a word of activations serves two vectors.
#[inline]
#[target_feature(enable = "avx2,avxvnni")]
fn wide<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for l in 0..STEP_LINES {
        let mut acc = [[_mm256_setzero_si256(); LINE_VECTORS]; T];
        let lines = lines.iter().skip(l).step_by(STEP_LINES);
        for (line, words) in lines.zip(tile.words.chunks_exact(STEP_WORDS * T)) {
            let [a, b] = load(line).map(|packed| fields(packed));
            for (s, words) in words.chunks_exact(T).enumerate() {
                for t in 0..T {
                    let x = _mm256_set1_epi32(words[t]);
                    acc[t][0] = _mm256_dpbusd_avx_epi32(acc[t][0], a[s], x);
                    acc[t][1] = _mm256_dpbusd_avx_epi32(acc[t][1], b[s], x);
                }
            }
        }
        for t in 0..T {
            for v in 0..LINE_VECTORS {
                let sum = &mut sums[t][l * LINE_VECTORS + v];
                *sum = _mm256_add_epi32(*sum, acc[t][v]);
            }
        }
    }
    sums
}

/// The four fields of every byte.
#[inline]
#[target_feature(enable = "avx2")]
fn fields(packed: __m256i) -> [__m256i; STEP_WORDS] {
    let mask = _mm256_set1_epi8(3);
    // Bits that a 16-bit shift brings over from the neighbouring byte fall outside the mask.
    [
        _mm256_and_si256(packed, mask),
        _mm256_and_si256(_mm256_srli_epi16::<2>(packed), mask),
        _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask),
        _mm256_and_si256(_mm256_srli_epi16::<6>(packed), mask),
    ]
}
