//! Activations packed tile by tile, in the order in which the vector kernels read them.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;
use std::cell::Cell;
use std::ops::Range;

use super::tiling::Tiling;
use crate::ternary_weights::STEP_COLS;
use crate::{QuantizedRows, pool};

/// Words of a token in a step: 4 codes each.
pub(super) const STEP_WORDS: usize = STEP_COLS / 4;

/// One tile: consecutive tokens and their activations.
#[derive(Clone, Copy)]
pub(super) struct Tile<'a> {
    /// The first token.
    pub(super) first: usize,
    /// Words [cols / 4, tokens]: word (q, t) holds columns 4q..4q + 4 of token t; columns are padded with 0
    /// to whole steps. On aarch64 [cols / 8, tokens, 2]: words 2q and 2q + 1 of a token side by side.
    pub(super) words: &'a [i32],
    /// The sum of every token's codes.
    pub(super) sums: &'a [i32],
    /// Sums of every token's codes in each group of columns, [groups, tokens], where groups have scales.
    pub(super) group_sums: &'a [i32],
}

impl<'a> Tile<'a> {
    /// Group `group` of `steps` steps of columns, as a tile of its own.
    #[inline(always)]
    pub(super) fn group(&self, group: usize, steps: usize) -> Tile<'a> {
        let tokens = self.sums.len();
        let words = steps * STEP_WORDS * tokens;
        Tile {
            words: &self.words[group * words..][..words],
            sums: &self.group_sums[group * tokens..][..tokens],
            group_sums: &[],
            ..*self
        }
    }
}

/// The packed activations of a product.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a> {
    tiling: &'a Tiling,
    words: &'a [i32],
    sums: &'a [i32],
    group_sums: &'a [i32],
}

impl<'a> Packed<'a> {
    /// The tiles of a range.
    pub(super) fn tiles(self, range: Range<usize>) -> impl Iterator<Item = Tile<'a>> + Clone {
        let token_words = self.words.len() / self.sums.len();
        let groups = self.group_sums.len() / self.sums.len();
        range.map(move |i| {
            let tokens = self.tiling.first(i)..self.tiling.first(i + 1);
            Tile {
                first: tokens.start,
                words: &self.words[tokens.start * token_words..tokens.end * token_words],
                group_sums: &self.group_sums[tokens.start * groups..tokens.end * groups],
                sums: &self.sums[tokens],
            }
        })
    }
}

