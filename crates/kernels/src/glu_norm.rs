//! The inside of the feed-forward network in one pass: gate, sub-norm and quantization forward, sub-norm and
//! gate backward.
//!
//! The product `act(gate) · up` is computed again in the backward, row by row, rather than kept.

use crate::lanes::multiversion;
use crate::norm_quantize::quantize_made_rows;
use crate::rms_norm::{ROWS, check_weight, inverse_rms, sum_parts};
use crate::{Backend, Gate, QuantizedRows, WriteMode, glu, pool, rms_norm};

/// Elements from which threads share the work.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// Quantizes `rms_norm(act(gate) · up)`, or the product itself where there is no norm: gate and up [rows,
/// width]; the norm is its weight `[width]` and eps. The same bits as [`crate::glu`], [`crate::rms_norm`] and
/// [`crate::quantize_rows_into`].
///
/// # Panics
/// If the lengths do not fit.
pub fn glu_norm_quantize(
    kind: Gate,
    gate: &[f32],
    up: &[f32],
    width: usize,
    norm: Option<(&[f32], f32)>,
    out: &mut QuantizedRows,
) {
    check(gate, up, width, norm);
    let backend = Backend::active();
    quantize_made_rows(backend, gate.len() / width, width, out, |row, y| {
        let row = row * width..(row + 1) * width;
        forward(backend, kind, &gate[row.clone()], &up[row], norm, y);
    });
}

/// The gradients of `rms_norm(act(gate) · up)` (or of the product, where there is no norm) for the upstream
/// gradient that `dy` holds: `dy` becomes that of the gate, `dup` is overwritten; the norm's weight's
/// gradient, if wanted, is written as asked.
///
/// # Panics
/// If the lengths do not fit.
pub fn glu_norm_backward(
    kind: Gate,
    gate: &[f32],
    up: &[f32],
    width: usize,
    norm: Option<(&[f32], f32)>,
    dy: &mut [f32],
    dup: &mut [f32],
    dweight: Option<(&mut [f32], WriteMode)>,
) {
    check(gate, up, width, norm);
    assert!(dy.len() == gate.len() && dup.len() == gate.len(), "gradients have their values' lengths");
    check_weight(width, dweight.as_ref());
    let backend = Backend::active();
    let size = ROWS * width;
    let mut buffers = vec![0f32; gate.len().div_ceil(size) * 2 * width];
    let gradients = dy.chunks_mut(size).zip(dup.chunks_mut(size));
    let values = gate.chunks(size).zip(up.chunks(size));
    let pieces = gradients
        .zip(values)
        .zip(buffers.chunks_mut(2 * width))
        .map(|(((dy, dup), (gate, up)), buffers)| Piece { gate, up, dy, dup, buffers });
    let compute = |piece: Piece<'_>| {
        let Piece { gate, up, dy, dup, buffers } = piece;
        backward(backend, kind, gate, up, norm, dy, dup, buffers);
    };
    if gate.len() < PARALLEL_ELEMENTS {
        pieces.for_each(compute);
    } else {
        pool::for_each(pieces, compute);
    }
    if let Some((dweight, write)) = dweight {
        sum_parts(&buffers, dweight, write);
    }
}

/// Some rows of [`glu_norm_backward`].
struct Piece<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    dy: &'a mut [f32],
    dup: &'a mut [f32],
    buffers: &'a mut [f32],
}

fn check(gate: &[f32], up: &[f32], width: usize, norm: Option<(&[f32], f32)>) {
    assert!(width > 0 && gate.len().is_multiple_of(width), "gate is rows of {width}");
    assert_eq!(gate.len(), up.len(), "gate and up have the same length");
    if let Some((weight, _)) = norm {
        assert_eq!(weight.len(), width, "a norm's weight is as wide as a row");
    }
}

multiversion! {
    fn forward(kind: Gate, gate: &[f32], up: &[f32], norm: Option<(&[f32], f32)>, out: &mut [f32]) {
        glu::forward_row(kind, gate, up, out);
        if let Some((weight, eps)) = norm {
            let inverse = inverse_rms(out, eps);
            for (y, w) in out.iter_mut().zip(weight) {
                *y = *y * inverse * w;
            }
        }
    }
}

multiversion! {
    /// `buffers` is `[2, width]`: the sum of the weight's gradient, and space for a row.
    fn backward(
        kind: Gate,
        gate: &[f32],
        up: &[f32],
        norm: Option<(&[f32], f32)>,
        dy: &mut [f32],
        dup: &mut [f32],
        buffers: &mut [f32],
    ) {
        let width = buffers.len() / 2;
        let (dweight, h) = buffers.split_at_mut(width);
        let values = gate.chunks_exact(width).zip(up.chunks_exact(width));
        let gradients = dy.chunks_exact_mut(width).zip(dup.chunks_exact_mut(width));
        for ((gate, up), (dy, dup)) in values.zip(gradients) {
            if let Some((weight, eps)) = norm {
                glu::forward_row(kind, gate, up, h);
                // Until the gate's turn `dup` is free to hold dy · weight.
                let (inverse, projection) = rms_norm::backward_row(h, weight, eps, dy, dup, dweight);
                for i in 0..width {
                    dy[i] = dup[i].mul_add(inverse, -(h[i] * projection));
                }
            }
            glu::backward_row(kind, gate, up, dy, dup);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scattered::numbers;
    use crate::{glu_backward, rms_norm_backward};

    #[test]
    fn fused_is_one_step_after_the_other() {
        for (rows, width) in [(3, 5), (70, 513)] {
            let n = rows * width;
            let (gate, up, weight, dy) = (numbers(n, 1), numbers(n, 2), numbers(width, 3), numbers(n, 4));
            for kind in Gate::ALL {
                let mut h = vec![0f32; n];
                crate::glu(kind, &gate, &up, &mut h);
                let (mut dh, mut dweight) = (vec![0f32; n], vec![0f32; width]);
                let sum = (&mut dweight[..], WriteMode::Overwrite);
                rms_norm_backward(&h, &weight, 1e-5, &dy, (&mut dh, WriteMode::Overwrite), Some(sum));
                let (mut dgate, mut dup) = (vec![0f32; n], vec![0f32; n]);
                glu_backward(kind, &gate, &up, &dh, &mut dgate, &mut dup);

                let (mut found, mut found_up, mut found_weight) =
                    (dy.clone(), vec![9f32; n], vec![1f32; width]);
                glu_norm_backward(
                    kind,
                    &gate,
                    &up,
                    width,
                    Some((&weight, 1e-5)),
                    &mut found,
                    &mut found_up,
                    Some((&mut found_weight, WriteMode::Accumulate)),
                );
                let close = |a: &[f32], b: &[f32]| {
                    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= 1e-5 * (1.0 + b.abs()))
                };
                assert!(close(&found, &dgate) && close(&found_up, &dup));
                dweight.iter_mut().for_each(|d| *d += 1.0);
                assert!(close(&found_weight, &dweight));
            }
        }
    }
}
