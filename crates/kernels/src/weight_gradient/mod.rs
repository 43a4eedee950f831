//! A weight's gradient by integers: `dW = dYᵀ · X` of int8 activations X and a gradient dY that is rounded to
//! integers of one, two or three int8 digits (see [`crate::Rounding`]).
//!
//! The sum runs over tokens, and every token's activations have a scale of their own. It goes to the
//! gradient, which is then quantized output feature by output feature: `g[t, o] = dy[t, o] · s[t]`, `c[o] =
//! max_t |g[t, o]| / 127`, the digits are those of `g / c`, and `dW[o, i] = c[o] · Σ_t code[t, o] · x[t, i]`
//! with an exact sum for each digit, added up in f32. Stretches of [`STRETCH`] tokens have scales of their
//! own and are added in f32.
//!
//! The sums are integers and the rounding depends on the element alone: every backend and number of threads
//! gives the same bits.

mod micro;
mod pack;

use std::cell::Cell;

use self::micro::{Kernel, Target};
use self::pack::{GROUP, pack_activations, pack_gradient};
use crate::{Backend, QuantizedRows, Rounding, WriteMode, pool};

/// Tokens whose products are summed as integers, at most: 2048 · 127 · 128 is far from an i32's end, and two
/// panels stay in the L2 cache.
const STRETCH: usize = 2048;

/// Bytes of packed activations that one task reads again and again: they stay in the L2 cache.
const TASK_BYTES: usize = 256 << 10;

/// Panels of the gradient that one task takes.
const TASK_PANELS: usize = 4;

/// Words behind every panel, which keep the panels from falling into the same sets of a cache.
const PADDING: usize = 16;

/// Multiplications below which a product runs on the calling thread alone.
const PARALLEL_PRODUCTS: usize = 1 << 19;

/// A cache line, so that packed panels begin at one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([i32; 16]);

thread_local! {
    /// Kept between calls: a fresh buffer would fault in all its pages each time.
    static BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// `dW = dYᵀ · X` or `dW += dYᵀ · X` with dY rounded to integers (see the module): dY [tokens, outputs], X
/// [tokens, inputs], dW [outputs, inputs], all row-major. Noise rounds element (t, o) of dY by its number `t
/// · outputs + o` (modulo 2³²). An output whose gradient holds a NaN or an infinity gets a row of NaN.
///
/// # Panics
/// If the lengths do not fit.
pub fn weight_gradient(dy: &[f32], x: &QuantizedRows, rounding: Rounding, dw: &mut [f32], write: WriteMode) {
    weight_gradient_with(Backend::active(), dy, x, rounding, dw, write);
}

/// [`weight_gradient`] on the backend given.
///
/// # Panics
/// As [`weight_gradient`], and if the processor does not support the backend.
pub(crate) fn weight_gradient_with(
    backend: Backend,
    dy: &[f32],
    x: &QuantizedRows,
    rounding: Rounding,
    dw: &mut [f32],
    write: WriteMode,
) {
    backend.assert_supported();
    let (tokens, inputs) = (x.rows(), x.cols);
    assert_eq!(x.codes.len(), tokens * inputs, "codes must be [{tokens}, {inputs}]");
    if tokens == 0 || inputs == 0 {
        assert!(dy.is_empty() || inputs == 0, "gradients of no tokens");
        if write == WriteMode::Overwrite {
            dw.fill(0.0);
        }
        return;
    }
    assert_eq!(dw.len() % inputs, 0, "dw must be [outputs, {inputs}]");
    let outputs = dw.len() / inputs;
    assert_eq!(dy.len(), tokens * outputs, "dy must be [{tokens}, {outputs}]");
    if outputs == 0 {
        return;
    }
    // Taken, not borrowed: a task of another product that this thread picks up meanwhile gets an empty one.
    let mut lines = BUFFER.take();
    for first in (0..tokens).step_by(STRETCH) {
        let tokens = first..tokens.min(first + STRETCH);
        let product = Product {
            kernel: Kernel::of(backend),
            dy: &dy[tokens.start * outputs..tokens.end * outputs],
            x: &x.codes[tokens.start * inputs..tokens.end * inputs],
            scales: &x.scales[tokens],
            rounding,
            first: (first * outputs) as u32,
            outputs,
            inputs,
        };
        product.run(dw, write == WriteMode::Accumulate || first > 0, &mut lines);
    }
    BUFFER.set(lines);
}

/// One stretch of tokens.
struct Product<'a> {
    kernel: Kernel,
    dy: &'a [f32],
    x: &'a [i8],
    /// The tokens' scales.
    scales: &'a [f32],
    rounding: Rounding,
    /// Number of the first element of `dy`.
    first: u32,
    outputs: usize,
    inputs: usize,
}

