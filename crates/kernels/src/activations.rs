//! Activations for the integer product: every token's row to int8 with its own absmax scale.
//!
//! The definition is [`tritforge_ternary::absmax_quantize`]: `a = max(absmax(x), 1e-5)`,
//! `xq = clamp(round_half_even(x · (127/a)), -128, 127)`, `s_x = a / 127`. A row that holds a NaN or an
//! infinity gets codes 0 and the scale NaN, so that every output of the row is NaN: the fault is seen, not
//! hidden. The vector code here gives the same bits as that function on every input.

use tritforge_ternary::TopK;

use crate::{Backend, pool};

/// From this many elements the rows are shared among threads.
const PARALLEL_ELEMENTS: usize = 1 << 17;

/// Elements that one parallel task takes at least.
const TASK_ELEMENTS: usize = 1 << 14;

/// The integers that activations are rounded to. Both are codes of a byte each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ActivationWidth {
    /// -127 to 127: [`tritforge_ternary::absmax_quantize`].
    #[default]
    Int8,
    /// -7 to 7: [`tritforge_ternary::absmax_quantize_int4`].
    Int4,
}

impl ActivationWidth {
    /// The code of the largest magnitude.
    pub fn largest(self) -> f32 {
        match self {
            ActivationWidth::Int8 => 127.0,
            ActivationWidth::Int4 => 7.0,
        }
    }

    /// The definition: the scale and the codes of a row.
    fn define(self, row: &[f32], codes: &mut [i8]) -> f32 {
        match self {
            ActivationWidth::Int8 => tritforge_ternary::absmax_quantize(row, codes),
            ActivationWidth::Int4 => tritforge_ternary::absmax_quantize_int4(row, codes),
        }
    }
}

/// Quantized activations of `m` tokens: value (t, k) is `codes[t * cols + k] * scales[t]`.
///
/// The three vectors belong together; the products check their lengths, not their content.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QuantizedRows {
    /// Features of a token.
    pub cols: usize,
    /// Int8 codes `[m, cols]`, row-major.
    pub codes: Vec<i8>,
    /// One scale a token, `[m]`.
    pub scales: Vec<f32>,
    /// The sum of a token's codes, `[m]`: the kernels multiply with `weight code + 1` and subtract it.
    pub sums: Vec<i32>,
    /// What functions that fill these rows round to.
    pub width: ActivationWidth,
    /// Which part of a token's codes they keep; all of them if none is given.
    pub top_k: Option<TopK>,
}

impl QuantizedRows {
    /// Number of tokens, m.
    pub fn rows(&self) -> usize {
        self.scales.len()
    }

    /// Puts rows together from codes `[m, cols]` and scales `[m]`; the sums are computed.
    ///
    /// # Panics
    /// If `cols` is 0 or `codes.len()` is not `scales.len() * cols`.
    pub fn from_codes(codes: Vec<i8>, scales: Vec<f32>, cols: usize) -> Self {
        assert!(cols > 0, "a row of activations needs at least one column");
        assert_eq!(codes.len(), scales.len() * cols, "codes must be [{}, {cols}]", scales.len());
        let sums = codes.chunks_exact(cols).map(sum).collect();
        Self { cols, codes, scales, sums, ..Self::default() }
    }
}

/// Quantizes activations `x`, `[m, cols]` (row-major; m may be 0).
///
/// # Panics
/// If `cols` is 0 or does not divide the length of `x`.
pub fn quantize_rows(x: &[f32], cols: usize) -> QuantizedRows {
    let mut out = QuantizedRows::default();
    quantize_rows_into(x, cols, &mut out);
    out
}

/// [`quantize_rows`] into rows that exist already, whose memory is used again.
///
/// # Panics
/// As [`quantize_rows`].
pub fn quantize_rows_into(x: &[f32], cols: usize, out: &mut QuantizedRows) {
    quantize_rows_into_with(Backend::active(), x, cols, out);
}

