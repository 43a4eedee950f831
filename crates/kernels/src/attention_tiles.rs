//! The inner loops of attention, forward and backward: a few rows at a time against one key head.
//!
//! Each result has one order of arithmetic, whatever the tile: a score is [`crate::lanes::dot`], whether its
//! key is a row or part of a transposed panel; a weighted sum runs over the positions of each segment of 256
//! in their order, one fused multiply-add each, and then over the segments in theirs.

use std::ops::Range;

use crate::lanes::{LANES, Lanes, dot, fma, load, sums};
use crate::softmax::SEGMENT;

/// Positions 0.. of one key head, transposed: panels of 16 positions, `[head_dim, 16]` each, zero past the
/// last position.
///
/// `rows` are `stride` wide, and the head's columns begin at `at`; `panel` is the one that begins at position
/// `first`.
#[inline(always)]
pub(crate) fn pack_panel(rows: &[f32], stride: usize, at: usize, first: usize, panel: &mut [f32]) {
    let panel = panel.as_chunks_mut::<LANES>().0;
    for (lane, row) in rows.chunks_exact(stride).skip(first).take(LANES).enumerate() {
        for (column, x) in panel.iter_mut().zip(&row[at..]) {
            column[lane] = *x;
        }
    }
}

/// The floats of all panels of one key head.
pub(crate) fn panels_len(positions: usize, head_dim: usize) -> usize {
    positions.next_multiple_of(LANES) * head_dim
}

/// Puts R rows of `head_dim` side by side, so that one column of all rows is contiguous.
#[inline(always)]
pub(crate) fn side_by_side<const R: usize>(rows: [&[f32]; R], out: &mut Vec<[f32; R]>) {
    out.clear();
    for d in 0..rows[0].len() {
        let mut column = [0f32; R];
        for r in 0..R {
            column[r] = rows[r][d];
        }
        out.push(column);
    }
}

/// `scores[r][j] = dot(row r, position j)` for the first `panels` panels; `scores` has rows of `stride`.
#[inline(always)]
pub(crate) fn dots_of_panels<const R: usize>(
    rows: &[[f32; R]],
    panels: &[f32],
    count: usize,
    scores: &mut [f32],
    stride: usize,
) {
    for (p, panel) in panels.chunks_exact(rows.len() * LANES).take(count).enumerate() {
        let panel = panel.as_chunks::<LANES>().0;
        // The tree of `lanes::sum` over the sixteen residues of the column: here each lane is a position.
        let even = add(&four_residues(rows, panel, 0), &four_residues(rows, panel, 2));
        let odd = add(&four_residues(rows, panel, 1), &four_residues(rows, panel, 3));
        let sums = add(&even, &odd);
        for r in 0..R {
            scores[r * stride + p * LANES..][..LANES].copy_from_slice(&sums[r]);
        }
    }
}

/// The residues i, i + 4, i + 8 and i + 12, of which those that are 8 apart are added first.
#[inline(always)]
fn four_residues<const R: usize>(rows: &[[f32; R]], panel: &[Lanes], i: usize) -> [Lanes; R] {
    let near = add(&residue(rows, panel, i), &residue(rows, panel, i + 8));
    let far = add(&residue(rows, panel, i + 4), &residue(rows, panel, i + 12));
    add(&near, &far)
}

/// The products of columns i, i + 16, i + 32, …, summed in this order, for R rows and 16 positions.
#[inline(always)]
fn residue<const R: usize>(rows: &[[f32; R]], panel: &[Lanes], i: usize) -> [Lanes; R] {
    let columns = rows.len().min(panel.len());
    let mut acc = [[0f32; LANES]; R];
    let mut d = i;
    while d < columns {
        for r in 0..R {
            acc[r] = fma(&[rows[d][r]; LANES], &panel[d], &acc[r]);
        }
        d += LANES;
    }
    acc
}

#[inline(always)]
fn add<const R: usize>(a: &[Lanes; R], b: &[Lanes; R]) -> [Lanes; R] {
    let mut out = [[0f32; LANES]; R];
    for r in 0..R {
        for i in 0..LANES {
            out[r][i] = a[r][i] + b[r][i];
        }
    }
    out
}

