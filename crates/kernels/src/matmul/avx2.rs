//! AVX2: `vpmaddubsw` multiplies weight fields `code + 1` with activations and adds pairs into 16-bit lanes.
//!
//! A pair lies between -2 · 2 · 128 = -512 and 2 · 2 · 127 = 508, so 64 of them, from -32768 to 32512, just
//! fit a 16-bit lane: after [`CHUNK_STEPS`] steps of 4 pairs the lanes are widened to i32. `vpmaddubsw`
//! itself cannot saturate.

use std::arch::x86_64::*;
use std::ops::Range;

use super::cell::multiply_cell;
use super::output::{Output, Sink};
use super::pack::{STEP_WORDS, Tile};
use super::ymm::{self, LINE_VECTORS, Sums, VECTORS, add_group, floats, lanes, load, start};
use crate::TernaryWeights;
use crate::ternary_weights::{Line, STEP_LINES};

/// Tokens of a full tile: 6 × 2 accumulators, 2 weight vectors, one broadcast and one product fill the 16
/// registers.
pub(super) const TILE_TOKENS: usize = ymm::TILE_TOKENS;

/// Tiles from which a block is worth unpacking to a panel; fewer cut fields out of the packed lines themselves.
const PANEL_TILES: usize = 3;

/// Steps whose pair sums a 16-bit lane can hold.
const CHUNK_STEPS: usize = 16;

/// Vectors of a panel for one line.
const LINE_FIELDS: usize = STEP_WORDS * LINE_VECTORS;

/// One block, a byte for each weight: for each of its lines [steps · 4, 2] vectors of 8 rows × 4 columns; where groups
/// have scales, one group after the other.
type Panel = Vec<__m256i>;

/// Multiplies every tile with the blocks of weights.
///
/// # Safety
/// The processor must support AVX2 and F16C. No other thread may write the same tokens and blocks to the sink.
#[target_feature(enable = "avx2,f16c")]
pub(super) unsafe fn multiply<'a, T: Output>(
    tiles: &(impl Iterator<Item = Tile<'a>> + Clone),
    w: &TernaryWeights,
    blocks: Range<usize>,
    sink: &Sink<'_, T>,
) {
    let has_panel = tiles.clone().nth(PANEL_TILES - 1).is_some();
    let (mut panel, mut unpacked) = (Panel::new(), Vec::new());
    for block in blocks {
        let lines = w.lines(block, &mut unpacked);
        let groups = w.groups(block).filter(|_| T::SCALED);
        if has_panel {
            let group_lines = groups.map_or(lines.len(), |groups| groups.steps * STEP_LINES);
            panel.resize(lines.len() * LINE_FIELDS, _mm256_setzero_si256());
            let panels = panel.chunks_exact_mut(group_lines * LINE_FIELDS);
            lines.chunks_exact(group_lines).zip(panels).for_each(|(lines, panel)| unpack(lines, panel));
        }
        for tile in tiles.clone() {
            macro_rules! run {
                ($kernel:ident, $tokens:literal, $weights:expr, $unit:expr) => {
                    multiply_cell!($kernel, $tokens, _mm256_setzero_ps, VECTORS; $weights, $unit, groups, tile, sink, block)
                };
                ($tokens:literal) => {
                    if has_panel {
                        run!(from_panel, $tokens, &panel, STEP_LINES * LINE_FIELDS)
                    } else {
                        run!(wide, $tokens, lines, STEP_LINES)
                    }
                };
            }
            match tile.sums.len() {
                1 => run!(one, 1, lines, STEP_LINES),
                2 => run!(narrow, 2, lines, STEP_LINES),
                3 => run!(narrow, 3, lines, STEP_LINES),
                4 => run!(4),
                5 => run!(5),
                6 => run!(6),
                tokens => unreachable!("a tile of {tokens} tokens"),
            }
        }
    }
}

