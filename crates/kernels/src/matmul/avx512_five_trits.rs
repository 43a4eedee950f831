//! AVX-512 VBMI: one tile of tokens times weights of 1.6 bits, unpacked in registers on the way from memory.
//!
//! A half of a block (16 rows) at a time, so that accumulators, table and constants fit the 32 registers. As
//! in `avx512`, fields stay where they are in their bytes, times 1, 4, 16 or 64, each in an accumulator of
//! its own, which is shifted once at the end.

use std::arch::x86_64::*;

use super::avx512::Sums;
use super::pack::{STEP_WORDS, Tile};
use crate::five_trits::x86::{digit_fields, table, unpack_half};
use crate::five_trits::{GROUP_STEPS, HALF_LINES, RADIX};
use crate::ternary_weights::{Line, STEP_LINES};

/// 1/81 modulo 2³²: a product by it divides a multiple of 81 exactly. A sum of such is at most 2¹³ · 4 · 162
/// · 128 < 2³¹.
const INVERSE: i32 = inverse(RADIX as i32);

const fn inverse(odd: i32) -> i32 {
    // Newton's iteration: each round doubles the number of right bits, of which an odd number has three to
    // begin with.
    let (mut x, mut round) = (odd, 0);
    while round < 4 {
        x = x.wrapping_mul(2i32.wrapping_sub(odd.wrapping_mul(x)));
        round += 1;
    }
    x
}

/// Accumulators of T tokens and 16 rows: one for each place of a field in its byte.
type Half<const T: usize> = [[__m512i; T]; STEP_WORDS];

/// The sums of T tokens with one block, minus nothing: `Σ (code + 1) · x − Σ x`.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
pub(super) fn narrow<const T: usize>(stored: &[Line], tile: Tile<'_>) -> Sums<T> {
    let table = table();
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|mask| _mm512_set1_epi8(mask as i8));
    let mut halves: [Half<T>; STEP_LINES] = [[[_mm512_setzero_si512(); T]; STEP_WORDS]; STEP_LINES];
    let mut fifths = [[_mm512_setzero_si512(); T]; STEP_LINES];
    let per_half = stored.chunks_exact(stored.len() / STEP_LINES).zip(&mut halves).zip(&mut fifths);
    for ((stored, acc), by_81) in per_half {
        for t in 0..T {
            acc[0][t] = _mm512_set1_epi32(-tile.sums[t]);
        }
        let words = tile.words.chunks_exact(GROUP_STEPS * STEP_WORDS * T);
        for (packed, words) in stored.as_chunks::<HALF_LINES>().0.iter().zip(words) {
            let (lines, digits) = unpack_half(&table, packed);
            let (words, last) = words.split_at(HALF_LINES * STEP_WORDS * T);
            for s in 0..STEP_WORDS {
                for t in 0..T {
                    let x = _mm512_set1_epi32(last[s * T + t]);
                    by_81[t] = _mm512_dpbusd_epi32(by_81[t], digits[s], x);
                }
            }
            for (line, words) in lines.into_iter().zip(words.chunks_exact(STEP_WORDS * T)) {
                for s in 0..STEP_WORDS {
                    let fields = _mm512_and_si512(line, masks[s]);
                    for t in 0..T {
                        let x = _mm512_set1_epi32(words[s * T + t]);
                        acc[s][t] = _mm512_dpbusd_epi32(acc[s][t], fields, x);
                    }
                }
            }
        }
    }
    let mut sums = [[_mm512_setzero_si512(); STEP_LINES]; T];
    for t in 0..T {
        for (half, [by_1, by_4, by_16, by_64]) in halves.iter().enumerate() {
            let low = _mm512_add_epi32(by_1[t], _mm512_srai_epi32::<2>(by_4[t]));
            let high = _mm512_add_epi32(_mm512_srai_epi32::<4>(by_16[t]), _mm512_srai_epi32::<6>(by_64[t]));
            let fifth = _mm512_mullo_epi32(fifths[half][t], _mm512_set1_epi32(INVERSE));
            sums[t][half] = _mm512_add_epi32(fifth, _mm512_add_epi32(low, high));
        }
    }
    sums
}

/// A tile of more tokens: as [`narrow`], with every field shifted down once for all of them and one
/// accumulator a token.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi")]
pub(super) fn wide<const T: usize>(stored: &[Line], tile: Tile<'_>) -> Sums<T> {
    let table = table();
    let mask = _mm512_set1_epi8(3);
    let mut sums = [[_mm512_setzero_si512(); STEP_LINES]; T];
    for (half, stored) in stored.chunks_exact(stored.len() / STEP_LINES).enumerate() {
        let mut acc = [_mm512_setzero_si512(); T];
        for t in 0..T {
            acc[t] = _mm512_set1_epi32(-tile.sums[t]);
        }
        let words = tile.words.chunks_exact(GROUP_STEPS * STEP_WORDS * T);
        for (packed, words) in stored.as_chunks::<HALF_LINES>().0.iter().zip(words) {
            let (lines, digits) = unpack_half(&table, packed);
            let (words, last) = words.split_at(HALF_LINES * STEP_WORDS * T);
            for s in 0..STEP_WORDS {
                let fields = digit_fields(digits[s]);
                for t in 0..T {
                    acc[t] = _mm512_dpbusd_epi32(acc[t], fields, _mm512_set1_epi32(last[s * T + t]));
                }
            }
            for (line, words) in lines.into_iter().zip(words.chunks_exact(STEP_WORDS * T)) {
                // Bits that a 16-bit shift brings over from the neighbouring byte fall outside the mask.
                let fields = [
                    _mm512_and_si512(line, mask),
                    _mm512_and_si512(_mm512_srli_epi16::<2>(line), mask),
                    _mm512_and_si512(_mm512_srli_epi16::<4>(line), mask),
                    _mm512_and_si512(_mm512_srli_epi16::<6>(line), mask),
                ];
                for s in 0..STEP_WORDS {
                    for t in 0..T {
                        acc[t] = _mm512_dpbusd_epi32(acc[t], fields[s], _mm512_set1_epi32(words[s * T + t]));
                    }
                }
            }
        }
        for t in 0..T {
            sums[t][half] = acc[t];
        }
    }
    sums
}