/// [`dots_of_panels`] where keys stand as rows: for few queries, each `[width]`, and positions 0..count.
#[inline(always)]
pub(crate) fn dots_of_rows<const R: usize>(
    queries: [&[f32]; R],
    keys: Columns<'_>,
    count: usize,
    scores: &mut [f32],
    scores_stride: usize,
) {
    let Columns { rows, stride, at, width } = keys;
    for query in queries {
        assert_eq!(query.len(), width, "a query is as wide as a key");
    }
    for j in 0..count {
        let key = &rows[j * stride + at..][..width];
        if !width.is_multiple_of(LANES) {
            for r in 0..R {
                scores[r * scores_stride + j] = dot(queries[r], key);
            }
            continue;
        }
        let mut acc = [[0f32; LANES]; R];
        for (i, key) in key.as_chunks::<LANES>().0.iter().enumerate() {
            for r in 0..R {
                // SAFETY: block i of the key lies in `width`, and `queries` are checked above to be as long.
                acc[r] = fma(&unsafe { load(queries[r], i * LANES) }, key, &acc[r]);
            }
        }
        let dots = sums(&acc);
        for r in 0..R {
            scores[r * scores_stride + j] = dots[r];
        }
    }
}

/// The rows of a tensor, of which one head's columns count: `width` columns from `at` in rows of `stride`.
#[derive(Clone, Copy)]
pub(crate) struct Columns<'a> {
    pub(crate) rows: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) at: usize,
    pub(crate) width: usize,
}

/// `out[r] += Σ_j p[r][j] · x[j]` over positions j < `lens[r]`, segment by segment; out is `[R, width]`, p
/// has rows of `p_stride`.
#[inline(always)]
pub(crate) fn weighted_sums<const R: usize>(
    p: &[f32],
    p_stride: usize,
    lens: [usize; R],
    x: Columns<'_>,
    out: &mut [f32],
) {
    let width = x.width;
    let mut column = 0;
    while column + 4 * LANES <= width {
        weighted_sums_of_columns::<R, 4>(p, p_stride, lens, x, column, out);
        column += 4 * LANES;
    }
    while column + 2 * LANES <= width {
        weighted_sums_of_columns::<R, 2>(p, p_stride, lens, x, column, out);
        column += 2 * LANES;
    }
    while column + LANES <= width {
        weighted_sums_of_columns::<R, 1>(p, p_stride, lens, x, column, out);
        column += LANES;
    }
    for column in column..width {
        for r in 0..R {
            let p = p[r * p_stride..][..lens[r]].chunks(SEGMENT);
            for (p, rows) in p.zip(x.rows.chunks(SEGMENT * x.stride)) {
                let mut sum = 0f32;
                for (p, row) in p.iter().zip(rows.chunks_exact(x.stride)) {
                    sum = p.mul_add(row[x.at + column], sum);
                }
                out[r * width + column] += sum;
            }
        }
    }
}

#[inline(always)]
fn weighted_sums_of_columns<const R: usize, const B: usize>(
    p: &[f32],
    p_stride: usize,
    lens: [usize; R],
    x: Columns<'_>,
    column: usize,
    out: &mut [f32],
) {
    let Columns { rows, stride, at, width } = x;
    let first = at + column;
    let (mut shared, mut longest) = (lens[0], lens[0]);
    for r in 0..R {
        shared = shared.min(lens[r]);
        longest = longest.max(lens[r]);
    }
    assert!(shared <= p_stride && p.len() >= R * p_stride, "p is [{R}, {p_stride}]");
    assert!(shared == 0 || (shared - 1) * stride + first + B * LANES <= rows.len(), "{shared} rows");
    for start in (0..longest).step_by(SEGMENT) {
        let end = longest.min(start + SEGMENT);
        // The positions that all R rows see, in registers.
        let all = shared.clamp(start, end);
        let mut acc = [[[0f32; LANES]; B]; R];
        for j in start..all {
            for b in 0..B {
                // SAFETY: j < shared, so the numbers end where the second assertion says, or before.
                let x = unsafe { load(rows, j * stride + first + b * LANES) };
                for r in 0..R {
                    // SAFETY: r < R and j < shared <= p_stride, and p has R · p_stride numbers by the first
                    // assertion.
                    let p = unsafe { *p.get_unchecked(r * p_stride + j) };
                    acc[r][b] = fma(&[p; LANES], &x, &acc[r][b]);
                }
            }
        }
        // The positions that only some rows see are added to a copy in memory.
        let mut sums = acc;
        for r in 0..R {
            let sums = sums[r].as_flattened_mut();
            for j in all..lens[r].min(end) {
                axpy(p[r * p_stride + j], &rows[j * stride + first..][..B * LANES], sums);
            }
        }
        for r in 0..R {
            let out = &mut out[r * width + column..][..B * LANES];
            for (out, sum) in out.iter_mut().zip(sums[r].as_flattened()) {
                *out += sum;
            }
        }
    }
}

