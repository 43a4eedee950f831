//! RMSNorm and per-token quantization in one pass: the float output of the norm never exists as a whole.

use crate::activations::quantize_row;
use crate::lanes::multiversion;
use crate::rms_norm::forward_row;
use crate::{Backend, QuantizedRows, pool};

/// Rows of one parallel piece.
const ROWS: usize = 16;

/// Elements from which threads share the work.
const PARALLEL_ELEMENTS: usize = 1 << 15;

/// [`crate::quantize_rows_into`] of [`crate::rms_norm`], the same bits: x [rows, width], weight `[width]`.
///
/// # Panics
/// If the weight is empty or x is no whole rows of its width.
pub fn rms_norm_quantize(x: &[f32], weight: &[f32], eps: f32, out: &mut QuantizedRows) {
    let width = weight.len();
    assert!(width > 0 && x.len().is_multiple_of(width), "x is rows of {width}");
    let backend = Backend::active();
    quantize_made_rows(backend, x.len() / width, width, out, |row, y| {
        norm(backend, &x[row * width..][..width], weight, eps, y);
    });
}

multiversion! {
    fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        forward_row(x, weight, eps, out);
    }
}

/// Quantizes rows that `make(row, values)` computes one at a time.
pub(crate) fn quantize_made_rows(
    backend: Backend,
    rows: usize,
    cols: usize,
    out: &mut QuantizedRows,
    make: impl Fn(usize, &mut [f32]) + Sync,
) {
    let form = (out.width, out.top_k);
    out.cols = cols;
    // Only growth writes here: every element is overwritten below.
    out.codes.resize(rows * cols, 0);
    out.scales.resize(rows, 0.0);
    out.sums.resize(rows, 0);
    let piece = |piece: usize, codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]| {
        let mut values = vec![0f32; cols];
        let targets = codes.chunks_exact_mut(cols).zip(scales).zip(sums);
        for (i, ((codes, scale), sum)) in targets.enumerate() {
            make(piece * ROWS + i, &mut values);
            (*scale, *sum) = quantize_row(backend, form, &values, codes);
        }
    };
    let codes = out.codes.chunks_mut(ROWS * cols);
    let targets = codes.zip(out.scales.chunks_mut(ROWS)).zip(out.sums.chunks_mut(ROWS)).enumerate();
    if rows * cols < PARALLEL_ELEMENTS {
        targets.for_each(|(i, ((codes, scales), sums))| piece(i, codes, scales, sums));
    } else {
        pool::for_each(targets, |(i, ((codes, scales), sums))| piece(i, codes, scales, sums));
    }
}

#[cfg(test)]
mod tests {
    use tritforge_ternary::TopK;

    use crate::scattered::numbers;
    use crate::{Gate, QuantizedRows, glu, glu_norm_quantize, quantize_rows, quantize_rows_into, rms_norm};

    #[test]
    fn fused_is_one_step_after_the_other() {
        for (rows, width) in [(3, 5), (70, 513)] {
            let (x, up, weight) = (numbers(rows * width, 1), numbers(rows * width, 2), numbers(width, 3));
            let mut y = vec![0f32; x.len()];
            rms_norm(&x, &weight, 1e-5, &mut y);
            let mut fused = QuantizedRows { top_k: TopK::new(0.3), ..QuantizedRows::default() };
            let mut masked = fused.clone();
            super::rms_norm_quantize(&x, &weight, 1e-5, &mut fused);
            quantize_rows_into(&y, width, &mut masked);
            assert_eq!(fused, masked);
            let mut fused = QuantizedRows::default();
            super::rms_norm_quantize(&x, &weight, 1e-5, &mut fused);
            assert_eq!(fused, quantize_rows(&y, width));

            let mut h = vec![0f32; x.len()];
            for kind in Gate::ALL {
                glu(kind, &x, &up, &mut h);
                glu_norm_quantize(kind, &x, &up, width, None, &mut fused);
                assert_eq!(fused, quantize_rows(&h, width));
                rms_norm(&h, &weight, 1e-5, &mut y);
                glu_norm_quantize(kind, &x, &up, width, Some((&weight, 1e-5)), &mut fused);
                assert_eq!(fused, quantize_rows(&y, width));
            }
        }
    }
}
