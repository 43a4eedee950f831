//! Where results go: raw sums or scaled floats, written in place by tasks that share the output.

use std::marker::PhantomData;
use std::ops::Add;

use crate::ternary_weights::BLOCK_ROWS;
use crate::{QuantizedRows, TernaryWeights, WriteMode};

/// An element of a product's result.
pub(super) trait Output: Copy + Send + Add<Output = Self> {
    /// Whether scales count: without, a sum is over the whole row, whatever groups have scales.
    const SCALED: bool;

    /// The element for an exact sum and the product of both scales.
    fn finish(acc: i32, scale: f32) -> Self;

    /// The element for scaled sums of groups, added up.
    fn of_groups(value: f32) -> Self;
}

impl Output for f32 {
    const SCALED: bool = true;

    #[inline(always)]
    fn finish(acc: i32, scale: f32) -> Self {
        acc as f32 * scale
    }

    #[inline(always)]
    fn of_groups(value: f32) -> Self {
        value
    }
}

impl Output for i32 {
    const SCALED: bool = false;

    #[inline(always)]
    fn finish(acc: i32, _: f32) -> Self {
        acc
    }

    fn of_groups(_: f32) -> Self {
        unreachable!("raw sums have no scales")
    }
}

/// The result [tokens, rows] of a product, shared by the tasks that fill it.
pub(super) struct Sink<'a, T> {
    out: *mut T,
    rows: usize,
    /// Rows of activations whose results are added up to a token's.
    digits: usize,
    /// One, or one a row; none where groups have scales.
    weight_scales: &'a [f32],
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
        w: &'a TernaryWeights,
        x: &'a QuantizedRows,
        digits: usize,
    ) -> Self {
        assert_eq!(out.len() * digits, x.scales.len() * w.rows());
        Self {
            out: out.as_mut_ptr(),
            rows: w.rows(),
            digits,
            weight_scales: w.whole_scales(),
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
        let by = self.activation_scales[row];
        // SAFETY: passed on to the caller.
        let (out, write) = unsafe { self.place(row, block) };
        if let [scale] = *self.weight_scales {
            let scale = scale * by;
            match out.as_mut_array::<BLOCK_ROWS>() {
                Some(out) => finish_into(out, acc, write, |_, acc| T::finish(acc, scale)),
                None => finish_into(out, acc, write, |_, acc| T::finish(acc, scale)),
            }
            return;
        }
        if !T::SCALED {
            return finish_into(out, acc, write, |_, acc| T::finish(acc, 0.0));
        }
        let scales = &self.weight_scales[block * BLOCK_ROWS..][..out.len()];
        match (out.as_mut_array::<BLOCK_ROWS>(), scales.as_array::<BLOCK_ROWS>()) {
            (Some(out), Some(scales)) => {
                finish_into(out, acc, write, |i, acc| T::finish(acc, scales[i] * by));
            }
            _ => finish_into(out, acc, write, |i, acc| T::finish(acc, scales[i] * by)),
        }
    }

    /// [`Sink::put`] of the scaled sums of groups, added up in their order: times the scale of the activations.
    ///
    /// # Safety
    /// As [`Sink::put`].
    ///
    /// # Panics
    /// As [`Sink::put`].
    #[inline(always)]
    pub(super) unsafe fn put_groups(&self, row: usize, block: usize, values: &[f32; BLOCK_ROWS]) {
        let by = self.activation_scales[row];
        // SAFETY: passed on to the caller.
        let (out, write) = unsafe { self.place(row, block) };
        match out.as_mut_array::<BLOCK_ROWS>() {
            Some(out) => finish_into(out, values, write, |_, value| T::of_groups(value * by)),
            None => finish_into(out, values, write, |_, value| T::of_groups(value * by)),
        }
    }

    /// Where the results of one row of activations and one block go, and how.
    ///
    /// # Safety
    /// As [`Sink::put`].
    #[inline(always)]
    #[allow(clippy::mut_from_ref, reason = "tasks write to disjoint places, which the caller promises")]
    unsafe fn place(&self, row: usize, block: usize) -> (&mut [T], WriteMode) {
        let (token, write) = match (self.digits, row % self.digits) {
            (1, _) => (row, self.write),
            (digits, 0) => (row / digits, self.write),
            (digits, _) => (row / digits, WriteMode::Accumulate),
        };
        let first = block * BLOCK_ROWS;
        assert!(first < self.rows && row < self.activation_scales.len());
        let count = BLOCK_ROWS.min(self.rows - first);
        // SAFETY: there are `digits` rows of activations a token, so with `first + count <= rows` the range lies in
        // the slice of `tokens * rows` elements that `new` borrowed; the caller keeps other writers away.
        let out = unsafe { std::slice::from_raw_parts_mut(self.out.add(token * self.rows + first), count) };
        (out, write)
    }
}

/// Writes, or adds, what `finish` makes of each sum; it also gets the row's number in the block.
#[inline(always)]
fn finish_into<T: Output, A: Copy>(
    out: &mut [T],
    sums: &[A],
    write: WriteMode,
    finish: impl Fn(usize, A) -> T,
) {
    for (i, (out, sum)) in out.iter_mut().zip(sums).enumerate() {
        let value = finish(i, *sum);
        *out = if write == WriteMode::Accumulate { *out + value } else { value };
    }
}
