//! NEON: the loop that all ARM backends share, and the kernels of the plain one, which every aarch64
//! processor runs.
//!
//! A vector holds weight fields `code + 1` of 4 rows × 4 columns. Since `Σ (code + 1) · x = Σ code · x + Σ
//! x`, sums start at minus the token's sum, whatever the instruction: `smlal` here, `sdot` in `neon_dot`,
//! `smmla` in `neon_i8mm`.
//!
//! `smlal` adds one product to each 16-bit lane. A product lies between -2 · 128 = -256 and 2 · 127 = 254, so
//! 128 of them, from -32768 to 32512, just fit: after [`CHUNK_STEPS`] steps of 4 products a lane the lanes
//! are widened to i32.

use std::arch::aarch64::*;
use std::ops::Range;

use super::output::{Output, Sink};
use super::pack::{STEP_WORDS, Tile};
use super::{neon_dot, neon_i8mm};
use crate::ternary_weights::{BLOCK_ROWS, GroupScales, Line, STEP_LINES};
use crate::vector::f16_bits_to_f32;
use crate::{Backend, TernaryWeights};

/// Tokens of a full tile of 16-bit sums: 3 × 8 accumulators for 16 rows, 4 weight vectors and an activation
/// vector.
const TILE_TOKENS: usize = 3;

/// Tokens of a full tile of 32-bit sums: 6 × 4 accumulators for 16 rows, weight vectors, and the activations.
pub(super) const WIDE_TOKENS: usize = 6;

/// Steps whose products a 16-bit lane can hold.
const CHUNK_STEPS: usize = 32;

/// Vectors of 4 rows in a block.
pub(super) const VECTORS: usize = BLOCK_ROWS / 4;

/// Vectors of 4 rows in a line.
pub(super) const LINE_VECTORS: usize = VECTORS / STEP_LINES;

/// Sums of a tile: for every token 8 vectors of 4 rows.
pub(super) type Sums<const T: usize> = [[int32x4_t; VECTORS]; T];

/// One block, a byte for each weight: for each of its lines [steps, 4 fields, 4 vectors of 4 rows × 4
/// columns]; where groups have scales, one group after the other.
pub(super) type Panel = Vec<int8x16_t>;

/// Vectors of a panel for one line.
pub(super) const LINE_FIELDS: usize = STEP_WORDS * LINE_VECTORS;

/// Tokens of a full tile of a NEON backend.
pub(super) fn tile_tokens(backend: Backend) -> usize {
    if backend == Backend::Neon { TILE_TOKENS } else { WIDE_TOKENS }
}

/// Multiplies every tile with the blocks of weights.
///
/// # Safety
/// The processor must support the backend, which is one of NEON. No other thread may write the same tokens
/// and blocks to the sink.
#[target_feature(enable = "neon")]
pub(super) unsafe fn multiply<'a, T: Output>(
    backend: Backend,
    tiles: &(impl Iterator<Item = Tile<'a>> + Clone),
    w: &TernaryWeights,
    blocks: Range<usize>,
    sink: &Sink<'_, T>,
) {
    // Few tokens, bound by memory: fields are cut out of the packed lines on the way. Many: unpacked once for
    // all tiles.
    let needs_panel = match backend {
        Backend::Neon => tiles.clone().nth(1).is_some(),
        _ => tiles.clone().any(|tile| tile.sums.len() > 3),
    };
    let (mut panel, mut unpacked) = (Panel::new(), Vec::new());
    for block in blocks {
        let lines = w.lines(block, &mut unpacked);
        let groups = w.groups(block).filter(|_| T::SCALED);
        let group_lines = groups.map_or(lines.len(), |groups| groups.steps * STEP_LINES);
        if needs_panel {
            panel.resize(lines.len() * LINE_FIELDS, vdupq_n_s8(0));
            let panels = panel.chunks_exact_mut(group_lines * LINE_FIELDS);
            lines
                .chunks_exact(group_lines)
                .zip(panels)
                .for_each(|(lines, panel)| unpack(lines, backend, panel));
        }
        for tile in tiles.clone() {
            macro_rules! run {
                ($tokens:literal) => {
                    if let Some(groups) = groups {
                        let mut values = [[0f32; BLOCK_ROWS]; $tokens];
                        for (g, scales) in groups.scales.iter().enumerate() {
                            let lines = &lines[g * group_lines..][..group_lines];
                            let fields = group_lines * LINE_FIELDS;
                            let panel = panel.get(g * fields..(g + 1) * fields).unwrap_or_default();
                            let tile = tile.group(g, groups.steps);
                            // SAFETY: the caller promises that the processor supports the backend.
                            let sums =
                                unsafe { sums_of::<$tokens>(backend, needs_panel, lines, panel, tile) };
                            for (values, sums) in values.iter_mut().zip(&sums) {
                                add_group(values, lanes(sums), scales);
                            }
                        }
                        for (t, values) in values.iter().enumerate() {
                            // SAFETY: the contract of `put_groups` is the caller's.
                            unsafe { sink.put_groups(tile.first + t, block, values) };
                        }
                    } else {
                        // SAFETY: the caller promises that the processor supports the backend.
                        let sums = unsafe { sums_of::<$tokens>(backend, needs_panel, lines, &panel, tile) };
                        for (t, sums) in sums.iter().enumerate() {
                            // SAFETY: the contract of `put` is the caller's.
                            unsafe { sink.put(tile.first + t, block, lanes(sums)) };
                        }
                    }
                };
            }
            match tile.sums.len() {
                1 => run!(1),
                2 => run!(2),
                3 => run!(3),
                4 => run!(4),
                5 => run!(5),
                6 => run!(6),
                tokens => unreachable!("a tile of {tokens} tokens"),
            }
        }
    }
}

