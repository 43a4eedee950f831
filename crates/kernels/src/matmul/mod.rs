//! The product of int8 activations and ternary weights: `acc = Σ xq · wq`, exact, and `y = acc · (s_w ·
//! s_x)`.
//!
//! The work is a grid: tiles of tokens × blocks of 32 output features. `tiling` cuts it into tasks for
//! threads; a backend (`scalar`, `avx2`, `avx512`, `neon`) computes the cells of a task with accumulators in
//! registers; `output` takes the sums to their place. All sums are integers, so neither the backend nor the
//! cut nor the number of threads changes a bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod avx512_five_trits;
#[cfg(target_arch = "x86_64")]
mod avx_vnni;
#[cfg(target_arch = "x86_64")]
mod cell;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "aarch64")]
mod neon_dot;
#[cfg(target_arch = "aarch64")]
mod neon_i8mm;
mod output;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod pack;
mod scalar;
mod tiling;
#[cfg(target_arch = "x86_64")]
mod ymm;

use std::ops::Range;

use self::output::{Output, Sink};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use self::pack::with_packed;
use self::tiling::Grid;
use crate::ternary_weights::BLOCK_ROWS;
use crate::{Backend, GradientRows, QuantizedRows, TernaryWeights, WriteMode};

/// `y[t, r] = acc[t, r] as f32 * (s_w * x.scales[t])` with `acc = Σ_k x.codes[t, k] · w.code(r, k)` and the scale s_w of
/// the tensor or of row r, in exactly this order of multiplication. Where groups of columns have scales s_g,
/// `y[t, r] = x.scales[t] · Σ_g s_g · acc_g`: exact sums of each group, products and sums in f32 by ascending g,
/// multiplied and then added, never fused. `y` is [m, rows], row-major; m may be 0.
///
/// # Panics
/// If `x.cols` differs from `w.cols()`, a vector of `x` has not the length that its fields promise, or `y`
/// has not `m * rows` elements.
pub fn ternary_matmul(x: &QuantizedRows, w: &TernaryWeights, y: &mut [f32]) {
    ternary_matmul_with(Backend::active(), x, w, y);
}

/// [`ternary_matmul`] on the backend given.
///
/// # Panics
/// As [`ternary_matmul`], and if the processor does not support the backend.
pub fn ternary_matmul_with(backend: Backend, x: &QuantizedRows, w: &TernaryWeights, y: &mut [f32]) {
    product(backend, x, w, y, WriteMode::Overwrite);
}

/// `dx = dy · wᵀ` or `dx += dy · wᵀ` of a rounded gradient dy [tokens, cols] and weights [rows, cols], dx
/// [tokens, rows]: the exact sums of each digit are scaled as in [`ternary_matmul`] and added up in f32, the
/// first digit first.
///
/// # Panics
/// As [`ternary_matmul`].
pub fn gradient_matmul(dy: &GradientRows, w: &TernaryWeights, dx: &mut [f32], write: WriteMode) {
    gradient_matmul_with(Backend::active(), dy, w, dx, write);
}

/// [`gradient_matmul`] on the backend given.
///
/// # Panics
/// As [`gradient_matmul`], and if the processor does not support the backend.
pub(crate) fn gradient_matmul_with(
    backend: Backend,
    dy: &GradientRows,
    w: &TernaryWeights,
    dx: &mut [f32],
    write: WriteMode,
) {
    products(backend, dy.rows(), dy.digits(), &[w], [dx].into_iter(), write, None);
}

/// [`gradient_matmul`] with rows `rows` of the weights alone, which fill these columns of dx [tokens, rows of w].
///
/// # Panics
/// As [`ternary_matmul`], and if the range does not begin and end at multiples of 32 or the last row.
pub fn gradient_matmul_rows(
    dy: &GradientRows,
    w: &TernaryWeights,
    rows: Range<usize>,
    dx: &mut [f32],
    write: WriteMode,
) {
    let whole = |row: usize| row.is_multiple_of(BLOCK_ROWS) || row == w.rows();
    assert!(whole(rows.start) && whole(rows.end) && rows.end <= w.rows(), "rows {rows:?} of {}", w.rows());
    let blocks = rows.start / BLOCK_ROWS..rows.end.div_ceil(BLOCK_ROWS);
    products(Backend::active(), dy.rows(), dy.digits(), &[w], [dx].into_iter(), write, Some(&blocks));
}

/// The exact sums `acc[t, r] = Σ_k x.codes[t, k] · w.code(r, k)` [m, rows] without any scale, over whole rows.
///
/// # Panics
/// As [`ternary_matmul`].
pub fn ternary_matmul_i32(x: &QuantizedRows, w: &TernaryWeights, acc: &mut [i32]) {
    ternary_matmul_i32_with(Backend::active(), x, w, acc);
}

/// [`ternary_matmul_i32`] on the backend given.
///
/// # Panics
/// As [`ternary_matmul_with`].
pub(crate) fn ternary_matmul_i32_with(
    backend: Backend,
    x: &QuantizedRows,
    w: &TernaryWeights,
    acc: &mut [i32],
) {
    product(backend, x, w, acc, WriteMode::Overwrite);
}

