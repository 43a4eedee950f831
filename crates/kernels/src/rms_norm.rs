//! RMSNorm (arXiv 1910.07467): `x · (mean(x²) + eps)^-½ · weight`, row by row.

use crate::lanes::{dot_wide, multiversion};
use crate::{Backend, WriteMode, pool};

/// Rows of one parallel piece; fixed, so that the weight's gradient is summed in an order of its own.
pub(crate) const ROWS: usize = 32;

/// Elements from which threads share the work.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// `out = x / sqrt(mean(x²) + eps) · weight`: x and out [rows, width], weight `[width]`.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let width = weight.len();
    assert!(
        width > 0 && x.len().is_multiple_of(width) && x.len() == out.len(),
        "x and out are rows of {width}"
    );
    let backend = Backend::active();
    if x.len() < PARALLEL_ELEMENTS {
        return forward(backend, x, weight, eps, out);
    }
    let pieces = out.chunks_mut(ROWS * width).zip(x.chunks(ROWS * width));
    pool::for_each(pieces, |(out, x)| forward(backend, x, weight, eps, out));
}

/// The gradients of [`rms_norm`] for its upstream gradient `dy`: `dx` [rows, width] and, if wanted, `dweight`
/// `[width]`, each overwritten or added to.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: (&mut [f32], WriteMode),
    dweight: Option<(&mut [f32], WriteMode)>,
) {
    let width = weight.len();
    let (dx, write) = dx;
    assert!(width > 0 && x.len().is_multiple_of(width), "x is rows of {width}");
    assert!(x.len() == dy.len() && x.len() == dx.len(), "gradients have their values' lengths");
    check_weight(width, dweight.as_ref());
    let backend = Backend::active();
    let size = ROWS * width;
    let mut buffers = vec![0f32; x.len().div_ceil(size) * 2 * width];
    let pieces =
        dx.chunks_mut(size).zip(x.chunks(size).zip(dy.chunks(size))).zip(buffers.chunks_mut(2 * width));
    let compute = |((dx, (x, dy)), buffers): ((_, (&[f32], _)), _)| {
        backward(backend, x, weight, eps, dy, dx, write, buffers);
    };
    if x.len() < PARALLEL_ELEMENTS {
        pieces.for_each(compute);
    } else {
        pool::for_each(pieces, compute);
    }
    if let Some((dweight, write)) = dweight {
        sum_parts(&buffers, dweight, write);
    }
}

pub(crate) fn check_weight(width: usize, dweight: Option<&(&mut [f32], WriteMode)>) {
    assert!(dweight.is_none_or(|(d, _)| d.len() == width), "a weight's gradient is as long as the weight");
}

/// The pieces' sums, in their order: each piece's buffers are `[2, width]`, of which the first row is its
/// sum.
pub(crate) fn sum_parts(buffers: &[f32], out: &mut [f32], write: WriteMode) {
    if write == WriteMode::Overwrite {
        out.fill(0.0);
    }
    for part in buffers.chunks_exact(2 * out.len()) {
        out.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

#[inline(always)]
pub(crate) fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot_wide(row, row) / row.len() as f32 + eps).sqrt()
}

#[inline(always)]
pub(crate) fn forward_row(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let inverse = inverse_rms(x, eps);
    for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
        *y = x * inverse * w;
    }
}

multiversion! {
    fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            forward_row(x, weight, eps, out);
        }
    }
}

multiversion! {
    /// `buffers` is `[2, width]`: the sum of the weight's gradient, and space for a row.
    fn backward(
        x: &[f32],
        weight: &[f32],
        eps: f32,
        dy: &[f32],
        dx: &mut [f32],
        write: WriteMode,
        buffers: &mut [f32],
    ) {
        let width = weight.len();
        let (dweight, g) = buffers.split_at_mut(width);
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for ((x, dy), dx) in rows {
            let (inverse, projection) = backward_row(x, weight, eps, dy, g, dweight);
            if write == WriteMode::Overwrite {
                for i in 0..width {
                    dx[i] = g[i].mul_add(inverse, -(x[i] * projection));
                }
            } else {
                for i in 0..width {
                    dx[i] += g[i].mul_add(inverse, -(x[i] * projection));
                }
            }
        }
    }
}

/// Of one row: `g = dy · weight`, the weight's gradient added, and (inverse, projection), with which the
/// input's gradient is `g · inverse − x · projection`.
#[inline(always)]
pub(crate) fn backward_row(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    g: &mut [f32],
    dweight: &mut [f32],
) -> (f32, f32) {
    let width = weight.len();
    let (x, dy, g, dweight) = (&x[..width], &dy[..width], &mut g[..width], &mut dweight[..width]);
    let inverse = inverse_rms(x, eps);
    for i in 0..width {
        g[i] = dy[i] * weight[i];
        dweight[i] = (dy[i] * inverse).mul_add(x[i], dweight[i]);
    }
    // With x̂ = x/rms and g = dy·weight: dx = (g − x̂ · mean(g·x̂)) / rms.
    (inverse, dot_wide(g, x) * inverse * inverse * inverse / width as f32)
}
