//! Gradients for an integer product: every token's row to int8, rounded stochastically.
//!
//! Rounded to the nearest, the many small elements of a gradient would all become 0. Unlike activations
//! ([`crate::quantize_rows`]) gradients have no smallest magnitude: a row's scale is a 127th of its largest element, however small.

use crate::lanes::multiversion;
use crate::noise::{code_scale, round_to_code};
use crate::{Backend, Noise, QuantizedRows, pool};

/// From this many elements the rows are shared among threads.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// Elements that one parallel task takes at least.
const TASK_ELEMENTS: usize = 1 << 14;

/// Quantizes gradients `dy`, [tokens, cols] row-major, into rows whose memory is used again: with `a` the row's largest magnitude,
/// codes are `dy · (127 / a)` rounded up or down by the noise of element `token · cols + column` (modulo 2³²), scales `a / 127`. A
/// row of zeros has the scale 0; one with a NaN or an infinity has codes 0 and the scale NaN.
///
/// # Panics
/// If `cols` is 0 or does not divide the length of `dy`.
pub fn quantize_gradient_rows(dy: &[f32], cols: usize, noise: Noise, out: &mut QuantizedRows) {
    assert!(cols > 0 && dy.len().is_multiple_of(cols), "{} gradients are no whole rows of {cols}", dy.len());
    let tokens = dy.len() / cols;
    out.cols = cols;
    // Only growth writes here: every element is overwritten below.
    out.codes.resize(dy.len(), 0);
    out.scales.resize(tokens, 0.0);
    out.sums.resize(tokens, 0);
    let backend = Backend::active();
    let rows_a_task = if dy.len() < PARALLEL_ELEMENTS { tokens.max(1) } else { TASK_ELEMENTS.div_ceil(cols) };
    let tasks = (dy.chunks(rows_a_task * cols).zip(out.codes.chunks_mut(rows_a_task * cols)))
        .zip(out.scales.chunks_mut(rows_a_task).zip(out.sums.chunks_mut(rows_a_task)))
        .enumerate();
    pool::for_each(tasks, |(task, ((dy, codes), (scales, sums)))| {
        let rows = dy.chunks_exact(cols).zip(codes.chunks_exact_mut(cols));
        for (i, ((dy, codes), (scale, sum))) in rows.zip(scales.iter_mut().zip(sums)).enumerate() {
            let first = ((task * rows_a_task + i) * cols) as u32;
            (*scale, *sum) = quantize_row(backend, dy, noise, first, codes);
        }
    });
}

multiversion! {
    /// One row, whose first element has number `first`: scale and sum of codes.
    fn quantize_row(row: &[f32], noise: Noise, first: u32, codes: &mut [i8]) -> (f32, i32) {
        // Without the sign bit, floats order like their bits, and infinity and NaN lie above all finite values.
        let largest = row.iter().fold(0, |max: u32, x| max.max(x.to_bits() & 0x7fff_ffff));
        let (scale, inverse) = code_scale(largest);
        if inverse == 0.0 {
            codes.fill(0);
            return (scale, 0);
        }
        let mut sum = 0;
        for (i, (code, x)) in codes.iter_mut().zip(row).enumerate() {
            *code = round_to_code(x * inverse, noise.bits(first.wrapping_add(i as u32)));
            sum += i32::from(*code);
        }
        (scale, sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, element by element.
    fn definition(dy: &[f32], cols: usize, noise: Noise) -> QuantizedRows {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for (t, row) in dy.chunks_exact(cols).enumerate() {
            let largest = row.iter().fold(0f32, |a, x| a.max(x.abs()));
            let whole = row.iter().all(|x| x.is_finite());
            scales.push(if whole { largest / 127.0 } else { f32::NAN });
            for (i, x) in row.iter().enumerate() {
                let bits = noise.bits((t * cols + i) as u32);
                let some = whole && largest > 0.0;
                codes.push(if some { round_to_code(x * (127.0 / largest), bits) } else { 0 });
            }
        }
        QuantizedRows::from_codes(codes, scales, cols)
    }

    #[test]
    fn every_backend_and_number_of_threads_gives_the_definition() {
        let noise = Noise::new(3, 1, 4);
        for (tokens, cols) in [(0, 5), (1, 1), (3, 17), (5, 64), (9, 100), (700, 131)] {
            let dy: Vec<f32> = (0..tokens * cols)
                .map(|i| ((i * 7919 % 10007) as f32 - 5003.0) * if i / cols == 2 { 0.0 } else { 1e-9 })
                .collect();
            let expected = definition(&dy, cols, noise);
            for threads in [1, 3] {
                crate::set_threads(threads);
                let mut out = QuantizedRows::default();
                quantize_gradient_rows(&dy, cols, noise, &mut out);
                assert_eq!(out, expected, "[{tokens}, {cols}]");
            }
            for backend in Backend::supported() {
                for (t, row) in dy.chunks_exact(cols).enumerate() {
                    let mut codes = vec![0; cols];
                    let (scale, sum) = quantize_row(backend, row, noise, (t * cols) as u32, &mut codes);
                    assert_eq!((scale, sum), (expected.scales[t], expected.sums[t]), "{backend}");
                    assert_eq!(codes, expected.codes[t * cols..][..cols], "{backend}");
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_finite_has_no_scale() {
        let mut out = QuantizedRows::default();
        let dy = [1.0, -2.0, f32::NAN, 1.0, f32::INFINITY, 0.0, 0.0, -0.0];
        quantize_gradient_rows(&dy, 2, Noise::new(0, 0, 0), &mut out);
        assert!(out.scales[1].is_nan() && out.scales[2].is_nan());
        assert_eq!((out.scales[0], out.scales[3]), (2.0 / 127.0, 0.0));
        assert_eq!((&out.codes[1..6], &out.codes[6..]), (&[-127, 0, 0, 0, 0][..], &[0, 0][..]));
    }
}
