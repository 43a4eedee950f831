//! NEON with matrix products: `smmla` multiplies 2 tokens × 8 columns with 8 columns × 2 rows, 32 products an
//! instruction.
//!
//! For tiles of several tokens; fewer are bound by memory and left to `neon_dot`. The instruction is written
//! as assembly because its intrinsic is not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{LINE_FIELDS, LINE_VECTORS, Sums, WIDE_TOKENS, start, token_pairs};
use super::pack::{STEP_WORDS, Tile};
use crate::ternary_weights::STEP_LINES;

/// Pairs of rows in a line.
const ROW_PAIRS: usize = 2 * LINE_VECTORS;

/// The order of a panel for `smmla`: 8 columns of all pairs of rows, then the next 8; in a pair row by row.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn row_pairs(
    vectors: &[[int8x16_t; STEP_WORDS]; LINE_VECTORS],
    out: &mut [int8x16_t; LINE_FIELDS],
) {
    for (v, fields) in vectors.iter().enumerate() {
        for (half, fields) in fields.as_chunks::<2>().0.iter().enumerate() {
            let [a, b] = fields.map(|fields| vreinterpretq_s32_s8(fields));
            let pairs = &mut out[half * ROW_PAIRS + 2 * v..][..2];
            pairs[0] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
            pairs[1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
        }
    }
}

/// Several tokens, from an unpacked block in the order of [`row_pairs`], 16 rows at a time.
#[target_feature(enable = "neon,i8mm")]
pub(super) fn wide<const T: usize>(panel: &[int8x16_t], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for (l, panel) in panel.chunks_exact(panel.len() / STEP_LINES).enumerate() {
        let mut acc = [[vdupq_n_s32(0); WIDE_TOKENS / 2]; ROW_PAIRS];
        let halves = panel.as_chunks::<ROW_PAIRS>().0.iter();
        for (rows, words) in halves.zip(tile.words.chunks_exact(STEP_WORDS / 2 * T)) {
            let x = token_pairs::<T>(words);
            for r in 0..ROW_PAIRS {
                for p in 0..T.div_ceil(2) {
                    acc[r][p] = multiply(acc[r][p], x[p], rows[r]);
                }
            }
        }
        for t in 0..T {
            for v in 0..LINE_VECTORS {
                // Both rows of the even token are the low half of a sum, those of the odd token the high
                // half.
                let [a, b] = [0, 1].map(|r| vreinterpretq_s64_s32(acc[2 * v + r][t / 2]));
                let rows = if t % 2 == 0 { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) };
                let sum = &mut sums[t][l * LINE_VECTORS + v];
                *sum = vaddq_s32(*sum, vreinterpretq_s32_s64(rows));
            }
        }
    }
    sums
}

/// Adds the products of two tokens' 8 codes and two rows' 8 fields: lane 2i + j is token i with row j.
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn multiply(acc: int32x4_t, tokens: int32x4_t, rows: int8x16_t) -> int32x4_t {
    let mut sum = acc;
    // SAFETY: the function has the feature; the instruction touches its operands alone.
    unsafe {
        asm!(
            "smmla {sum:v}.4s, {tokens:v}.16b, {rows:v}.16b",
            sum = inout(vreg) sum,
            tokens = in(vreg) tokens,
            rows = in(vreg) rows,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