/// The sums of T tokens over some lines, which `panel` holds unpacked if the backend needs it.
///
/// # Safety
/// The processor must support the backend: dotprod for `NeonDot`, dotprod and i8mm for `NeonI8mm`.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn sums_of<const T: usize>(
    backend: Backend,
    needs_panel: bool,
    lines: &[Line],
    panel: &[int8x16_t],
    tile: Tile<'_>,
) -> Sums<T> {
    // SAFETY: the caller's promise.
    unsafe {
        match backend {
            Backend::Neon if needs_panel => wide::<T>(panel, tile),
            Backend::Neon => narrow::<T>(lines, tile),
            _ if T == 1 => std::array::from_fn(|_| neon_dot::single(lines, tile)[0]),
            _ if T <= 3 => neon_dot::narrow::<T>(lines, tile),
            Backend::NeonDot => neon_dot::wide::<T>(panel, tile),
            _ => neon_i8mm::wide::<T>(panel, tile),
        }
    }
}

/// Adds the sums of a group times its scales: multiply, then add.
#[inline]
#[target_feature(enable = "neon")]
fn add_group(values: &mut [f32; BLOCK_ROWS], sums: &[i32; BLOCK_ROWS], scales: &GroupScales) {
    for ((value, sum), scale) in values.iter_mut().zip(sums).zip(scales) {
        *value += f16_bits_to_f32(scale.to_bits()) * *sum as f32;
    }
}

/// Unpacks lines: two bits to a byte, the first line's rows before the second's, a line's fields in the
/// backend's order.
#[target_feature(enable = "neon")]
fn unpack(lines: &[Line], backend: Backend, panel: &mut [int8x16_t]) {
    let (out, _) = panel.as_chunks_mut::<LINE_FIELDS>();
    for (l, out) in out.chunks_exact_mut(lines.len() / STEP_LINES).enumerate() {
        for (line, out) in lines.iter().skip(l).step_by(STEP_LINES).zip(out) {
            let [a, b, c, d] = load(line);
            let vectors = [fields(a), fields(b), fields(c), fields(d)];
            match backend {
                Backend::NeonI8mm => neon_i8mm::row_pairs(&vectors, out),
                _ => column_words(&vectors, out),
            }
        }
    }
}

/// The order of a panel for `smlal` and `sdot`: 4 columns of all rows, then the next 4.
#[inline]
#[target_feature(enable = "neon")]
fn column_words(vectors: &[[int8x16_t; STEP_WORDS]; LINE_VECTORS], out: &mut [int8x16_t; LINE_FIELDS]) {
    for (v, fields) in vectors.iter().enumerate() {
        for (s, fields) in fields.iter().enumerate() {
            out[s * LINE_VECTORS + v] = *fields;
        }
    }
}

/// The four fields of every byte.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn fields(packed: uint8x16_t) -> [int8x16_t; STEP_WORDS] {
    let mask = vdupq_n_u8(3);
    [
        vandq_u8(packed, mask),
        vandq_u8(vshrq_n_u8::<2>(packed), mask),
        vandq_u8(vshrq_n_u8::<4>(packed), mask),
        vshrq_n_u8::<6>(packed),
    ]
    .map(|fields| vreinterpretq_s8_u8(fields))
}

/// 16-bit sums of T tokens and the 16 rows of a line: rows 4v and 4v + 1, then 4v + 2 and 4v + 3, by column
/// modulo 4.
type ShortSums<const T: usize> = [[[int16x8_t; 2]; LINE_VECTORS]; T];

