//! The inner loops of attention over a [`crate::KvCache`]: the queries that share a key head against one
//! block of positions.
//!
//! The order of arithmetic is that of [`crate::attention_tiles`]: a score is [`crate::lanes::dot`], and a
//! weighted sum runs over the positions of a segment in their order, one fused multiply-add each; a block of
//! the cache is a segment. How queries and columns are cut changes no bit.

use crate::Backend;
use crate::kv_cache::{BLOCK, Block, Blocks, COLUMNS, Element, Layout, RESIDUES};
use crate::lanes::{LANES, Lanes};
use crate::softmax::{SEGMENT, exp_and_sum_segment, max};
use crate::vector::{Vector, prefetch};

const _: () = assert!(BLOCK == SEGMENT, "sums go block by block");

/// Positions ahead of the loads that memory is asked for; hardware stops at every page.
const KEYS_AHEAD: usize = 2 * LANES;
/// As [`KEYS_AHEAD`].
const VALUES_AHEAD: usize = 128;

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
            Backend::Avx2 => return unsafe { avx2(unit, blocks, step) },
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
            let next = keys(unit.next(block));
            // SAFETY: the caller's promise.
            unsafe { scores_of_block::<V, T>(unit, block, keys(block), next, scores) }
        }
        Step::Exps { scores, factors } => exps(unit, scores, factors),
        Step::Sums { piece, scores, sums } => {
            for block in 0..unit.block_count() {
                let columns = |block: usize| {
                    let values = blocks[block].values(unit.layout, unit.kv_head);
                    &values[piece * BLOCK * COLUMNS..][..BLOCK * COLUMNS]
                };
                let both = unit.layout.head_dim - piece * COLUMNS > LANES;
                let values = Values { columns: columns(block), next: columns(unit.next(block)), both };
                let scores = &scores[block * unit.queries * BLOCK..][..unit.queries * BLOCK];
                // SAFETY: the caller's promise.
                unsafe { sums_of_block::<V, T>(unit, block, &values, scores, sums) }
            }
        }
    }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn scores_of_block<V: Vector, T: Element>(
    unit: &Unit<'_>,
    block: usize,
    keys: &[T],
    next: &[T],
    scores: &mut [f32],
) {
    let (queries, hd) = (unit.queries, unit.layout.head_dim);
    let panels = unit.visible_in(queries - 1, block).div_ceil(LANES);
    assert!(scores.len() == queries * BLOCK && unit.tiles.len() == queries * hd && panels * LANES <= BLOCK);
    let (ahead, after) = (KEYS_AHEAD * hd, (BLOCK - KEYS_AHEAD) * hd);
    for (p, panel) in keys.chunks_exact(hd * LANES).take(panels).enumerate() {
        let at = p * LANES * hd;
        let ahead = if at < after { &keys[at + ahead..] } else { &next[at - after..] };
        let mut i = 0;
        while i < queries {
            let size = tile_size(queries - i, V::MANY);
            let tile = &unit.tiles[i * hd..][..size * hd];
            // SAFETY: the caller's promise. Query i + r < queries, and panel p ends within BLOCK: sixteen
            // scores from (i + r) · BLOCK + 16 p lie in `scores`.
            unsafe {
                let at = scores.as_mut_ptr().add(i * BLOCK + p * LANES);
                match size {
                    8 => scores_of_panel::<V, T, 8>(tile, panel, ahead.as_ptr(), unit.scale, at),
                    4 => scores_of_panel::<V, T, 4>(tile, panel, ahead.as_ptr(), unit.scale, at),
                    2 => scores_of_panel::<V, T, 2>(tile, panel, ahead.as_ptr(), unit.scale, at),
                    _ => scores_of_panel::<V, T, 1>(tile, panel, ahead.as_ptr(), unit.scale, at),
                }
            }
            i += size;
        }
    }
}