/// Panels of at most [`GROUP`] columns, to be packed by one task.
struct Group<'a> {
    index: usize,
    panels: &'a mut [i32],
    /// For the gradient: the scales and sums of codes of the panels' rows.
    rows: Option<(&'a mut [f32], &'a mut [i32])>,
}

impl Product<'_> {
    fn run(&self, dw: &mut [f32], add: bool, lines: &mut Vec<Line>) {
        let (kernel, outputs, inputs) = (self.kernel, self.outputs, self.inputs);
        let words = self.scales.len().div_ceil(kernel.terms);
        // The rows of a tile are the first digits of some outputs, then their second ones, and so on.
        let digits = self.rounding.digits();
        let outputs_a_panel = kernel.rows / digits;
        let (dy_panels, x_panels) = (outputs.div_ceil(outputs_a_panel), inputs.div_ceil(kernel.columns));
        let (dy_len, x_len) = (words * kernel.rows + PADDING, words * kernel.columns + PADDING);
        let needed = dy_panels * dy_len + x_panels * x_len;
        lines.resize(needed.div_ceil(16), Line([0; 16]));
        // SAFETY: a line is 16 i32 without padding, and every bit pattern is one.
        let packed = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<i32>(), needed) };
        let (packed_dy, packed_x) = packed.split_at_mut(dy_panels * dy_len);
        // A whole number of panels: the places of outputs that do not exist stay 0.
        let mut scales = vec![0f32; dy_panels * kernel.rows];
        let mut sums = vec![0i32; dy_panels * kernel.rows];

        let dy_groups = packed_dy
            .chunks_mut(GROUP / outputs_a_panel * dy_len)
            .zip(scales.chunks_mut(GROUP * digits).zip(sums.chunks_mut(GROUP * digits)))
            .enumerate()
            .map(|(index, (panels, (scales, sums)))| Group { index, panels, rows: Some((scales, sums)) });
        let x_groups = packed_x
            .chunks_mut(GROUP / kernel.columns * x_len)
            .enumerate()
            .map(|(index, panels)| Group { index, panels, rows: None });
        let pack = |group: Group<'_>| {
            let first = group.index * GROUP;
            match group.rows {
                Some((scales, sums)) => {
                    pack_gradient(kernel.backend, self, first, group.panels, dy_len, scales, sums);
                }
                None => pack_activations(kernel.backend, self, first, group.panels, x_len),
            }
        };
        let column_panels = (TASK_BYTES / 4 / x_len).max(1);
        let column_groups = x_panels.div_ceil(column_panels);
        let row_groups = dy_panels.div_ceil(TASK_PANELS);
        let target = Target::new(dw, inputs, outputs_a_panel, add);
        let compute = |task: usize, packed_dy: &[i32], packed_x: &[i32], scales: &[f32], sums: &[i32]| {
            let (columns, rows) = (task / row_groups * column_panels, task % row_groups * TASK_PANELS);
            for i in rows..dy_panels.min(rows + TASK_PANELS) {
                let rows = i * kernel.rows..(i + 1) * kernel.rows;
                let a = &packed_dy[i * dy_len..][..words * kernel.rows];
                let (scales, sums) = (&scales[rows.clone()], &sums[rows]);
                let target = target.of_tile(i);
                for j in columns..x_panels.min(columns + column_panels) {
                    let b = &packed_x[j * x_len..][..words * kernel.columns];
                    // SAFETY: the processor supports the backend, and no other task has this tile.
                    unsafe { kernel.run(a, b, sums, scales, &target, j * kernel.columns) };
                }
            }
        };
        let tasks = row_groups * column_groups;
        if outputs * inputs * self.scales.len() >= PARALLEL_PRODUCTS && pool::threads() > 1 {
            pool::for_each(dy_groups.chain(x_groups), pack);
            pool::run(tasks, |task| compute(task, packed_dy, packed_x, &scales, &sums));
        } else {
            dy_groups.chain(x_groups).for_each(pack);
            (0..tasks).for_each(|task| compute(task, packed_dy, packed_x, &scales, &sums));
        }
    }
}

#[cfg(test)]
mod tests;