/// `y += factor · x` over whole lanes.
#[inline(always)]
fn axpy(factor: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.as_chunks_mut::<LANES>().0.iter_mut().zip(x.as_chunks::<LANES>().0) {
        *y = fma(&[factor; LANES], x, y);
    }
}

/// `out[j] += Σ_i p[i][j] · x[i]` over a block of rows i, ascending, for the positions j ≤ i / group that row
/// i sees.
///
/// p is `[rows in the block, stride]`; x is `[all rows, width]`; out is `[positions, width]`.
#[inline(always)]
pub(crate) fn add_products(
    p: &[f32],
    stride: usize,
    block: Range<usize>,
    group: usize,
    x: &[f32],
    width: usize,
    out: &mut [f32],
) {
    let positions = (block.end - 1) / group + 1;
    let products = Products { p, stride, block, group, x, width };
    let mut j = 0;
    while j + 4 <= positions {
        add_products_of_positions::<4>(&products, j, out);
        j += 4;
    }
    while j < positions {
        add_products_of_positions::<1>(&products, j, out);
        j += 1;
    }
}

/// The arguments of [`add_products`].
struct Products<'a> {
    p: &'a [f32],
    stride: usize,
    block: Range<usize>,
    group: usize,
    x: &'a [f32],
    width: usize,
}

/// [`add_products`] for K positions from j.
#[inline(always)]
fn add_products_of_positions<const K: usize>(products: &Products<'_>, j: usize, out: &mut [f32]) {
    let Products { width, ref block, group, .. } = *products;
    // The first row that sees each position.
    let mut firsts = [0; K];
    for k in 0..K {
        firsts[k] = ((j + k) * group).clamp(block.start, block.end);
    }
    let out = &mut out[j * width..(j + K) * width];
    let mut column = 0;
    while column + 4 * LANES <= width {
        add_products_of_columns::<K, 4>(products, j, firsts, column, out);
        column += 4 * LANES;
    }
    while column + 2 * LANES <= width {
        add_products_of_columns::<K, 2>(products, j, firsts, column, out);
        column += 2 * LANES;
    }
    while column + LANES <= width {
        add_products_of_columns::<K, 1>(products, j, firsts, column, out);
        column += LANES;
    }
    for column in column..width {
        for k in 0..K {
            let sum = &mut out[k * width + column];
            for i in firsts[k]..block.end {
                let p = products.p[(i - block.start) * products.stride + j + k];
                *sum = p.mul_add(products.x[i * width + column], *sum);
            }
        }
    }
}

#[inline(always)]
fn add_products_of_columns<const K: usize, const B: usize>(
    products: &Products<'_>,
    j: usize,
    firsts: [usize; K],
    column: usize,
    out: &mut [f32],
) {
    let Products { p, stride, ref block, x, width, .. } = *products;
    // The rows that see only some of the positions, in memory; then those that see all, in registers.
    let shared = firsts[K - 1];
    for k in 0..K - 1 {
        let out = &mut out[k * width + column..][..B * LANES];
        for i in firsts[k]..shared {
            axpy(p[(i - block.start) * stride + j + k], &x[i * width + column..][..B * LANES], out);
        }
    }
    assert!(column + B * LANES <= width && x.len() >= block.end * width, "x is [{}, {width}]", block.end);
    assert!(
        block.start <= shared && j + K <= stride && p.len() >= block.len() * stride,
        "p is [{}, {stride}]",
        block.len()
    );
    let mut acc = [[[0f32; LANES]; B]; K];
    for k in 0..K {
        for b in 0..B {
            acc[k][b].copy_from_slice(&out[k * width + column + b * LANES..][..LANES]);
        }
    }
    for i in shared..block.end {
        for b in 0..B {
            // SAFETY: i < block.end, and the first assertion says that row i, column..column + 16 B lies in
            // x.
            let x = unsafe { load(x, i * width + column + b * LANES) };
            for k in 0..K {
                // SAFETY: block.start <= i < block.end and j + k < stride: within p by the second assertion.
                let p = unsafe { *p.get_unchecked((i - block.start) * stride + j + k) };
                acc[k][b] = fma(&[p; LANES], &x, &acc[k][b]);
            }
        }
    }
    for k in 0..K {
        for b in 0..B {
            out[k * width + column + b * LANES..][..LANES].copy_from_slice(&acc[k][b]);
        }
    }
}
