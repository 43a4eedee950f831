//! RMSNorm (arXiv 1910.07467): `x · (mean(x²) + eps)^-½ · weight`, row by row.

use rayon::prelude::*;

use crate::lanes::{dot, multiversion};
use crate::{Backend, pool};

/// Rows of one parallel piece; fixed, so that the weight's gradient is summed in an order of its own.
const ROWS: usize = 32;

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

/// The gradients of [`rms_norm`] for its upstream gradient `dy`: `dx` [rows, width] is overwritten, `dweight` `[width]` too.
///
/// # Panics
/// If the lengths do not fit.
pub fn rms_norm_backward(
    x: &[f32],
    weight: &[f32],
    eps: f32,
    dy: &[f32],
    dx: &mut [f32],
    dweight: &mut [f32],
) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "x is rows of {width}");
    assert!(
        x.len() == dy.len() && x.len() == dx.len() && width == dweight.len(),
        "gradients have their values' lengths"
    );
    let backend = Backend::active();
    let piece = |(dx, (x, dy)): (&mut [f32], (&[f32], &[f32]))| -> Vec<f32> {
        let mut part = vec![0f32; width];
        backward(backend, x, weight, eps, dy, dx, &mut part);
        part
    };
    let size = ROWS * width;
    let parts: Vec<Vec<f32>> = if x.len() < PARALLEL_ELEMENTS {
        dx.chunks_mut(size).zip(x.chunks(size).zip(dy.chunks(size))).map(piece).collect()
    } else {
        dx.par_chunks_mut(size).zip(x.par_chunks(size).zip(dy.par_chunks(size))).map(piece).collect()
    };
    dweight.fill(0.0);
    for part in parts {
        dweight.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
}

#[inline(always)]
fn inverse_rms(row: &[f32], eps: f32) -> f32 {
    1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt()
}

multiversion! {
    fn forward(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        for (x, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            let inverse = inverse_rms(x, eps);
            for ((y, x), w) in out.iter_mut().zip(x).zip(weight) {
                *y = x * inverse * w;
            }
        }
    }
}

multiversion! {
    fn backward(x: &[f32], weight: &[f32], eps: f32, dy: &[f32], dx: &mut [f32], dweight: &mut [f32]) {
        let width = weight.len();
        let rows = x.chunks_exact(width).zip(dy.chunks_exact(width)).zip(dx.chunks_exact_mut(width));
        for ((x, dy), dx) in rows {
            let inverse = inverse_rms(x, eps);
            for i in 0..width {
                dx[i] = dy[i] * weight[i];
                dweight[i] = (dy[i] * inverse).mul_add(x[i], dweight[i]);
            }
            // With x̂ = x/rms and g = dy·weight: dx = (g − x̂ · mean(g·x̂)) / rms.
            let projection = dot(dx, x) * inverse * inverse * inverse / width as f32;
            for i in 0..width {
                dx[i] = dx[i].mul_add(inverse, -(x[i] * projection));
            }
        }
    }
}
