//! AVX2: `vpmaddubsw` multiplies weight fields `code + 1` with activations and adds pairs into 16-bit lanes.
//!
//! A pair lies between -2 · 2 · 128 = -512 and 2 · 2 · 127 = 508, so 64 of them, from -32768 to 32512, just
//! fit a 16-bit lane: after [`CHUNK_STEPS`] steps of 4 pairs the lanes are widened to i32. `vpmaddubsw`
//! itself cannot saturate.

use std::arch::x86_64::*;
use std::ops::Range;

use super::output::{Output, Sink};
use super::pack::{STEP_WORDS, Tile};
use crate::TernaryWeights;
use crate::ternary_weights::{BLOCK_ROWS, GroupScales, Line, STEP_LINES};

/// Tokens of a full tile: 6 × 2 accumulators, 2 weight vectors, one broadcast and one product fill the 16
/// registers.
pub(super) const TILE_TOKENS: usize = 6;

/// Tokens up to which a tile is multiplied straight from packed weights: 3 × 4 accumulators.
const NARROW_TOKENS: usize = 3;

/// Steps whose pair sums a 16-bit lane can hold.
const CHUNK_STEPS: usize = 16;

/// Vectors of 8 rows in a block.
const VECTORS: usize = BLOCK_ROWS / 8;

/// Vectors of 8 rows in a line.
const LINE_VECTORS: usize = 2;

/// Vectors of a panel for one line.
const LINE_FIELDS: usize = STEP_WORDS * LINE_VECTORS;

/// Sums of a tile: for every token 4 vectors of 8 rows.
type Sums<const T: usize> = [[__m256i; VECTORS]; T];

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
    let needs_panel = tiles.clone().any(|tile| tile.sums.len() > NARROW_TOKENS);
    let (mut panel, mut unpacked) = (Panel::new(), Vec::new());
    for block in blocks {
        let lines = w.lines(block, &mut unpacked);
        let groups = w.groups(block).filter(|_| T::SCALED);
        let group_lines = groups.map_or(lines.len(), |groups| groups.steps * STEP_LINES);
        if needs_panel {
            panel.resize(lines.len() * LINE_FIELDS, _mm256_setzero_si256());
            let panels = panel.chunks_exact_mut(group_lines * LINE_FIELDS);
            lines.chunks_exact(group_lines).zip(panels).for_each(|(lines, panel)| unpack(lines, panel));
        }
        for tile in tiles.clone() {
            macro_rules! run {
                ($kernel:ident, $tokens:literal, $weights:expr, $unit:expr) => {
                    if let Some(groups) = groups {
                        let mut values = [[_mm256_setzero_ps(); VECTORS]; $tokens];
                        let of_groups = $weights.chunks_exact(group_lines * $unit).zip(groups.scales);
                        for (g, (weights, scales)) in of_groups.enumerate() {
                            let tile = tile.group(g, groups.steps);
                            let mut sums = start::<$tokens>(tile.sums);
                            $kernel(&mut sums, weights, tile.words);
                            add_group(&mut values, &sums, scales);
                        }
                        for (t, values) in values.iter().enumerate() {
                            // SAFETY: the contract of `put_groups` is the caller's.
                            unsafe { sink.put_groups(tile.first + t, block, floats(values)) };
                        }
                    } else {
                        let mut sums = start::<$tokens>(tile.sums);
                        $kernel(&mut sums, $weights, tile.words);
                        for (t, sums) in sums.iter().enumerate() {
                            // SAFETY: the contract of `put` is the caller's.
                            unsafe { sink.put(tile.first + t, block, lanes(sums)) };
                        }
                    }
                };
            }
            match tile.sums.len() {
                1 => run!(narrow, 1, lines, 1),
                2 => run!(narrow, 2, lines, 1),
                3 => run!(narrow, 3, lines, 1),
                4 => run!(wide, 4, &panel, LINE_FIELDS),
                5 => run!(wide, 5, &panel, LINE_FIELDS),
                6 => run!(wide, 6, &panel, LINE_FIELDS),
                tokens => unreachable!("a tile of {tokens} tokens"),
            }
        }
    }
}

/// Adds the sums of a group times its scales: multiply, then add.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn add_group<const T: usize>(values: &mut [[__m256; VECTORS]; T], sums: &Sums<T>, scales: &GroupScales) {
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
fn wide<const T: usize>(sums: &mut Sums<T>, panel: &[__m256i], words: &[i32]) {
    for (l, panel) in panel.chunks_exact(panel.len() / STEP_LINES).enumerate() {
        let weights = panel.chunks(CHUNK_STEPS * STEP_WORDS * LINE_VECTORS);
        for (weights, words) in weights.zip(words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
            let mut acc = [[_mm256_setzero_si256(); LINE_VECTORS]; T];
            for (fields, words) in weights.chunks_exact(LINE_VECTORS).zip(words.chunks_exact(T)) {
                accumulate(&mut acc, [fields[0], fields[1]], words);
            }
            for t in 0..T {
                for v in 0..LINE_VECTORS {
                    let sum = &mut sums[t][l * LINE_VECTORS + v];
                    *sum = _mm256_add_epi32(*sum, widen(acc[t][v]));
                }
            }
        }
    }
}

/// Few tokens, bound by memory: fields are cut out of the packed lines on the way.
#[inline]
#[target_feature(enable = "avx2")]
fn narrow<const T: usize>(sums: &mut Sums<T>, lines: &[Line], words: &[i32]) {
    let mask = _mm256_set1_epi8(3);
    let chunks = lines.chunks(CHUNK_STEPS * STEP_LINES);
    for (lines, words) in chunks.zip(words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
        let mut acc = [[_mm256_setzero_si256(); VECTORS]; T];
        for (lines, words) in lines.chunks_exact(STEP_LINES).zip(words.chunks_exact(STEP_WORDS * T)) {
            let ([a, b], [c, d]) = (load(&lines[0]), load(&lines[1]));
            let packed = [a, b, c, d];
            let fields = |vector: __m256i| _mm256_and_si256(vector, mask);
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
}

/// `Σ (code + 1) · x = Σ code · x + Σ x`, so sums start at minus the token's sum.
#[inline]
#[target_feature(enable = "avx2")]
fn start<const T: usize>(token_sums: &[i32]) -> Sums<T> {
    let mut sums = [[_mm256_setzero_si256(); VECTORS]; T];
    let token_sums = &token_sums[..T];
    for t in 0..T {
        sums[t] = [_mm256_set1_epi32(-token_sums[t]); VECTORS];
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

#[inline]
#[target_feature(enable = "avx2")]
fn load(line: &Line) -> [__m256i; LINE_VECTORS] {
    let vectors = (&raw const *line).cast::<__m256i>();
    // SAFETY: a line is 64 bytes, aligned to 64: two vectors of 32.
    unsafe { [_mm256_load_si256(vectors), _mm256_load_si256(vectors.add(1))] }
}

/// The sums of one token as integers.
fn lanes(sums: &[__m256i; VECTORS]) -> &[i32; BLOCK_ROWS] {
    // SAFETY: four vectors of 8 i32 are 32 i32, and every bit pattern is one.
    unsafe { &*(&raw const *sums).cast() }
}

/// The values of one token.
fn floats(values: &[__m256; VECTORS]) -> &[f32; BLOCK_ROWS] {
    // SAFETY: four vectors of 8 f32 are 32 f32.
    unsafe { &*(&raw const *values).cast() }
}
