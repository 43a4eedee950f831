//! The inner loops of attention over a [`crate::KvCache`]: the queries that share a key head against one
//! block of positions.
//!
//! The order of arithmetic is that of [`crate::attention_tiles`]: a score is [`crate::lanes::dot`], and a
//! weighted sum runs over the positions of a segment in their order, one fused multiply-add each; a block of
//! the cache is a segment. How queries and columns are cut changes no bit.

mod scores;
mod sums;

use self::scores::scores_of_block;
use self::sums::{Values, sums_of_block};
use crate::Backend;
use crate::kv_cache::{BLOCK, Block, Blocks, COLUMNS, Element, Layout};
use crate::lanes::{LANES, Lanes};
use crate::softmax::{SEGMENT, exp_and_sum_segment, max};
use crate::vector::Vector;

const _: () = assert!(BLOCK == SEGMENT, "sums go block by block");

/// Some rows of one sequence with the query heads that share a key head. Query i is head `i % group` of row
/// `i / group`.
pub(crate) struct Unit<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) blocks: &'a Blocks,
    pub(crate) kv_head: usize,
    pub(crate) group: usize,
    /// Position of the first row.
    pub(crate) start: usize,
    pub(crate) queries: usize,
    /// head_dim^-½.
    pub(crate) scale: f32,
    /// The rows, [rows, heads · head_dim].
    pub(crate) q: &'a [f32],
    /// The queries, tile by tile ([`tile_size`]), each `[head_dim, R]` with columns in the order of
    /// [`Layout::slots`]; empty before [`Unit::set_layout`].
    pub(crate) tiles: Vec<f32>,
}

impl Unit<'_> {
    /// Lays out the queries, which the scores need.
    pub(crate) fn set_layout(&mut self, backend: Backend) {
        let (hd, group) = (self.layout.head_dim, self.group);
        self.tiles.resize(self.queries * hd, 0.0);
        let mut first = 0;
        while first < self.queries {
            let size = tile_size(self.queries - first, many(backend));
            let tile = &mut self.tiles[first * hd..][..size * hd];
            for r in 0..size {
                let (row, head) = ((first + r) / group, self.kv_head * group + (first + r) % group);
                let query = &self.q[(row * self.layout.kv_heads * group + head) * hd..][..hd];
                for (x, slot) in query.iter().zip(&self.layout.slots) {
                    tile[slot * size + r] = *x;
                }
            }
            first += size;
        }
    }

    /// Positions that query `i` sees.
    fn visible(&self, i: usize) -> usize {
        self.start + i / self.group + 1
    }

    /// Positions of block `block` that query `i` sees.
    fn visible_in(&self, i: usize, block: usize) -> usize {
        self.visible(i).saturating_sub(block * BLOCK).min(BLOCK)
    }

    /// Blocks that the last query sees.
    pub(crate) fn block_count(&self) -> usize {
        self.visible(self.queries - 1).div_ceil(BLOCK)
    }

    /// The block after `block`, if there is one.
    fn next(&self, block: usize) -> usize {
        (block + 1).min(self.block_count() - 1)
    }

    /// Scores, [blocks, queries, BLOCK].
    pub(crate) fn scores_len(&self) -> usize {
        self.block_count() * self.queries * BLOCK
    }

    /// Weighted sums, [column pieces, queries, COLUMNS].
    pub(crate) fn sums_len(&self) -> usize {
        self.layout.column_pieces() * self.queries * COLUMNS
    }
}

/// Whether tiles of eight queries are taken.
fn many(backend: Backend) -> bool {
    backend == Backend::Avx512Vnni
}

/// The next tile of at most `left` queries.
#[inline(always)]
fn tile_size(left: usize, many: bool) -> usize {
    match left {
        8.. if many => 8,
        4.. => 4,
        2.. => 2,
        _ => 1,
    }
}

/// A part of the work on a unit.
pub(crate) enum Step<'a> {
    /// The scores of one block of positions: [queries, BLOCK].
    Scores { block: usize, scores: &'a mut [f32] },
    /// Scores [blocks, queries, BLOCK] become exp(score − largest); the inverse of their sum, a query.
    Exps { scores: &'a mut [f32], factors: &'a mut [f32] },
    /// The weighted sums of some columns: [queries, COLUMNS].
    Sums { piece: usize, scores: &'a [f32], sums: &'a mut [f32] },
}