/// Several tiles, from an unpacked block, 16 rows at a time.
#[target_feature(enable = "neon")]
fn wide<const T: usize>(panel: &[int8x16_t], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for (l, panel) in panel.chunks_exact(panel.len() / STEP_LINES).enumerate() {
        let chunks = panel.chunks(CHUNK_STEPS * LINE_FIELDS);
        for (panel, words) in chunks.zip(tile.words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
            let mut acc = [[[vdupq_n_s16(0); 2]; LINE_VECTORS]; T];
            let (panel, _) = panel.as_chunks::<LINE_FIELDS>();
            for (fields, words) in panel.iter().zip(words.chunks_exact(STEP_WORDS * T)) {
                for s in 0..STEP_WORDS {
                    let fields = std::array::from_fn(|v| fields[s * LINE_VECTORS + v]);
                    accumulate(&mut acc, fields, s, words);
                }
            }
            widen(&mut sums, l, &acc);
        }
    }
    sums
}

/// One tile, from packed lines, 16 rows at a time.
#[target_feature(enable = "neon")]
fn narrow<const T: usize>(lines: &[Line], tile: Tile<'_>) -> Sums<T> {
    let mut sums = start::<T>(tile.sums);
    for l in 0..STEP_LINES {
        let chunks = lines.chunks(CHUNK_STEPS * STEP_LINES);
        for (lines, words) in chunks.zip(tile.words.chunks(CHUNK_STEPS * STEP_WORDS * T)) {
            let mut acc = [[[vdupq_n_s16(0); 2]; LINE_VECTORS]; T];
            for (lines, words) in lines.chunks_exact(STEP_LINES).zip(words.chunks_exact(STEP_WORDS * T)) {
                let fields = load(&lines[l]).map(|packed| fields(packed));
                for s in 0..STEP_WORDS {
                    accumulate(&mut acc, fields.map(|fields| fields[s]), s, words);
                }
            }
            widen(&mut sums, l, &acc);
        }
    }
    sums
}

/// Adds the products of 4 columns, those of field `s`: `fields` for 16 rows, one word for each token.
#[inline]
#[target_feature(enable = "neon")]
fn accumulate<const T: usize>(
    acc: &mut ShortSums<T>,
    fields: [int8x16_t; LINE_VECTORS],
    s: usize,
    words: &[i32],
) {
    for t in 0..T {
        let x = vreinterpretq_s8_s32(vdupq_n_s32(words[(s / 2 * T + t) * 2 + s % 2]));
        for v in 0..LINE_VECTORS {
            let [low, high] = acc[t][v];
            acc[t][v] =
                [vmlal_s8(low, vget_low_s8(fields[v]), vget_low_s8(x)), vmlal_high_s8(high, fields[v], x)];
        }
    }
}

/// Adds the 16-bit sums of line `l`, four to a row.
#[inline]
#[target_feature(enable = "neon")]
fn widen<const T: usize>(sums: &mut Sums<T>, l: usize, acc: &ShortSums<T>) {
    for t in 0..T {
        for v in 0..LINE_VECTORS {
            let [low, high] = acc[t][v].map(|pairs| vpaddlq_s16(pairs));
            let sum = &mut sums[t][l * LINE_VECTORS + v];
            *sum = vaddq_s32(*sum, vpaddq_s32(low, high));
        }
    }
}

/// Minus the sum of every token's codes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn start<const T: usize>(token_sums: &[i32]) -> Sums<T> {
    let token_sums = &token_sums[..T];
    std::array::from_fn(|t| [vdupq_n_s32(-token_sums[t]); VECTORS])
}

/// The four vectors of a line: rows 4v to 4v + 3.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load(line: &Line) -> [uint8x16_t; LINE_VECTORS] {
    let bytes = (&raw const *line).cast::<u8>();
    // SAFETY: a line is 64 bytes: four vectors of 16.
    std::array::from_fn(|v| unsafe { vld1q_u8(bytes.add(16 * v)) })
}

/// The words of 8 columns for T tokens, in pairs: word 0 and 1 of an even token, then of the odd one
/// after it, or 0 if there is none.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn token_pairs<const T: usize>(words: &[i32]) -> [int32x4_t; WIDE_TOKENS / 2] {
    let mut pairs = [vdupq_n_s32(0); WIDE_TOKENS / 2];
    for (p, pair) in pairs.iter_mut().enumerate().take(T.div_ceil(2)) {
        *pair = if 2 * p + 1 < T {
            // SAFETY: the slice has four words.
            unsafe { vld1q_s32(words[4 * p..][..4].as_ptr()) }
        } else {
            // SAFETY: the slice has two words.
            unsafe { vcombine_s32(vld1_s32(words[4 * p..][..2].as_ptr()), vdup_n_s32(0)) }
        };
    }
    pairs
}

/// The sums of one token as integers.
fn lanes(sums: &[int32x4_t; VECTORS]) -> &[i32; BLOCK_ROWS] {
    // SAFETY: eight vectors of 4 i32 are 32 i32, and every bit pattern is one.
    unsafe { &*(&raw const *sums).cast() }
}
