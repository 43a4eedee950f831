//! The product of int8 activations and ternary weights: `acc = Σ xq · wq`, exact, and `y = acc · (s_w · s_x)`.
//!
//! The work is a grid: tiles of tokens × blocks of 32 output features. `tiling` cuts it into tasks for threads; a
//! backend (`scalar`, `avx2`, `avx512`) computes the cells of a task with accumulators in registers; `output` takes the
//! sums to their place. All sums are integers, so neither the backend nor the cut nor the number of threads changes
//! a bit.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod output;
#[cfg(target_arch = "x86_64")]
mod pack;
mod scalar;
mod tiling;

use self::output::{Output, Sink};
#[cfg(target_arch = "x86_64")]
use self::pack::with_packed;
use self::tiling::Grid;
use crate::{Backend, QuantizedRows, TernaryWeights};

/// `y[t, r] = acc[t, r] as f32 * (w.scale() * x.scales[t])` with `acc = Σ_k x.codes[t, k] · w.code(r, k)`, in exactly
/// this order of multiplication. `y` is [m, rows], row-major; m may be 0.
///
/// # Panics
/// If `x.cols` differs from `w.cols()`, a vector of `x` has not the length that its fields promise, or `y` has not
/// `m * rows` elements.
pub fn ternary_matmul(x: &QuantizedRows, w: &TernaryWeights, y: &mut [f32]) {
    ternary_matmul_with(Backend::active(), x, w, y);
}

/// [`ternary_matmul`] on the backend given.
///
/// # Panics
/// As [`ternary_matmul`], and if the processor does not support the backend.
pub fn ternary_matmul_with(backend: Backend, x: &QuantizedRows, w: &TernaryWeights, y: &mut [f32]) {
    product(backend, x, w, y);
}

/// The exact sums `acc[t, r] = Σ_k x.codes[t, k] · w.code(r, k)` [m, rows] without any scale.
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
pub fn ternary_matmul_i32_with(backend: Backend, x: &QuantizedRows, w: &TernaryWeights, acc: &mut [i32]) {
    product(backend, x, w, acc);
}

fn product<T: Output>(backend: Backend, x: &QuantizedRows, w: &TernaryWeights, out: &mut [T]) {
    backend.assert_supported();
    let tokens = x.rows();
    assert_eq!(x.cols, w.cols(), "activations have {} columns, weights {}", x.cols, w.cols());
    assert_eq!(x.codes.len(), tokens * x.cols, "codes must be [{tokens}, {}]", x.cols);
    assert_eq!(x.sums.len(), tokens, "one sum for every token");
    assert_eq!(out.len(), tokens * w.rows(), "the result must be [{tokens}, {}]", w.rows());
    if tokens == 0 {
        return;
    }
    let sink = Sink::new(out, w, x);
    match backend {
        Backend::Scalar => {
            let grid = Grid::new(tokens, scalar::TILE_TOKENS, w);
            grid.run(|tiles, blocks| {
                let tokens = grid.tiling.first(tiles.start)..grid.tiling.first(tiles.end);
                // SAFETY: the tasks of a grid are disjoint, and nothing else can write to `out`.
                unsafe { scalar::multiply(x, tokens, w, blocks, &sink) };
            });
        }
        #[cfg(target_arch = "x86_64")]
        Backend::Avx2 => {
            let grid = Grid::new(tokens, avx2::TILE_TOKENS, w);
            with_packed(x, &grid.tiling, w.steps(), grid.is_parallel(), |packed| {
                // SAFETY: the processor supports AVX2 (asserted above); tasks are disjoint as above.
                grid.run(|tiles, blocks| unsafe { avx2::multiply(&packed.tiles(tiles), w, blocks, &sink) });
            });
        }
        #[cfg(target_arch = "x86_64")]
        Backend::Avx512Vnni => {
            let grid = Grid::new(tokens, avx512::TILE_TOKENS, w);
            with_packed(x, &grid.tiling, w.steps(), grid.is_parallel(), |packed| {
                // SAFETY: the processor supports AVX-512 VNNI (asserted above); tasks are disjoint as above.
                grid.run(|tiles, blocks| unsafe { avx512::multiply(&packed.tiles(tiles), w, blocks, &sink) });
            });
        }
        #[cfg(not(target_arch = "x86_64"))]
        Backend::Avx2 | Backend::Avx512Vnni => unreachable!("asserted to be supported"),
    }
}

#[cfg(test)]
mod tests;