/// Does a part of the work.
pub(crate) fn run(backend: Backend, unit: &Unit<'_>, step: Step<'_>) {
    match unit.blocks {
        Blocks::F32(blocks) => run_on(backend, unit, blocks, step),
        Blocks::F16(blocks) => run_on(backend, unit, blocks, step),
        Blocks::Q8_0(blocks) => run_on(backend, unit, blocks, step),
    }
}

fn run_on<T: Element>(backend: Backend, unit: &Unit<'_>, blocks: &[Block<T>], step: Step<'_>) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn avx512<T: Element>(unit: &Unit<'_>, blocks: &[Block<T>], step: Step<'_>) {
            // SAFETY: `__m512` needs AVX-512 F, which this function has.
            unsafe { step_with::<__m512, T>(unit, blocks, step) }
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<T: Element>(unit: &Unit<'_>, blocks: &[Block<T>], step: Step<'_>) {
            // SAFETY: `[__m256; 2]` needs AVX2, FMA and F16C, which this function has.
            unsafe { step_with::<[__m256; 2], T>(unit, blocks, step) }
        }
        match backend {
            // SAFETY: this function is private to the crate and gets `Backend::active`, which is supported,
            // or an argument of a public function that called `Backend::assert_supported` first.
            // `Backend::is_supported` asks for each of the features above.
            Backend::Avx512Vnni => return unsafe { avx512(unit, blocks, step) },
            // SAFETY: as above.
            Backend::Avx2 | Backend::AvxVnni => return unsafe { avx2(unit, blocks, step) },
            _ => {}
        }
    }
    let _ = backend;
    // SAFETY: `Lanes` needs no instructions but the baseline's.
    unsafe { step_with::<Lanes, T>(unit, blocks, step) }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn step_with<V: Vector, T: Element>(unit: &Unit<'_>, blocks: &[Block<T>], step: Step<'_>) {
    match step {
        Step::Scores { block, scores } => {
            let keys = |block: usize| blocks[block].keys(unit.layout, unit.kv_head);
            let next = keys(unit.next(block)).numbers;
            // SAFETY: the caller's promise.
            unsafe { scores_of_block::<V, T>(unit, block, keys(block), next, scores) }
        }
        Step::Exps { scores, factors } => exps(unit, scores, factors),
        Step::Sums { piece, scores, sums } => {
            for block in 0..unit.block_count() {
                let columns = |block: usize| blocks[block].values(unit.layout, unit.kv_head, piece);
                let both = unit.layout.head_dim - piece * COLUMNS > LANES;
                let next = columns(unit.next(block)).numbers;
                let values = Values { columns: columns(block), next, both };
                let scores = &scores[block * unit.queries * BLOCK..][..unit.queries * BLOCK];
                // SAFETY: the caller's promise.
                unsafe { sums_of_block::<V, T>(unit, block, &values, scores, sums) }
            }
        }
    }
}

/// [`Step::Exps`].
#[inline(always)]
fn exps(unit: &Unit<'_>, scores: &mut [f32], factors: &mut [f32]) {
    let (queries, blocks) = (unit.queries, unit.block_count());
    assert!(scores.len() == blocks * queries * BLOCK && factors.len() == queries);
    for (i, factor) in factors.iter_mut().enumerate() {
        let row = |block: usize| {
            let at = (block * queries + i) * BLOCK;
            at..at + unit.visible_in(i, block)
        };
        let mut largest = [f32::NEG_INFINITY; LANES];
        for block in 0..blocks {
            // Sixteen lanes hold the largest of each block in turn; `max` of them keeps a NaN.
            let lane = block % LANES;
            largest[lane] = max(&[largest[lane], max(&scores[row(block)])]);
        }
        let largest = max(&largest);
        let mut total = 0f32;
        for block in 0..blocks {
            total += exp_and_sum_segment(&mut scores[row(block)], largest);
        }
        *factor = 1.0 / total;
    }
}