/// Several products of the same activations, as one: what [`ternary_matmul`] gives for each of `weights` goes
/// to the result beside it. The activations are packed once, and the threads meet once at the end (q, k and
/// v; gate and up).
///
/// # Panics
/// As [`ternary_matmul`] for each pair, and if the numbers of weights and results differ.
pub fn ternary_matmul_many(x: &QuantizedRows, weights: &[&TernaryWeights], results: &mut [&mut [f32]]) {
    let alike =
        |w: &&TernaryWeights| (w.steps(), w.group_cols()) == (weights[0].steps(), weights[0].group_cols());
    if !weights.iter().all(alike) {
        assert_eq!(weights.len(), results.len(), "one result for every matrix");
        for (w, y) in weights.iter().zip(results) {
            ternary_matmul(x, w, y);
        }
        return;
    }
    let results = results.iter_mut().map(|y| &mut **y);
    products(Backend::active(), x, 1, weights, results, WriteMode::Overwrite, None);
}

fn product<T: Output>(
    backend: Backend,
    x: &QuantizedRows,
    w: &TernaryWeights,
    out: &mut [T],
    write: WriteMode,
) {
    products(backend, x, 1, &[w], [out].into_iter(), write, None);
}

/// A matrix of a product: its weights, where its blocks begin among those of all matrices, and where its
/// results go.
struct Matrix<'a, T> {
    weights: &'a TernaryWeights,
    /// The blocks of the matrix that are multiplied.
    own: Range<usize>,
    first_block: usize,
    sink: Sink<'a, T>,
}

/// All products; `only` are the blocks of the weights that are multiplied, if not all.
fn products<'a, T: Output + 'a>(
    backend: Backend,
    x: &'a QuantizedRows,
    digits: usize,
    weights: &[&'a TernaryWeights],
    results: impl ExactSizeIterator<Item = &'a mut [T]>,
    write: WriteMode,
    only: Option<&Range<usize>>,
) {
    backend.assert_supported();
    // Rows of activations; of a gradient, `digits` a token.
    let tokens = x.rows();
    assert_eq!(x.codes.len(), tokens * x.cols, "codes must be [{tokens}, {}]", x.cols);
    assert_eq!(x.sums.len(), tokens, "one sum for every token");
    assert_eq!(weights.len(), results.len(), "one result for every matrix");
    let (mut blocks, steps) = (0, weights.first().map_or(0, |w| w.steps()));
    let group = weights.first().and_then(|w| w.group_cols()).filter(|_| T::SCALED);
    let mut matrices = Vec::with_capacity(weights.len());
    for (w, out) in weights.iter().zip(results) {
        assert_eq!(x.cols, w.cols(), "activations have {} columns, weights {}", x.cols, w.cols());
        assert_eq!(
            out.len() * digits,
            tokens * w.rows(),
            "the result must be [{}, {}]",
            tokens / digits,
            w.rows()
        );
        assert_eq!(steps, w.steps(), "matrices of one call have one layout");
        let own = only.cloned().unwrap_or(0..w.blocks());
        let (first_block, sink) = (blocks, Sink::new(out, write, w, x, digits));
        blocks += own.len();
        matrices.push(Matrix { weights: w, own, first_block, sink });
    }
    if tokens == 0 || blocks == 0 {
        return;
    }
    let grid = |tile_rows| Grid::new(tokens, digits, tile_rows, blocks, steps);
    // The part of a range of blocks that each matrix has.
    let parts = |range: &Range<usize>| {
        let (start, end) = (range.start, range.end);
        matrices.iter().filter_map(move |m| {
            let own = |block: usize| m.own.start + block.saturating_sub(m.first_block).min(m.own.len());
            (own(start) < own(end)).then(|| (m, own(start)..own(end)))
        })
    };
    #[cfg(target_arch = "x86_64")]
    macro_rules! vectors {
        ($module:ident) => {{
            let grid = grid($module::TILE_TOKENS);
            with_packed(x, &grid.tiling, steps, group, grid.is_parallel(), |packed| {
                grid.run(|tiles, range| {
                    for (m, blocks) in parts(&range) {
                        // SAFETY: the processor supports the backend (asserted above); the tasks of a grid are
                        // disjoint, and nothing else can write to the results.
                        unsafe { $module::multiply(&packed.tiles(tiles.clone()), m.weights, blocks, &m.sink) };
                    }
                });
            });
        }};
    }
    match backend {
        Backend::Scalar => {
            let grid = grid(scalar::TILE_TOKENS);
            grid.run(|tiles, range| {
                let tokens = grid.tiling.first(tiles.start)..grid.tiling.first(tiles.end);
                for (m, blocks) in parts(&range) {
                    // SAFETY: the tasks of a grid are disjoint, and nothing else can write to the results.
                    unsafe { scalar::multiply(x, tokens.clone(), m.weights, blocks, &m.sink) };
                }
            });
        }
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => vectors!(avx2),
        #[cfg(target_arch = "x86_64")]
        Backend::AvxVnni => vectors!(avx_vnni),
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512Vnni => vectors!(avx512),
        #[cfg(target_arch = "aarch64")]
        Backend::Neon | Backend::NeonDot | Backend::NeonI8mm => {
            let grid = grid(neon::tile_tokens(backend));
            with_packed(x, &grid.tiling, steps, group, grid.is_parallel(), |packed| {
                grid.run(|tiles, range| {
                    for (m, blocks) in parts(&range) {
                        let tiles = packed.tiles(tiles.clone());
                        // SAFETY: the processor supports the backend (asserted above); tasks are disjoint as
                        // above.
                        unsafe { neon::multiply(backend, &tiles, m.weights, blocks, &m.sink) };
                    }
                });
            });
        }
        // The other architectures' backends.
        _ => unreachable!("asserted to be supported"),
    }
}

#[cfg(test)]
mod scales_tests;
#[cfg(test)]
mod tests;