/// R queries against 16 positions; scores go to rows of BLOCK numbers.
///
/// # Safety
/// The caller has the instructions of `V`, and R rows of 16 scores may be written.
#[inline(always)]
unsafe fn scores_of_panel<V: Vector, T: Element, const R: usize>(
    tile: &[f32],
    panel: &[T],
    ahead: *const T,
    scale: f32,
    scores: *mut f32,
) {
    let (columns, queries) = (panel.as_chunks::<LANES>().0, tile.as_chunks::<R>().0);
    assert_eq!(columns.len(), queries.len(), "a query is as wide as a key");
    // SAFETY: the caller's promises.
    unsafe {
        // Slots of the even columns come first.
        let odd = columns.len().div_ceil(2);
        let even = half::<V, T, R>(columns, ahead, queries, 0);
        let odd = half::<V, T, R>(columns, ahead, queries, odd);
        let sums = add(even, odd);
        for r in 0..R {
            sums[r].scale(scale).store(scores.add(r * BLOCK));
        }
    }
}

/// Half of the tree of `lanes::sum`, here with a position in each lane: the even columns from slot 0 on, or
/// the odd ones, which begin at slot `slot`.
///
/// # Safety
/// As [`residue`]. Closures would not take on the features of their caller.
#[inline(always)]
unsafe fn half<V: Vector, T: Element, const R: usize>(
    columns: &[[T; LANES]],
    ahead: *const T,
    queries: &[[f32; R]],
    mut slot: usize,
) -> [V; R] {
    let first = if slot == 0 { 0 } else { LANES / 2 };
    // SAFETY: the caller's promises.
    unsafe {
        let mut parts = [[V::zero(); R]; LANES / 2];
        for i in 0..LANES / 2 {
            // Columns of one residue mod 16, which stand next to each other.
            let count = (columns.len() + LANES - 1 - RESIDUES[first + i]) / LANES;
            parts[i] = residue::<V, T, R>(columns, ahead, queries, slot, count);
            slot += count;
        }
        let [a, b, c, d, e, f, g, h] = parts;
        add(add(add(a, b), add(c, d)), add(add(e, f), add(g, h)))
    }
}

