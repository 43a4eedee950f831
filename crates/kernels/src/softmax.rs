//! Softmax and log-sum-exp of a row, with the exact maximum taken out first.
//!
//! A row's exponentials are summed in segments of [`SEGMENT`] elements: within a segment by lanes and their
//! tree, then segment after segment. Long rows, such as the scores of a long context, can so be split among
//! workers without a change of bits.

use crate::Backend;
use crate::exp::exp;
use crate::lanes::{LANES, Lanes, multiversion, padded, sum};

/// Elements whose exponentials, or positions whose weighted values, are summed on their own before segments
/// are added in order.
pub(crate) const SEGMENT: usize = 256;

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
        if max.is_infinite() {
            return max;
        }
        let mut total = 0f32;
        for segment in row.chunks(SEGMENT) {
            let mut acc = [0f32; LANES];
            let (blocks, rest) = segment.as_chunks::<LANES>();
            for block in blocks {
                exp_into(block, max, &mut acc);
            }
            if !rest.is_empty() {
                exp_into(&padded(rest, f32::NEG_INFINITY), max, &mut acc);
            }
            total += sum(&acc);
        }
        log_of_sum(max, total)
    }
}

/// The logarithm of `exp(max) · total`: one call a row, the same code on every backend.
#[inline(always)]
pub(crate) fn log_of_sum(max: f32, total: f32) -> f32 {
    max + total.ln()
}

/// The largest element; NaN if there is one.
#[inline(always)]
pub(crate) fn max(row: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (blocks, rest) = row.as_chunks::<LANES>();
    for block in blocks {
        for i in 0..LANES {
            acc[i] = larger(acc[i], block[i]);
        }
    }
    for (i, x) in padded(rest, f32::NEG_INFINITY).iter().enumerate() {
        acc[i] = larger(acc[i], *x);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            acc[i] = larger(acc[i], acc[i + half]);
        }
    }
    acc[0]
}

#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a || b.is_nan() { b } else { a }
}

/// Replaces x by exp(x − max) and returns the sum, segment by segment.
#[inline(always)]
pub(crate) fn exp_and_sum(row: &mut [f32], max: f32) -> f32 {
    let mut total = 0f32;
    for segment in row.chunks_mut(SEGMENT) {
        total += exp_and_sum_segment(segment, max);
    }
    total
}

/// [`exp_and_sum`] of one segment.
#[inline(always)]
pub(crate) fn exp_and_sum_segment(segment: &mut [f32], max: f32) -> f32 {
    let mut sums = [0f32; LANES];
    let (blocks, rest) = segment.as_chunks_mut::<LANES>();
    for block in blocks {
        *block = exp_into(block, max, &mut sums);
    }
    if !rest.is_empty() {
        let exps = exp_into(&padded(rest, f32::NEG_INFINITY), max, &mut sums);
        rest.copy_from_slice(&exps[..rest.len()]);
    }
    sum(&sums)
}

/// exp(x − max), also added to the sums. What pads a row adds +0, which changes no sum of such terms.
#[inline(always)]
fn exp_into(x: &Lanes, max: f32, sums: &mut Lanes) -> Lanes {
    let mut out = [0f32; LANES];
    for i in 0..LANES {
        out[i] = exp(x[i] - max);
    }
    for i in 0..LANES {
        sums[i] += out[i];
    }
    out
}
