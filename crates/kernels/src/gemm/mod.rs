//! The f32 matrix product of training: `C = A · B` or `C += A · B`, blocked and packed (Goto and van de
//! Geijn, "Anatomy of High-Performance Matrix Multiplication").
//!
//! Operands are read once, by packing, so that they need not exist as floats: int8 activations and ternary
//! weights are decoded on the way ([`Matrix`]). Every element of C is summed over k in one fixed order:
//! ascending within a block of [`DEPTH`], block after block. Neither the number of threads nor the backend
//! changes a bit.

mod micro;
mod pack;

use std::cell::Cell;

use self::micro::Kernel;
pub use self::pack::Matrix;
use self::pack::{GROUP, PADDING, pack_panels};
use crate::{Backend, WriteMode, pool};

/// Terms of a sum that are added in registers before they go to C.
const DEPTH: usize = 256;

/// Rows and columns of C that are packed for at once, at most.
const BLOCK: usize = 2048;

/// Floats that are packed at once, about: they stay in the last level of cache.
const PACKED: usize = 4 << 20;

/// Panels of A, at most, and columns of C that one task takes.
const TASK_PANELS: usize = 4;
const TASK_COLUMNS: usize = 256;

/// Tasks a thread: enough to even out threads of different speed.
const TASKS_A_THREAD: usize = 12;

/// Multiplications below which a product runs on the calling thread alone.
const PARALLEL_PRODUCTS: usize = 1 << 19;

/// A cache line, so that packed panels begin at one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; 16]);

thread_local! {
    /// Kept between calls: a fresh buffer would fault in all its pages each time.
    static BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// `C = A · B` or `C += A · B`: A [m, k], B [k, n], C [m, n] row-major.
///
/// # Panics
/// If the inner dimensions differ or `c` is not [m, n].
pub fn gemm(a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], write: WriteMode) {
    gemm_with(Backend::active(), a, b, c, write);
}

/// [`gemm`] on the backend given.
///
/// # Panics
/// As [`gemm`], and if the processor does not support the backend.
pub(crate) fn gemm_with(backend: Backend, a: Matrix<'_>, b: Matrix<'_>, c: &mut [f32], write: WriteMode) {
    backend.assert_supported();
    let (m, k, n) = (a.rows(), a.cols(), b.cols());
    assert_eq!(k, b.rows(), "A is [{m}, {k}], B is [{}, {n}]", b.rows());
    assert_eq!(c.len(), m * n, "C is [{m}, {n}]");
    if c.is_empty() {
        return;
    }
    if k == 0 {
        if write == WriteMode::Overwrite {
            c.fill(0.0);
        }
        return;
    }
    let kernel = Kernel::of(backend);
    let parallel = m * n * k >= PARALLEL_PRODUCTS && pool::threads() > 1;
    let rows = even_block(m, BLOCK, kernel.rows);
    let columns = even_block(n, BLOCK, kernel.columns);
    let depth = even_block(k, (PACKED / (rows + columns)).max(DEPTH) / DEPTH * DEPTH, DEPTH);
    // Taken, not borrowed: a task of another product that this thread picks up meanwhile gets an empty one.
    let mut lines = BUFFER.take();
    let out = Output { c: c.as_mut_ptr(), len: c.len(), stride: n };
    for row in (0..m).step_by(rows) {
        for column in (0..n).step_by(columns) {
            for first in (0..k).step_by(depth) {
                let part = Part {
                    kernel,
                    rows: row..m.min(row + rows),
                    columns: column..n.min(column + columns),
                    depth: first..k.min(first + depth),
                    add: write == WriteMode::Accumulate || first > 0,
                    parallel,
                };
                part.multiply(a, b, &out, &mut lines);
            }
        }
    }
    BUFFER.set(lines);
}

/// The largest block up to `most`, a multiple of `unit`, of which `len` has a whole number, nearly.
fn even_block(len: usize, most: usize, unit: usize) -> usize {
    let blocks = len.div_ceil(most);
    len.div_ceil(blocks).next_multiple_of(unit)
}

/// Where results go; shared by the tasks that write them.
struct Output {
    c: *mut f32,
    len: usize,
    stride: usize,
}

// SAFETY: threads write through `c` only, each to the tiles of its own task, while `gemm_with` borrows the
// slice.
unsafe impl Sync for Output {}

/// A block of C and a stretch of the sums.
struct Part {
    kernel: Kernel,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    depth: std::ops::Range<usize>,
    add: bool,
    parallel: bool,
}