/// The products of `count` columns from `slot` on, summed in their order.
///
/// # Safety
/// The caller has the instructions of `V`, and the columns exist: the counts of the sixteen residues add up
/// to their number.
#[inline(always)]
unsafe fn residue<V: Vector, T: Element, const R: usize>(
    columns: &[[T; LANES]],
    ahead: *const T,
    queries: &[[f32; R]],
    slot: usize,
    count: usize,
) -> [V; R] {
    // SAFETY: the caller's promises.
    unsafe {
        let mut acc = [V::zero(); R];
        for d in slot..slot + count {
            prefetch(ahead.wrapping_add(d * LANES));
            let (key, query) = (T::load::<V>(columns.get_unchecked(d).as_ptr()), queries.get_unchecked(d));
            for r in 0..R {
                acc[r] = key.fma(query[r], acc[r]);
            }
        }
        acc
    }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn add<V: Vector, const R: usize>(mut a: [V; R], b: [V; R]) -> [V; R] {
    for r in 0..R {
        // SAFETY: the caller's promise.
        a[r] = unsafe { a[r].add(b[r]) };
    }
    a
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

/// A piece of the columns of one block's values.
struct Values<'a, T> {
    /// [BLOCK, COLUMNS].
    columns: &'a [T],
    /// The same columns of the block that is read after this one.
    next: &'a [T],
    /// Whether the second sixteen columns count.
    both: bool,
}

/// Adds the products of one block of positions to the sums of a piece of columns.
///
/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn sums_of_block<V: Vector, T: Element>(
    unit: &Unit<'_>,
    block: usize,
    values: &Values<'_, T>,
    p: &[f32],
    sums: &mut [f32],
) {
    let queries = unit.queries;
    assert!(sums.len() == queries * COLUMNS && p.len() == queries * BLOCK);
    let mut i = 0;
    while i < queries {
        let size = tile_size(queries - i, V::MANY);
        // SAFETY: the caller's promise; the slices are as long as `sums_of_tile` asks, for every size of a
        // tile.
        unsafe {
            match size {
                8 => sums_of_tile::<V, T, 8>(unit, block, i, values, p, sums),
                4 => sums_of_tile::<V, T, 4>(unit, block, i, values, p, sums),
                2 => sums_of_tile::<V, T, 2>(unit, block, i, values, p, sums),
                _ => sums_of_tile::<V, T, 1>(unit, block, i, values, p, sums),
            }
        }
        i += size;
    }
}

/// R queries from query `i` on: the first sixteen columns of a piece or both halves, together where there are
/// registers enough.
///
/// # Safety
/// The caller has the instructions of `V`; `p` is [queries, BLOCK], `sums` [queries, COLUMNS], `values`
/// [BLOCK, COLUMNS], and queries i..i + R exist.
#[inline(always)]
unsafe fn sums_of_tile<V: Vector, T: Element, const R: usize>(
    unit: &Unit<'_>,
    block: usize,
    i: usize,
    values: &Values<'_, T>,
    p: &[f32],
    sums: &mut [f32],
) {
    let visible: [usize; R] = std::array::from_fn(|r| unit.visible_in(i + r, block));
    let p = &p[i * BLOCK..];
    let sums = &mut sums[i * COLUMNS..];
    // SAFETY: the caller's promises; the second half begins sixteen columns after the first.
    unsafe {
        let (columns, next, both) = (values.columns.as_ptr(), values.next.as_ptr(), values.both);
        let sums = sums.as_mut_ptr();
        if both && (V::MANY || R <= 2) {
            add_products::<V, T, R, 2>(&visible, columns, next, p.as_ptr(), sums);
        } else {
            add_products::<V, T, R, 1>(&visible, columns, next, p.as_ptr(), sums);
            if both {
                add_products::<V, T, R, 1>(&visible, columns.add(LANES), next, p.as_ptr(), sums.add(LANES));
            }
        }
    }
}

/// `sums[r][c] += Σ_j p[r][j] · values[j][c]` over positions j < `visible[r]` in their order, for 16 B
/// columns.
///
/// # Safety
/// The caller has the instructions of `V`; `values` are [BLOCK, COLUMNS], `p` is [R, BLOCK], `sums` [R,
/// COLUMNS], of whose columns 16 B are used; `visible` ascends and is at most BLOCK.
#[inline(always)]
unsafe fn add_products<V: Vector, T: Element, const R: usize, const B: usize>(
    visible: &[usize; R],
    values: *const T,
    next: *const T,
    p: *const f32,
    sums: *mut f32,
) {
    // SAFETY: the caller's promises: j < BLOCK, r < R, b < B throughout.
    unsafe {
        let mut acc = [[V::zero(); B]; R];
        for j in 0..visible[0] {
            let ahead = if j < BLOCK - VALUES_AHEAD {
                values.wrapping_add((j + VALUES_AHEAD) * COLUMNS)
            } else {
                next.wrapping_add((j + VALUES_AHEAD - BLOCK) * COLUMNS)
            };
            prefetch(ahead);
            if size_of::<T>() == 4 {
                prefetch(ahead.wrapping_add(LANES));
            }
            let mut x = [V::zero(); B];
            for b in 0..B {
                x[b] = T::load(values.add(j * COLUMNS + b * LANES));
            }
            for r in 0..R {
                let p = *p.add(r * BLOCK + j);
                for b in 0..B {
                    acc[r][b] = x[b].fma(p, acc[r][b]);
                }
            }
        }
        // The positions that only the later rows see.
        for r in 1..R {
            for j in visible[0]..visible[r] {
                let p = *p.add(r * BLOCK + j);
                for b in 0..B {
                    acc[r][b] = T::load::<V>(values.add(j * COLUMNS + b * LANES)).fma(p, acc[r][b]);
                }
            }
        }
        for r in 0..R {
            for b in 0..B {
                let sum = sums.add(r * COLUMNS + b * LANES);
                V::load(sum).add(acc[r][b]).store(sum);
            }
        }
    }
}
