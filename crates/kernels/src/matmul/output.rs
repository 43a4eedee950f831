//! Where results go: raw sums or scaled floats, written in place by tasks that share the output.

use std::marker::PhantomData;
use std::ops::Add;

use crate::ternary_weights::BLOCK_ROWS;
use crate::{QuantizedRows, TernaryWeights, WriteMode};

/// An element of a product's result.
pub(super) trait Output: Copy + Send + Add<Output = Self> {
    /// The element for an exact sum and the product of both scales.
    fn finish(acc: i32, scale: f32) -> Self;
}

impl Output for f32 {
    #[inline(always)]
    fn finish(acc: i32, scale: f32) -> Self {
        acc as f32 * scale
    }
}

impl Output for i32 {
    #[inline(always)]
    fn finish(acc: i32, _: f32) -> Self {
        acc
    }
}

/// The result [tokens, rows] of a product, shared by the tasks that fill it.
pub(super) struct Sink<'a, T> {
    out: *mut T,
    rows: usize,
    /// Rows of activations whose results are added up to a token's.
    digits: usize,
    weight_scale: f32,
    activation_scales: &'a [f32],
    write: WriteMode,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: threads only write through `out`, by `put`, whose contract keeps their writes apart; `T` may be
// sent.
unsafe impl<T: Send> Sync for Sink<'_, T> {}

impl<'a, T: Output> Sink<'a, T> {
    /// # Panics
    /// If `out` is not [tokens, rows of `w`], with `digits` rows of `x` for each token.
    pub(super) fn new(
        out: &'a mut [T],
        write: WriteMode,
        w: &TernaryWeights,
        x: &'a QuantizedRows,
        digits: usize,
    ) -> Self {
        assert_eq!(out.len() * digits, x.scales.len() * w.rows());
        Self {
            out: out.as_mut_ptr(),
            rows: w.rows(),
            digits,
            weight_scale: w.scale(),
            activation_scales: &x.scales,
            write,
            borrow: PhantomData,
        }
    }

    /// Writes, or adds, the sums of one row of activations for block `block` of output features; sums of
    /// padding rows are dropped. A token's later digits are added to its first one.
    ///
    /// # Safety
    /// No other thread may write the same token and block while the sink lives.
    ///
    /// # Panics
    /// If the row or the block lies outside the result.
    #[inline(always)]
    pub(super) unsafe fn put(&self, row: usize, block: usize, acc: &[i32; BLOCK_ROWS]) {
        let scale = self.weight_scale * self.activation_scales[row];
        let (token, write) = match (self.digits, row % self.digits) {
            (1, _) => (row, self.write),
            (digits, 0) => (row / digits, self.write),
            (digits, _) => (row / digits, WriteMode::Accumulate),
        };
        let first = block * BLOCK_ROWS;
        assert!(first < self.rows);
        let count = BLOCK_ROWS.min(self.rows - first);
        // SAFETY: `row` indexed `activation_scales`, which has `digits` elements a token, so with `first +
        // count <= rows` the range lies in the slice of `tokens * rows` elements that `new` borrowed; the
        // caller keeps other writers away.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(token * self.rows + first), count) };
        if let Some(out) = out.as_mut_array::<BLOCK_ROWS>() {
            finish_into(out, acc, scale, write);
        } else {
            finish_into(out, acc, scale, write);
        }
    }
}

#[inline(always)]
fn finish_into<T: Output>(out: &mut [T], acc: &[i32], scale: f32, write: WriteMode) {
    for (out, acc) in out.iter_mut().zip(acc) {
        let value = T::finish(*acc, scale);
        *out = if write == WriteMode::Accumulate { *out + value } else { value };
    }
}