impl Part {
    fn multiply(&self, a: Matrix<'_>, b: Matrix<'_>, out: &Output, lines: &mut Vec<Line>) {
        let kernel = self.kernel;
        let depth = self.depth.len();
        let (a_panels, b_panels) =
            (self.rows.len().div_ceil(kernel.rows), self.columns.len().div_ceil(kernel.columns));
        // Block of terms by block of terms, panel by panel.
        let blocks = depth.div_ceil(DEPTH);
        let (a_len, b_len) = (kernel.rows * DEPTH + PADDING, kernel.columns * DEPTH + PADDING);
        let needed = blocks * (a_panels * a_len + b_panels * b_len);
        lines.resize(needed.div_ceil(16), Line([0.0; 16]));
        // SAFETY: a line is 16 floats without padding, and every bit pattern is a float.
        let packed = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), needed) };
        let (packed_b, packed_a) = packed.split_at_mut(blocks * b_panels * b_len);
        let terms = |block: usize| {
            let first = self.depth.start + block * DEPTH;
            first..self.depth.end.min(first + DEPTH)
        };
        let pack_a = |block: usize, group: usize, panels: &mut [f32]| {
            let (first, width) = (self.rows.start + group * GROUP, kernel.rows);
            let rows = first..self.rows.end.min(first + GROUP);
            pack_panels(kernel.backend, a.transposed(), terms(block), rows, width, panels, a_len);
        };
        let pack_b = |block: usize, group: usize, panels: &mut [f32]| {
            let (first, width) = (self.columns.start + group * GROUP, kernel.columns);
            let columns = first..self.columns.end.min(first + GROUP);
            pack_panels(kernel.backend, b, terms(block), columns, width, panels, b_len);
        };
        let (a_group, b_group) = (GROUP / kernel.rows * a_len, GROUP / kernel.columns * b_len);
        // One task a group of panels and a group of columns: the columns' part of B stays in the L2 cache.
        let column_panels = TASK_COLUMNS / kernel.columns;
        let column_groups = b_panels.div_ceil(column_panels);
        let wanted = pool::threads() * TASKS_A_THREAD;
        let task_panels = (a_panels * column_groups / wanted).clamp(1, TASK_PANELS);
        let row_groups = a_panels.div_ceil(task_panels);
        let tasks = row_groups * column_groups;
        let compute = |task: usize, packed_a: &[f32], packed_b: &[f32]| {
            let (columns, rows) = (task / row_groups * column_panels, task % row_groups * task_panels);
            let columns = columns..b_panels.min(columns + column_panels);
            let rows = rows..a_panels.min(rows + task_panels);
            for block in 0..blocks {
                let terms = terms(block).len();
                for i in rows.clone() {
                    let a = &packed_a[(block * a_panels + i) * a_len..][..terms * kernel.rows];
                    for j in columns.clone() {
                        let b = &packed_b[(block * b_panels + j) * b_len..][..terms * kernel.columns];
                        self.tile(a, b, i, j, self.add || block > 0, out);
                    }
                }
            }
        };
        let of_a = groups(packed_a, a_panels * a_len, a_group).map(|group| (true, group));
        let of_b = groups(packed_b, b_panels * b_len, b_group).map(|group| (false, group));
        let pack = |(a, (block, group, panels)): (bool, (usize, usize, &mut [f32]))| {
            if a { pack_a(block, group, panels) } else { pack_b(block, group, panels) }
        };
        if self.parallel {
            pool::for_each(of_a.chain(of_b), pack);
            pool::run(tasks, |task| compute(task, packed_a, packed_b));
        } else {
            of_a.chain(of_b).for_each(pack);
            (0..tasks).for_each(|task| compute(task, packed_a, packed_b));
        }
    }

    /// Adds or stores the product of panel `i` of A and panel `j` of B.
    #[inline]
    fn tile(&self, a: &[f32], b: &[f32], i: usize, j: usize, add: bool, out: &Output) {
        let kernel = self.kernel;
        let (row, column) = (self.rows.start + i * kernel.rows, self.columns.start + j * kernel.columns);
        let rows = kernel.rows.min(self.rows.end - row);
        let columns = kernel.columns.min(self.columns.end - column);
        let at = row * out.stride + column;
        assert!(at + (rows - 1) * out.stride + columns <= out.len, "a tile lies in C");
        if rows == kernel.rows && columns == kernel.columns {
            // SAFETY: the assertion above says that the whole tile lies in C, and no other task writes it.
            unsafe { kernel.run(a, b, out.c.add(at), out.stride, add) };
            return;
        }
        let mut edge = [0f32; micro::MOST];
        // SAFETY: the buffer holds a whole tile of any kernel.
        unsafe { kernel.run(a, b, edge.as_mut_ptr(), kernel.columns, false) };
        for (r, sums) in edge.chunks_exact(kernel.columns).take(rows).enumerate() {
            // SAFETY: row r < rows of the tile lies in C by the assertion above, and no other task writes it.
            let c = unsafe { std::slice::from_raw_parts_mut(out.c.add(at + r * out.stride), columns) };
            for (c, sum) in c.iter_mut().zip(sums) {
                *c = if add { *c + sum } else { *sum };
            }
        }
    }
}

/// Every group of panels in every block of terms: (block, group, panels).
fn groups(
    packed: &mut [f32],
    block: usize,
    group: usize,
) -> impl Iterator<Item = (usize, usize, &mut [f32])> {
    packed.chunks_mut(block).enumerate().flat_map(move |(b, panels)| {
        panels.chunks_mut(group).enumerate().map(move |(g, panels)| (b, g, panels))
    })
}

#[cfg(test)]
mod tests;