/// Unpacks lines: two bits to a byte, columns in order, the first line's rows before the second's.
#[target_feature(enable = "avx2")]
fn unpack(lines: &[Line], panel: &mut [__m256i]) {
    let mask = _mm256_set1_epi8(3);
    let (fields, _) = panel.as_chunks_mut::<LINE_FIELDS>();
    for (l, fields) in fields.chunks_exact_mut(lines.len() / STEP_LINES).enumerate() {
        for (line, fields) in lines.iter().skip(l).step_by(STEP_LINES).zip(fields) {
            for (v, packed) in load(line).into_iter().enumerate() {
                // Bits that a 16-bit shift brings over from the neighbouring byte fall outside the mask.
                fields[v] = _mm256_and_si256(packed, mask);
                fields[LINE_VECTORS + v] = _mm256_and_si256(_mm256_srli_epi16::<2>(packed), mask);
                fields[2 * LINE_VECTORS + v] = _mm256_and_si256(_mm256_srli_epi16::<4>(packed), mask);
                fields[3 * LINE_VECTORS + v] = _mm256_and_si256(_mm256_srli_epi16::<6>(packed), mask);
            }
        }
    }
}

/// Several tokens, from an unpacked block, 16 rows at a time.
#[inline]
#[target_feature(enable = "avx2")]
fn from_panel<const T: usize>(panel: &[__m256i], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for (l, panel) in panel.chunks_exact(panel.len() / STEP_LINES).enumerate() {
        let weights = panel.chunks(CHUNK_STEPS * STEP_WORDS * LINE_VECTORS);
        for (weights, words) in weights.zip(tile.words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
            let mut acc = [[_mm256_setzero_si256(); LINE_VECTORS]; T];
            for (fields, words) in weights.chunks_exact(LINE_VECTORS).zip(words.chunks_exact(T)) {
                accumulate(&mut acc, [fields[0], fields[1]], words);
            }
            add_line(&mut sums, l, &acc);
        }
    }
    sums
}

/// Several tokens, from packed lines, 16 rows at a time.
#[inline]
#[target_feature(enable = "avx2")]
fn wide<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    let mask = _mm256_set1_epi8(3);
    let fields = |vector: __m256i| _mm256_and_si256(vector, mask);
    for l in 0..STEP_LINES {
        let chunks = lines.chunks(CHUNK_STEPS * STEP_LINES);
        for (lines, words) in chunks.zip(tile.words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
            let mut acc = [[_mm256_setzero_si256(); LINE_VECTORS]; T];
            let lines = lines.iter().skip(l).step_by(STEP_LINES);
            for (line, words) in lines.zip(words.chunks_exact(STEP_WORDS * T)) {
                let packed = load(line);
                accumulate(&mut acc, packed.map(fields), &words[..T]);
                accumulate(&mut acc, packed.map(|v| fields(_mm256_srli_epi16::<2>(v))), &words[T..2 * T]);
                accumulate(&mut acc, packed.map(|v| fields(_mm256_srli_epi16::<4>(v))), &words[2 * T..3 * T]);
                accumulate(&mut acc, packed.map(|v| fields(_mm256_srli_epi16::<6>(v))), &words[3 * T..]);
            }
            add_line(&mut sums, l, &acc);
        }
    }
    sums
}

/// Adds the pair sums of a line's rows.
#[inline]
#[target_feature(enable = "avx2")]
fn add_line<const T: usize>(sums: &mut Sums<T>, line: usize, pairs: &[[__m256i; LINE_VECTORS]; T]) {
    for t in 0..T {
        for v in 0..LINE_VECTORS {
            let sum = &mut sums[t][line * LINE_VECTORS + v];
            *sum = _mm256_add_epi32(*sum, widen(pairs[t][v]));
        }
    }
}

