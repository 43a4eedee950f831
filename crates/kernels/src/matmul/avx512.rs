//! AVX-512 VNNI: `vpdpbusd` adds 4 products a lane, 64 an instruction, straight into i32.
//!
//! The unsigned operand is a vector of weight fields `code + 1` (16 rows × 4 columns), the signed one a
//! token's 4 activations, broadcast. Since `Σ (code + 1) · x = Σ code · x + Σ x`, accumulators start at minus
//! the token's sum.

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512_five_trits;
use super::cell::multiply_cell;
use super::output::{Output, Sink};
use super::pack::{STEP_WORDS, Tile};
use crate::ternary_weights::{BLOCK_ROWS, GroupScales, Line, STEP_LINES};
use crate::{Backend, TernaryLayout, TernaryWeights, five_trits};

/// Tokens of a full tile: 12 × 2 accumulators, 2 weight vectors, packed weights and a mask fill the 32
/// registers.
pub(super) const TILE_TOKENS: usize = 12;

/// Sums of a tile: for every token 2 vectors of 16 rows.
pub(super) type Sums<const T: usize> = [[__m512i; STEP_LINES]; T];

/// Calls `run!(kernel, tokens)` for the number of tokens of a tile: `narrow` where memory is the bound,
/// `wide` beyond.
macro_rules! each_tile {
    ($tokens:expr, $run:ident) => {
        match $tokens {
            1 => $run!(narrow, 1),
            2 => $run!(narrow, 2),
            3 => $run!(narrow, 3),
            4 => $run!(wide, 4),
            5 => $run!(wide, 5),
            6 => $run!(wide, 6),
            7 => $run!(wide, 7),
            8 => $run!(wide, 8),
            9 => $run!(wide, 9),
            10 => $run!(wide, 10),
            11 => $run!(wide, 11),
            12 => $run!(wide, 12),
            tokens => unreachable!("a tile of {tokens} tokens"),
        }
    };
}

/// Multiplies every tile with the blocks of weights.
///
/// # Safety
/// The processor must support AVX-512 F, BW, VL and VNNI. No other thread may write the same tokens and
/// blocks to the sink.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
pub(super) unsafe fn multiply<'a, T: Output>(
    tiles: &(impl Iterator<Item = Tile<'a>> + Clone),
    w: &TernaryWeights,
    blocks: Range<usize>,
    sink: &Sink<'_, T>,
) {
    // A single tile: unpacked in registers. Several tiles: unpacked once for all of them.
    let in_registers = w.layout() == TernaryLayout::FiveTrits
        && five_trits::is_fast(Backend::Avx512Vnni)
        && tiles.clone().nth(1).is_none();
    let mut unpacked = Vec::new();
    for block in blocks {
        if in_registers {
            for tile in tiles.clone() {
                macro_rules! run {
                    ($kernel:ident, $tokens:literal) => {{
                        // SAFETY: `is_fast` has found AVX-512 VBMI.
                        let sums = unsafe { avx512_five_trits::$kernel::<$tokens>(w.stored(block), tile) };
                        for (t, sums) in sums.iter().enumerate() {
                            // SAFETY: the contract of `put` is the caller's.
                            unsafe { sink.put(tile.first + t, block, lanes(sums)) };
                        }
                    }};
                }
                each_tile!(tile.sums.len(), run);
            }
            continue;
        }
        let lines = w.lines(block, &mut unpacked);
        let groups = w.groups(block).filter(|_| T::SCALED);
        for tile in tiles.clone() {
            macro_rules! run {
                ($kernel:ident, $tokens:literal) => {
                    multiply_cell!($kernel, $tokens, _mm512_setzero_ps, STEP_LINES; lines, STEP_LINES, groups, tile, sink, block)
                };
            }
            each_tile!(tile.sums.len(), run);
        }
    }
}

/// Adds the sums of a group times its scales: multiply, then add.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn add_group<const T: usize>(values: &mut [[__m512; STEP_LINES]; T], sums: &Sums<T>, scales: &GroupScales) {
    let (halves, _) = scales.as_chunks::<16>();
    for (v, scales) in halves.iter().enumerate() {
        // SAFETY: sixteen f16 numbers are 32 bytes; the load may be unaligned.
        let scales = _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(scales.as_ptr().cast()) });
        for t in 0..T {
            let product = _mm512_mul_ps(scales, _mm512_cvtepi32_ps(sums[t][v]));
            values[t][v] = _mm512_add_ps(values[t][v], product);
        }
    }
}