/// [`quantize_rows_into`] on the backend given.
///
/// # Panics
/// As [`quantize_rows`], and if the processor does not support the backend.
pub fn quantize_rows_into_with(backend: Backend, x: &[f32], cols: usize, out: &mut QuantizedRows) {
    backend.assert_supported();
    assert!(cols > 0, "a row of activations needs at least one column");
    assert_eq!(x.len() % cols, 0, "{} activations are no whole rows of {cols}", x.len());
    let rows = x.len() / cols;
    let form = (out.width, out.top_k);
    out.cols = cols;
    // Only growth writes here: every element is overwritten below.
    out.codes.resize(x.len(), 0);
    out.scales.resize(rows, 0.0);
    out.sums.resize(rows, 0);

    let quantize = |first: usize, codes: &mut [i8], scales: &mut [f32], sums: &mut [i32]| {
        let source = x[first * cols..].chunks_exact(cols);
        let targets = codes.chunks_exact_mut(cols).zip(scales).zip(sums);
        for (row, ((codes, scale), sum)) in source.zip(targets) {
            (*scale, *sum) = quantize_row(backend, form, row, codes);
        }
    };
    if x.len() < PARALLEL_ELEMENTS {
        quantize(0, &mut out.codes, &mut out.scales, &mut out.sums);
        return;
    }
    let rows_a_task = TASK_ELEMENTS.div_ceil(cols);
    let tasks = out
        .codes
        .chunks_mut(rows_a_task * cols)
        .zip(out.scales.chunks_mut(rows_a_task))
        .zip(out.sums.chunks_mut(rows_a_task))
        .enumerate();
    pool::for_each(tasks, |(task, ((codes, scales), sums))| {
        quantize(task * rows_a_task, codes, scales, sums);
    });
}

/// One row: codes, scale and sum of codes. The caller has checked that the backend is supported.
pub(crate) fn quantize_row(
    backend: Backend,
    (width, top_k): (ActivationWidth, Option<TopK>),
    row: &[f32],
    codes: &mut [i8],
) -> (f32, i32) {
    let (scale, total) = quantize_all(backend, width, row, codes);
    match top_k {
        // What is not finite has codes of 0, and no order.
        Some(top_k) if scale.is_finite() => {
            top_k.mask(row, codes);
            (scale, sum(codes))
        }
        _ => (scale, total),
    }
}

