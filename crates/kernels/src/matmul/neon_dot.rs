//! NEON with dot products: `sdot` adds 4 products a lane, 16 an instruction, straight into i32.
//!
//! One operand is a vector of weight fields (4 rows × 4 columns), the other one of the four words of an
//! activation vector, chosen by its index: nothing has to be broadcast. The instruction is written as
//! assembly because its intrinsic is not stable.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{LINE_FIELDS, LINE_VECTORS, Sums, VECTORS, WIDE_TOKENS, fields, load, start, token_pairs};
use super::pack::{STEP_WORDS, Tile};
use crate::ternary_weights::{Line, STEP_LINES};

/// One token, bound by memory: two of the four fields stay where they are in their bytes, times 4 and 16,
/// each in accumulators of its own, which are shifted once at the end; a field times 64 would not fit a
/// signed byte. A sum of multiples of 16 is at most 2¹³ steps · 4 · 32 · 128 = 2²⁷.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn single(lines: &[Line], tile: Tile<'_>) -> Sums<1> {
    let mut by_1 = start::<1>(tile.sums)[0];
    let (mut by_4, mut by_16) = ([vdupq_n_s32(0); VECTORS], [vdupq_n_s32(0); VECTORS]);
    let masks = [0x03, 0x0c, 0x30].map(|mask| vdupq_n_u8(mask));
    let masked = |packed, s: usize| vreinterpretq_s8_u8(vandq_u8(packed, masks[s]));
    for (lines, words) in lines.chunks_exact(STEP_LINES).zip(tile.words.as_chunks::<STEP_WORDS>().0) {
        // SAFETY: the array has four words.
        let x = unsafe { vld1q_s32(words.as_ptr()) };
        for (l, line) in lines.iter().enumerate() {
            for (v, packed) in load(line).into_iter().enumerate() {
                let v = l * LINE_VECTORS + v;
                by_1[v] = dot::<0>(by_1[v], masked(packed, 0), x);
                by_4[v] = dot::<1>(by_4[v], masked(packed, 1), x);
                by_16[v] = dot::<2>(by_16[v], masked(packed, 2), x);
                by_1[v] = dot::<3>(by_1[v], vreinterpretq_s8_u8(vshrq_n_u8::<6>(packed)), x);
            }
        }
    }
    [std::array::from_fn(|v| {
        vaddq_s32(by_1[v], vaddq_s32(vshrq_n_s32::<2>(by_4[v]), vshrq_n_s32::<4>(by_16[v])))
    })]
}

/// Two or three tokens, bound by memory: fields are cut out of the packed lines on the way, 16 rows at a
/// time.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn narrow<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for l in 0..STEP_LINES {
        let mut acc = half(&sums, l);
        for (lines, words) in lines.chunks_exact(STEP_LINES).zip(tile.words.chunks_exact(STEP_WORDS * T)) {
            let (first, second) = words.split_at(STEP_WORDS / 2 * T);
            let mut x = [vdupq_n_s32(0); T];
            for t in 0..T {
                let word = |words: &[i32]| {
                    // SAFETY: the slice has two words.
                    unsafe { vld1_s32(words[2 * t..][..2].as_ptr()) }
                };
                x[t] = vcombine_s32(word(first), word(second));
            }
            for (v, packed) in load(&lines[l]).into_iter().enumerate() {
                let [a, b, c, d] = fields(packed);
                for t in 0..T {
                    acc[t][v] = dot::<0>(acc[t][v], a, x[t]);
                    acc[t][v] = dot::<1>(acc[t][v], b, x[t]);
                    acc[t][v] = dot::<2>(acc[t][v], c, x[t]);
                    acc[t][v] = dot::<3>(acc[t][v], d, x[t]);
                }
            }
        }
        for t in 0..T {
            sums[t][l * LINE_VECTORS..][..LINE_VECTORS].copy_from_slice(&acc[t]);
        }
    }
    sums
}

/// Several tokens, from an unpacked block, 16 rows at a time.
#[target_feature(enable = "neon,dotprod")]
pub(super) fn wide<const T: usize>(panel: &[int8x16_t], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for (l, panel) in panel.chunks_exact(panel.len() / STEP_LINES).enumerate() {
        let mut acc = half(&sums, l);
        let halves = panel.as_chunks::<{ LINE_FIELDS / 2 }>().0.iter();
        for (fields, words) in halves.zip(tile.words.chunks_exact(STEP_WORDS / 2 * T)) {
            let x = token_pairs::<T>(words);
            accumulate::<T, 0, 2>(&mut acc, &fields[..LINE_VECTORS], &x);
            accumulate::<T, 1, 3>(&mut acc, &fields[LINE_VECTORS..], &x);
        }
        for t in 0..T {
            sums[t][l * LINE_VECTORS..][..LINE_VECTORS].copy_from_slice(&acc[t]);
        }
    }
    sums
}

/// The sums of the 16 rows of line `l`.
#[inline]
#[target_feature(enable = "neon")]
fn half<const T: usize>(sums: &Sums<T>, l: usize) -> [[int32x4_t; LINE_VECTORS]; T] {
    std::array::from_fn(|t| std::array::from_fn(|v| sums[t][l * LINE_VECTORS + v]))
}

/// Adds the products of 4 columns: `fields` for 16 rows, word EVEN of each pair for the even token, ODD for
/// the odd one.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn accumulate<const T: usize, const EVEN: usize, const ODD: usize>(
    acc: &mut [[int32x4_t; LINE_VECTORS]; T],
    fields: &[int8x16_t],
    x: &[int32x4_t; WIDE_TOKENS / 2],
) {
    let fields = &fields[..LINE_VECTORS];
    for t in 0..T {
        for v in 0..LINE_VECTORS {
            acc[t][v] = if t % 2 == 0 {
                dot::<EVEN>(acc[t][v], fields[v], x[t / 2])
            } else {
                dot::<ODD>(acc[t][v], fields[v], x[t / 2])
            };
        }
    }
}

/// Adds to each lane of `acc` the 4 products of its bytes of `fields` and the bytes of word WORD of `x`.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const WORD: usize>(acc: int32x4_t, fields: int8x16_t, x: int32x4_t) -> int32x4_t {
    let mut sum = acc;
    // SAFETY: the function has the feature; the instruction touches its operands alone.
    unsafe {
        asm!(
            "sdot {sum:v}.4s, {fields:v}.16b, {x:v}.4b[{word}]",
            sum = inout(vreg) sum,
            fields = in(vreg) fields,
            x = in(vreg) x,
            word = const WORD,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sum
}
