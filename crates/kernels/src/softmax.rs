//! Softmax and log-sum-exp of a row, with the exact maximum taken out first.

use crate::Backend;
use crate::exp::exp;
use crate::lanes::{LANES, multiversion, sum};

/// Replaces a row of scores by their softmax. An empty row stays empty.
pub fn softmax_in_place(row: &mut [f32]) {
    let backend = Backend::active();
    softmax_row(backend, row);
}

/// `ln Σ exp(x)` of a row; -∞ of an empty one.
pub fn log_sum_exp(row: &[f32]) -> f32 {
    log_sum_exp_row(Backend::active(), row)
}

multiversion! {
    fn softmax_row(row: &mut [f32]) {
        let max = max(row);
        let total = exp_and_sum(row, max);
        let factor = 1.0 / total;
        for x in row {
            *x *= factor;
        }
    }
}

multiversion! {
    fn log_sum_exp_row(row: &[f32]) -> f32 {
        let max = max(row);
        if max == f32::NEG_INFINITY {
            return max;
        }
        let mut acc = [0f32; LANES];
        let (blocks, rest) = row.as_chunks::<LANES>();
        for block in blocks {
            for i in 0..LANES {
                acc[i] += exp(block[i] - max);
            }
        }
        for (i, x) in rest.iter().enumerate() {
            acc[i] += exp(x - max);
        }
        // `ln` is the C library's or Rust's: one call a row, the same code on every backend.
        max + sum(&acc).ln()
    }
}

/// The largest element; NaN if there is one.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            acc[i] = if block[i] > acc[i] || block[i].is_nan() { block[i] } else { acc[i] };
        }
    }
    for (i, x) in rest.iter().enumerate() {
        acc[i] = if *x > acc[i] || x.is_nan() { *x } else { acc[i] };
    }
    let mut m = f32::NEG_INFINITY;
    for x in acc {
        m = if x > m || x.is_nan() { x } else { m };
    }
    m
}

/// Replaces x by exp(x − max) and returns the sum.
#[inline(always)]
pub(crate) fn exp_and_sum(row: &mut [f32], max: f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (blocks, rest) = row.as_chunks_mut::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            block[i] = exp(block[i] - max);
            acc[i] += block[i];
        }
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = exp(*x - max);
        acc[i] += *x;
    }
    sum(&acc)
}