fn quantize_all(backend: Backend, width: ActivationWidth, row: &[f32], codes: &mut [i8]) -> (f32, i32) {
    let largest = width.largest();
    match backend {
        Backend::Scalar => {
            let scale = width.define(row, codes);
            (scale, sum(codes))
        }
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `quantize_rows_into_with` asserted that the processor supports the backend.
        Backend::Avx2 | Backend::AvxVnni => unsafe { vector::quantize_row_avx2(largest, row, codes) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Backend::Avx512Vnni => unsafe { vector::quantize_row_avx512(largest, row, codes) },
        // Every aarch64 processor has NEON.
        #[cfg(target_arch = "aarch64")]
        Backend::Neon | Backend::NeonDot | Backend::NeonI8mm => vector::quantize_row(largest, row, codes),
        // The other architectures' backends.
        _ => unreachable!("asserted to be supported"),
    }
}

fn sum(codes: &[i8]) -> i32 {
    codes.iter().map(|code| i32::from(*code)).sum()
}

/// The quantizer in a form that compilers turn into vector code, compiled once for each instruction set.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod vector {
    use tritforge_ternary::EPS;

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    pub(super) fn quantize_row_avx2(largest: f32, row: &[f32], codes: &mut [i8]) -> (f32, i32) {
        quantize_row(largest, row, codes)
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,avx512f,avx512bw,avx512vl")]
    pub(super) fn quantize_row_avx512(largest: f32, row: &[f32], codes: &mut [i8]) -> (f32, i32) {
        quantize_row(largest, row, codes)
    }

    #[inline(always)]
    pub(super) fn quantize_row(largest: f32, row: &[f32], codes: &mut [i8]) -> (f32, i32) {
        // Without the sign bit, floats order like their bits, and infinity and NaN lie above all finite
        // values.
        let bits = row.iter().fold(0, |max: u32, x| max.max(x.to_bits() & 0x7fff_ffff));
        let absmax = f32::from_bits(bits);
        if !absmax.is_finite() {
            codes.fill(0);
            return (f32::NAN, 0);
        }
        let a = absmax.max(EPS);
        let inverse = largest / a;
        // Adding 1.5 · 2²³ rounds a small float half to even to an integer, which the low bits of the sum
        // then hold.
        // |x · inverse| ≤ largest · (1 + 2⁻²⁴)², so it rounds to at most that in magnitude: no clamp is needed.
        const ROUND: f32 = 12_582_912.0;
        let mut sum = 0;
        for (code, x) in codes.iter_mut().zip(row) {
            *code = (x * inverse + ROUND).to_bits() as i8;
            sum += i32::from(*code);
        }
        (a / largest, sum)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check_all_backends(x: &[f32], cols: usize) {
        let mut codes = vec![0; cols];
        let widths = [ActivationWidth::Int8, ActivationWidth::Int4];
        let forms = widths.into_iter().flat_map(|width| [(width, None), (width, TopK::new(0.4))]);
        let on = |backend| forms.clone().map(move |form| (backend, form));
        for (backend, (width, top_k)) in Backend::supported().into_iter().flat_map(on) {
            let mut out = QuantizedRows { width, top_k, ..QuantizedRows::default() };
            quantize_rows_into_with(backend, x, cols, &mut out);
            assert_eq!((out.rows(), out.cols, out.codes.len()), (x.len() / cols, cols, x.len()));
            for (t, row) in x.chunks_exact(cols).enumerate() {
                let scale = width.define(row, &mut codes);
                if let Some(top_k) = top_k.filter(|_| scale.is_finite()) {
                    top_k.mask(row, &mut codes);
                }
                assert_eq!(out.scales[t].to_bits(), scale.to_bits(), "{backend}, row {t}");
                assert_eq!(out.codes[t * cols..][..cols], codes, "{backend}, row {t}");
                assert_eq!(out.sums[t], codes.iter().map(|c| i32::from(*c)).sum(), "{backend}, row {t}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_backend_equals_the_definition(
            rows in prop::collection::vec(prop::collection::vec(any::<f32>(), 37), 0..6),
        ) {
            check_all_backends(&rows.concat(), 37);
        }

        #[test]
        fn ties_and_ordinary_values(x in prop::collection::vec(-254i32..=254, 1..300)) {
            // Halves of integers with absmax 127: every tie of the rounding occurs.
            let mut x: Vec<f32> = x.into_iter().map(|v| v as f32 / 2.0).collect();
            x.push(-127.0);
            check_all_backends(&x, x.len());
        }
    }

    #[test]
    fn values_at_the_edges() {
        let edges = [0.0, -0.0, 1e-5, -1e-5, 1e-6, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::MIN];
        for edge in edges {
            check_all_backends(&[edge, 0.0, edge / 3.0, -edge, edge / 254.0], 5);
        }
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for position in 0..20 {
                let mut x = [0.5; 40];
                x[position] = bad;
                check_all_backends(&x, 20);
            }
        }
    }

    #[test]
    fn the_parallel_path_equals_the_definition() {
        let cols = 129;
        let x: Vec<f32> = (0..(PARALLEL_ELEMENTS / cols + 3) * cols)
            .map(|i| ((i * 7919 % 10007) as f32 - 5003.0) * 1e-3)
            .collect();
        check_all_backends(&x, cols);
    }

    #[test]
    fn memory_is_used_again_and_shrinks_in_count() {
        let mut out = quantize_rows(&[1.0; 12], 3);
        quantize_rows_into(&[2.0, -4.0], 2, &mut out);
        assert_eq!(out, quantize_rows(&[2.0, -4.0], 2));
        assert_eq!(quantize_rows(&[], 5).rows(), 0);
    }
}