/// One token, bound by memory: the second and the fourth field of a byte stay where they are, times 4, and have 16-bit
/// lanes of their own, which hold [`CHUNK_STEPS`] / 2 steps of two such pairs each.
/// T is 1; all kernels of a tile are named with their number of tokens.
#[inline]
#[target_feature(enable = "avx2")]
fn one<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    const STEPS: usize = CHUNK_STEPS / 2;
    let mut sums = start::<1>(tile.sums)[0];
    let (mask, mask_by_4) = (_mm256_set1_epi8(0x03), _mm256_set1_epi8(0x0c));
    let chunks = lines.chunks(STEPS * STEP_LINES);
    for (lines, words) in chunks.zip(tile.words.chunks(STEPS * STEP_WORDS)) {
        let mut low = [_mm256_setzero_si256(); VECTORS];
        let mut high = low;
        for (lines, words) in lines.chunks_exact(STEP_LINES).zip(words.as_chunks::<STEP_WORDS>().0) {
            let ([a, b], [c, d]) = (load(&lines[0]), load(&lines[1]));
            let mut packed = [a, b, c, d];
            for pair in 0..STEP_WORDS / 2 {
                let [x, by_4] = [0, 1].map(|i| _mm256_set1_epi32(words[2 * pair + i]));
                for v in 0..VECTORS {
                    let fields = _mm256_and_si256(packed[v], mask);
                    low[v] = _mm256_add_epi16(low[v], _mm256_maddubs_epi16(fields, x));
                    let fields = _mm256_and_si256(packed[v], mask_by_4);
                    high[v] = _mm256_add_epi16(high[v], _mm256_maddubs_epi16(fields, by_4));
                    // Bits that a 16-bit shift brings over from the neighbouring byte fall outside the masks.
                    packed[v] = _mm256_srli_epi16::<4>(packed[v]);
                }
            }
        }
        for v in 0..VECTORS {
            // Each is at most a quarter of what a lane holds.
            let pairs = _mm256_add_epi16(low[v], _mm256_srai_epi16::<2>(high[v]));
            sums[v] = _mm256_add_epi32(sums[v], widen(pairs));
        }
    }
    [sums; T]
}

/// Few tokens, bound by memory: fields are cut out of the packed lines on the way.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    let mask = _mm256_set1_epi8(3);
    let fields = |vector: __m256i| _mm256_and_si256(vector, mask);
    let chunks = lines.chunks(CHUNK_STEPS * STEP_LINES);
    for (lines, words) in chunks.zip(tile.words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
        let mut acc = [[_mm256_setzero_si256(); VECTORS]; T];
        for (lines, words) in lines.chunks_exact(STEP_LINES).zip(words.chunks_exact(STEP_WORDS * T)) {
            let ([a, b], [c, d]) = (load(&lines[0]), load(&lines[1]));
            let packed = [a, b, c, d];
            accumulate(&mut acc, packed.map(fields), &words[..T]);
            accumulate(&mut acc, packed.map(|v| fields(_mm256_srli_epi16::<2>(v))), &words[T..2 * T]);
            accumulate(&mut acc, packed.map(|v| fields(_mm256_srli_epi16::<4>(v))), &words[2 * T..3 * T]);
            accumulate(&mut acc, packed.map(|v| fields(_mm256_srli_epi16::<6>(v))), &words[3 * T..]);
        }
        for t in 0..T {
            for v in 0..VECTORS {
                sums[t][v] = _mm256_add_epi32(sums[t][v], widen(acc[t][v]));
            }
        }
    }
    sums
}

/// Adds the pair sums of 4 columns: `fields` for 8 · V rows, one word for each token.
#[inline]
#[target_feature(enable = "avx2")]
fn accumulate<const T: usize, const V: usize>(
    acc: &mut [[__m256i; V]; T],
    fields: [__m256i; V],
    words: &[i32],
) {
    for t in 0..T {
        let x = _mm256_set1_epi32(words[t]);
        for v in 0..V {
            acc[t][v] = _mm256_add_epi16(acc[t][v], _mm256_maddubs_epi16(fields[v], x));
        }
    }
}

/// The two 16-bit pair sums of every row as one i32.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(pairs: __m256i) -> __m256i {
    _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
}