/// Packs activations for kernels of `steps` steps, tile after tile, and lends them to `use_them`; where groups of
/// `group` columns have scales, with the sums of their codes.
pub(super) fn with_packed(
    x: &QuantizedRows,
    tiling: &Tiling,
    steps: usize,
    group: Option<usize>,
    parallel: bool,
    use_them: impl FnOnce(Packed<'_>),
) {
    thread_local! {
        /// Kept between calls: a fresh buffer would fault in all its pages each time.
        static BUFFER: Cell<Vec<i32>> = const { Cell::new(Vec::new()) };
    }
    // Taken, not borrowed: a task of another product that this thread picks up meanwhile gets an empty one.
    let mut words = BUFFER.take();
    words.resize(x.rows() * steps * STEP_WORDS, 0);
    let token_words = steps * STEP_WORDS;
    // A few tiles a task, each with its own part of the buffer.
    let tiles_a_task =
        if parallel { (TASK_WORDS / token_words / tiling.first(1).max(1)).max(1) } else { usize::MAX };
    let mut rest = words.as_mut_slice();
    let mut tasks = Vec::new();
    let mut start = 0;
    while start < tiling.tiles() {
        let end = tiling.tiles().min(start.saturating_add(tiles_a_task));
        let len = (tiling.first(end) - tiling.first(start)) * token_words;
        tasks.push((start..end, rest.split_off_mut(..len).expect("the buffer holds all tiles")));
        start = end;
    }
    pool::for_each(tasks.into_iter(), |(tiles, packed)| pack_tiles(x, tiling, token_words, tiles, packed));
    let group_sums = group.map(|group| sums_of_groups(x, tiling, group)).unwrap_or_default();
    use_them(Packed { tiling, words: &words, sums: &x.sums, group_sums: &group_sums });
    BUFFER.set(words);
}

/// The sums of every token's codes in groups of `group` columns, tile after tile: [groups, tokens] each.
fn sums_of_groups(x: &QuantizedRows, tiling: &Tiling, group: usize) -> Vec<i32> {
    let groups = x.cols / group;
    let mut sums = vec![0; x.rows() * groups];
    let mut rest = sums.as_mut_slice();
    let mut tiles = Vec::with_capacity(tiling.tiles());
    for tile in 0..tiling.tiles() {
        let (first, end) = (tiling.first(tile), tiling.first(tile + 1));
        tiles.push((first, rest.split_off_mut(..(end - first) * groups).expect("a sum for every group")));
    }
    pool::for_each(tiles.into_iter(), |(first, sums)| {
        let tokens = sums.len() / groups;
        for (t, codes) in x.codes[first * x.cols..].chunks_exact(x.cols).take(tokens).enumerate() {
            for (g, codes) in codes.chunks_exact(group).enumerate() {
                sums[g * tokens + t] = codes.iter().map(|code| i32::from(*code)).sum();
            }
        }
    });
    sums
}

/// Words that one task packs at least.
const TASK_WORDS: usize = 1 << 14;

/// Packs a range of tiles, whose words are `packed`.
fn pack_tiles(
    x: &QuantizedRows,
    tiling: &Tiling,
    token_words: usize,
    tiles: Range<usize>,
    packed: &mut [i32],
) {
    let mut rest = packed;
    for tile in tiles {
        let (first, tokens) = (tiling.first(tile), tiling.first(tile + 1) - tiling.first(tile));
        let words = rest.split_off_mut(..tokens * token_words).expect("a tile lies in its range");
        let codes = &x.codes[first * x.cols..(first + tokens) * x.cols];
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 processor has SSE2.
        unsafe {
            pack_tile(codes, x.cols, tokens, words);
        }
        #[cfg(target_arch = "aarch64")]
        pack_tile(codes, x.cols, tokens, words);
    }
}

/// Packs one tile: `codes` [tokens, cols] to words [cols / 8, tokens, 2], padded with 0 to whole steps.
#[cfg(target_arch = "aarch64")]
fn pack_tile(codes: &[i8], cols: usize, tokens: usize, words: &mut [i32]) {
    let whole = cols / 8;
    let (whole_words, last_words) = words.split_at_mut(whole * 2 * tokens);
    for (t, row) in codes.chunks_exact(cols).enumerate() {
        let (pieces, rest) = row.as_chunks::<8>();
        for (piece, words) in pieces.iter().zip(whole_words.chunks_exact_mut(2 * tokens)) {
            words[2 * t..][..2].copy_from_slice(&words_of::<8, 2>(piece));
        }
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        let last_and_padding = std::iter::once(words_of::<8, 2>(&last)).chain(std::iter::repeat([0; 2]));
        for (piece, words) in last_and_padding.zip(last_words.chunks_exact_mut(2 * tokens)) {
            words[2 * t..][..2].copy_from_slice(&piece);
        }
    }
}

/// Packs one tile: `codes` [tokens, cols] to words [cols / 4, tokens], padded with 0 to whole steps.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse2")]
fn pack_tile(codes: &[i8], cols: usize, tokens: usize, words: &mut [i32]) {
    let whole = cols / STEP_COLS;
    let (whole_words, last_words) = words.split_at_mut(whole * STEP_WORDS * tokens);
    let row = |t: usize| codes[t * cols..][..cols].as_chunks::<STEP_COLS>().0;
    if tokens < 4 {
        for (step, words) in whole_words.chunks_exact_mut(STEP_WORDS * tokens).enumerate() {
            for t in 0..tokens {
                let step: [_; STEP_WORDS] = words_of(&row(t)[step]);
                for (word, words) in step.into_iter().zip(words.chunks_exact_mut(tokens)) {
                    words[t] = word;
                }
            }
        }
    } else {
        // Four tokens at a time; the last four may overlap the four before them.
        for t in (0..tokens).step_by(4).map(|t| t.min(tokens - 4)) {
            let rows = [row(t), row(t + 1), row(t + 2), row(t + 3)];
            for (step, words) in whole_words.chunks_exact_mut(STEP_WORDS * tokens).enumerate() {
                let columns = transpose(rows.map(|row| &row[step]));
                for (column, words) in columns.iter().zip(words.chunks_exact_mut(tokens)) {
                    words[t..t + 4].copy_from_slice(column);
                }
            }
        }
    }
    if !last_words.is_empty() {
        for (t, row) in codes.chunks_exact(cols).enumerate() {
            let mut step = [0; STEP_COLS];
            step[..cols % STEP_COLS].copy_from_slice(&row[whole * STEP_COLS..]);
            let padding = std::iter::repeat(0);
            let words_and_padding = words_of::<STEP_COLS, STEP_WORDS>(&step).into_iter().chain(padding);
            for (word, words) in words_and_padding.zip(last_words.chunks_exact_mut(tokens)) {
                words[t] = word;
            }
        }
    }
}

/// Codes as words of 4.
#[inline(always)]
fn words_of<const CODES: usize, const WORDS: usize>(codes: &[i8; CODES]) -> [i32; WORDS] {
    std::array::from_fn(|q| i32::from_le_bytes(std::array::from_fn(|j| codes[4 * q + j] as u8)))
}

/// The words of four tokens' step, turned from token by token to word by word.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "sse2")]
fn transpose(tokens: [&[i8; STEP_COLS]; 4]) -> [[i32; 4]; STEP_WORDS] {
    // SAFETY: a step is 16 bytes, and the load may be unaligned.
    let [a, b, c, d] = tokens.map(|step| unsafe { _mm_loadu_si128(step.as_ptr().cast()) });
    let (ab, cd) = (_mm_unpacklo_epi32(a, b), _mm_unpacklo_epi32(c, d));
    let (ab_high, cd_high) = (_mm_unpackhi_epi32(a, b), _mm_unpackhi_epi32(c, d));
    let words = [
        _mm_unpacklo_epi64(ab, cd),
        _mm_unpackhi_epi64(ab, cd),
        _mm_unpacklo_epi64(ab_high, cd_high),
        _mm_unpackhi_epi64(ab_high, cd_high),
    ];
    // SAFETY: a vector of 128 bits is four i32, and every bit pattern is one.
    unsafe { std::mem::transmute::<[__m128i; 4], [[i32; 4]; STEP_WORDS]>(words) }
}