/// Several tokens: every field is shifted down to 0, 1 or 2 once and used by all tokens.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn wide<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut acc = start::<T>(tile.sums);
    let mask = _mm512_set1_epi8(3);
    for (lines, words) in lines.chunks_exact(STEP_LINES).zip(tile.words.chunks_exact(STEP_WORDS * T)) {
        let packed = [load(&lines[0]), load(&lines[1])];
        // Bits that a 16-bit shift brings over from the neighbouring byte fall outside the mask.
        let fields = |vector: __m512i| _mm512_and_si512(vector, mask);
        accumulate(&mut acc, packed.map(fields), &words[..T]);
        accumulate(&mut acc, packed.map(|v| fields(_mm512_srli_epi16::<2>(v))), &words[T..2 * T]);
        accumulate(&mut acc, packed.map(|v| fields(_mm512_srli_epi16::<4>(v))), &words[2 * T..3 * T]);
        accumulate(&mut acc, packed.map(|v| fields(_mm512_srli_epi16::<6>(v))), &words[3 * T..]);
    }
    acc
}

/// Few tokens, bound by memory: fields stay where they are, times 1, 4, 16 or 64, each in an accumulator of
/// its own, which is shifted once at the end. A sum of multiples of 64 is at most 2¹³ steps · 4 · 128 · 128 =
/// 2²⁹.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn narrow<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let zero = [[_mm512_setzero_si512(); STEP_LINES]; T];
    let mut acc = [start::<T>(tile.sums), zero, zero, zero];
    let masks = [0x03, 0x0c, 0x30, 0xc0u8].map(|mask| _mm512_set1_epi8(mask as i8));
    for (lines, words) in lines.chunks_exact(STEP_LINES).zip(tile.words.chunks_exact(STEP_WORDS * T)) {
        let packed = [load(&lines[0]), load(&lines[1])];
        for s in 0..STEP_WORDS {
            let fields = packed.map(|vector| _mm512_and_si512(vector, masks[s]));
            accumulate(&mut acc[s], fields, &words[s * T..(s + 1) * T]);
        }
    }
    let [mut sums, by_4, by_16, by_64] = acc;
    for t in 0..T {
        for v in 0..STEP_LINES {
            let low = _mm512_add_epi32(sums[t][v], _mm512_srai_epi32::<2>(by_4[t][v]));
            let high =
                _mm512_add_epi32(_mm512_srai_epi32::<4>(by_16[t][v]), _mm512_srai_epi32::<6>(by_64[t][v]));
            sums[t][v] = _mm512_add_epi32(low, high);
        }
    }
    sums
}

#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn start<const T: usize>(sums: &[i32]) -> Sums<T> {
    let mut acc = [[_mm512_setzero_si512(); STEP_LINES]; T];
    let sums = &sums[..T];
    for t in 0..T {
        acc[t] = [_mm512_set1_epi32(-sums[t]); STEP_LINES];
    }
    acc
}

/// Adds the products of 4 columns: `fields` for 32 rows, one word for each token.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl,avx512vnni")]
fn accumulate<const T: usize>(acc: &mut Sums<T>, fields: [__m512i; STEP_LINES], words: &[i32]) {
    for t in 0..T {
        let x = _mm512_set1_epi32(words[t]);
        for v in 0..STEP_LINES {
            acc[t][v] = _mm512_dpbusd_epi32(acc[t][v], fields[v], x);
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(line: &Line) -> __m512i {
    // SAFETY: a line is 64 bytes, aligned to 64.
    unsafe { _mm512_load_si512((&raw const *line).cast()) }
}

/// The sums of one token as integers.
fn lanes(sums: &[__m512i; STEP_LINES]) -> &[i32; BLOCK_ROWS] {
    // SAFETY: two vectors of 16 i32 are 32 i32, and every bit pattern is one.
    unsafe { &*(&raw const *sums).cast() }
}

/// The values of one token.
fn floats(values: &[__m512; STEP_LINES]) -> &[f32; BLOCK_ROWS] {
    // SAFETY: two vectors of 16 f32 are 32 f32.
    unsafe { &*(&raw const *values).cast() }
}
