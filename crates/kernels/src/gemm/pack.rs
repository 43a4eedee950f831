//! Reading operands: panels of a few rows or columns, one term after the other, decoded and zero-padded.

use std::ops::Range;

use tritforge_ternary::{Fitted, Scales};

use crate::Backend;
use crate::lanes::multiversion;

/// A matrix as it lies in memory, row-major, perhaps to be read transposed.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    numbers: Elements<'a>,
    /// Rows and columns in memory.
    rows: usize,
    cols: usize,
    transposed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Elements<'a> {
    F32(&'a [f32]),
    /// Codes, and a scale a row.
    Int8(&'a [i8], &'a [f32]),
    /// Ternary codes and their scales.
    Codes(&'a [i8], &'a Scales),
    /// Latent weights, their steps and scales.
    Ternary(&'a [f32], &'a Fitted),
}

impl<'a> Matrix<'a> {
    /// f32 numbers, [rows, cols].
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn f32(numbers: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(numbers.len(), rows * cols, "numbers of [{rows}, {cols}]");
        Self { numbers: Elements::F32(numbers), rows, cols, transposed: false }
    }

    /// Quantized activations: element (t, i) is `codes[t · cols + i] · scales[t]`.
    ///
    /// # Panics
    /// If the lengths do not fit the shape.
    pub fn int8(codes: &'a [i8], scales: &'a [f32], cols: usize) -> Self {
        assert_eq!(codes.len(), scales.len() * cols, "codes of [{}, {cols}]", scales.len());
        Self { numbers: Elements::Int8(codes, scales), rows: scales.len(), cols, transposed: false }
    }

    /// Ternary weights: codes [rows, cols] times their scales.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn codes(codes: &'a [i8], rows: usize, cols: usize, scales: &'a Scales) -> Self {
        assert_eq!(codes.len(), rows * cols, "codes of [{rows}, {cols}]");
        Self { numbers: Elements::Codes(codes, scales), rows, cols, transposed: false }
    }

    /// Latent weights read as the ternary values `clamp(round_half_even(w · (1/step)), -1, 1) · scale`,
    /// [rows, cols]; where the quantizer gives other codes, these times their scales.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn ternary(latent: &'a [f32], rows: usize, cols: usize, fitted: &'a Fitted) -> Self {
        assert_eq!(latent.len(), rows * cols, "weights of [{rows}, {cols}]");
        if let Some(codes) = fitted.given_codes() {
            return Self::codes(codes, rows, cols, fitted.scales());
        }
        Self { numbers: Elements::Ternary(latent, fitted), rows, cols, transposed: false }
    }

    /// The transpose; nothing is moved.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: !self.transposed, ..self }
    }

    /// Number of rows.
    pub fn rows(self) -> usize {
        if self.transposed { self.cols } else { self.rows }
    }

    /// Number of columns.
    pub fn cols(self) -> usize {
        if self.transposed { self.rows } else { self.cols }
    }
}

/// Floats behind the terms of every packed panel: room for a vector that is stored past the last term, and
/// what keeps the panels of one group from falling into the same sets of a cache.
pub(super) const PADDING: usize = 16;

/// Packs rows `terms` of columns `columns` of a matrix in panels of `width` columns: [terms, width] each,
/// zero past the last column; panels begin `stride` apart, at least [`PADDING`] behind the last one's end.
pub(super) fn pack_panels(
    backend: Backend,
    matrix: Matrix<'_>,
    terms: Range<usize>,
    columns: Range<usize>,
    width: usize,
    panels: &mut [f32],
    stride: usize,
) {
    if !matrix.transposed {
        copy_panels(backend, matrix, terms, columns, width, panels, stride);
        return;
    }
    let starts = columns.clone().step_by(width);
    for (panel, first) in panels.chunks_exact_mut(stride).zip(starts) {
        let columns = first..columns.end.min(first + width);
        #[cfg(target_arch = "x86_64")]
        if let (Backend::Avx512Vnni, Elements::F32(numbers)) = (backend, matrix.numbers) {
            // SAFETY: this backend is chosen only where the processor has AVX-512 F.
            unsafe { transpose_avx512(numbers, matrix.cols, terms.clone(), columns, width, panel) };
            continue;
        }
        transpose_panel(backend, matrix, terms.clone(), columns, width, panel);
    }
}

/// Numbers `at..at + out.len()` of a row.
#[inline(always)]
fn decode(matrix: Matrix<'_>, row: usize, at: usize, out: &mut [f32]) {
    let range = row * matrix.cols + at..row * matrix.cols + at + out.len();
    match matrix.numbers {
        Elements::F32(values) => out.copy_from_slice(&values[range]),
        Elements::Int8(codes, scales) => {
            let scale = scales[row];
            for (out, code) in out.iter_mut().zip(&codes[range]) {
                *out = f32::from(*code) * scale;
            }
        }
        Elements::Codes(codes, scales) => {
            let scales = scales.row(row);
            each_group(matrix.cols / scales.len(), at, out, &codes[range], |group, out, codes| {
                let scale = scales[group];
                for (out, code) in out.iter_mut().zip(codes) {
                    *out = f32::from(*code) * scale;
                }
            });
        }
        Elements::Ternary(latent, fitted) => {
            let (inverses, scales) = (fitted.inverse_steps(row), fitted.scales().row(row));
            each_group(matrix.cols / scales.len(), at, out, &latent[range], |group, out, latent| {
                let (inverse, scale) = (inverses[group], scales[group]);
                for (out, w) in out.iter_mut().zip(latent) {
                    *out = (w * inverse).round_ties_even().clamp(-1.0, 1.0) * scale;
                }
            });
        }
    }
}

/// Calls `decode` with every group of a row's numbers from `at` on; a group is `width` of them.
#[inline(always)]
fn each_group<T>(
    width: usize,
    at: usize,
    mut out: &mut [f32],
    mut source: &[T],
    decode: impl Fn(usize, &mut [f32], &[T]),
) {
    let mut at = at;
    while !out.is_empty() {
        let group = at / width;
        let len = ((group + 1) * width - at).min(out.len());
        let (now, rest) = out.split_at_mut(len);
        decode(group, now, &source[..len]);
        (out, source, at) = (rest, &source[len..], at + len);
    }
}

/// Columns that are copied at once, at most; a multiple of every width.
pub(super) const GROUP: usize = 96;

multiversion! {
    /// Terms are rows in memory: each is decoded once, for all panels.
    fn copy_panels(
        matrix: Matrix<'_>,
        terms: Range<usize>,
        columns: Range<usize>,
        width: usize,
        panels: &mut [f32],
        stride: usize,
    ) {
        assert!(columns.len() <= GROUP, "columns of one group");
        let count = columns.len().div_ceil(width);
        // What lies past the last column stays zero.
        let mut row = [0f32; GROUP];
        for (i, term) in terms.enumerate() {
            if columns.len() == GROUP {
                decode(matrix, term, columns.start, &mut row);
            } else {
                decode(matrix, term, columns.start, &mut row[..columns.len()]);
            }
            macro_rules! scatter {
                ($width:literal) => {
                    for (p, numbers) in row.as_chunks::<$width>().0[..count].iter().enumerate() {
                        panels[p * stride + i * $width..][..$width].copy_from_slice(numbers);
                    }
                };
            }
            match width {
                32 => scatter!(32),
                16 => scatter!(16),
                12 => scatter!(12),
                _ => {
                    for (p, numbers) in row.chunks_exact(width).take(count).enumerate() {
                        panels[p * stride + i * width..][..width].copy_from_slice(numbers);
                    }
                }
            }
        }
    }
}

/// Numbers of a row that are read at once to be transposed.
const SIDE: usize = 16;

multiversion! {
    /// Columns are rows in memory: a few numbers of each are read at a time.
    fn transpose_panel(
        matrix: Matrix<'_>,
        terms: Range<usize>,
        columns: Range<usize>,
        width: usize,
        panel: &mut [f32],
    ) {
        panel.fill(0.0);
        for first in terms.clone().step_by(SIDE) {
            let count = SIDE.min(terms.end - first);
            let out = &mut panel[(first - terms.start) * width..];
            for (lane, column) in columns.clone().enumerate() {
                let mut numbers = [0f32; SIDE];
                decode(matrix, column, first, &mut numbers[..count]);
                for (out, number) in out.chunks_exact_mut(width).zip(&numbers[..count]) {
                    out[lane] = *number;
                }
            }
        }
    }
}

/// [`transpose_panel`] of floats in squares of 16 × 16. A vector stored for the last term may reach into the
/// padding.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn transpose_avx512(
    numbers: &[f32],
    cols: usize,
    terms: Range<usize>,
    columns: Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    use std::arch::x86_64::*;
    assert!(terms.end <= cols && columns.end * cols <= numbers.len(), "the panel lies in the matrix");
    assert!(panel.len() >= terms.len() * width + PADDING, "a panel and its padding");
    for left in (0..width).step_by(SIDE) {
        let used = SIDE.min(columns.len().saturating_sub(left));
        for first in terms.clone().step_by(SIDE) {
            let count = SIDE.min(terms.end - first);
            let mask = (0xffffu32 >> (SIDE - count)) as __mmask16;
            let mut rows = [_mm512_setzero_ps(); SIDE];
            for (lane, row) in rows.iter_mut().enumerate().take(used) {
                let at = (columns.start + left + lane) * cols + first;
                // SAFETY: the row is below `columns.end` and `first + count <= terms.end`, so the first
                // assertion says that the numbers that the mask lets through lie in the slice.
                *row = unsafe { _mm512_maskz_loadu_ps(mask, numbers.as_ptr().add(at)) };
            }
            let mut pairs = rows;
            for i in 0..8 {
                pairs[2 * i] = _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
                pairs[2 * i + 1] = _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
            }
            // Vector 4 i + j: of rows 4 i.., columns j, j + 4, j + 8, j + 12.
            let mut fours = rows;
            let double = |v: __m512| _mm512_castps_pd(v);
            for i in 0..4 {
                for j in 0..2 {
                    let (a, b) = (double(pairs[4 * i + j]), double(pairs[4 * i + j + 2]));
                    fours[4 * i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
                    fours[4 * i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
                }
            }
            for j in 0..4 {
                let even = |i: usize| _mm512_shuffle_f32x4::<0x88>(fours[i + j], fours[i + 4 + j]);
                let odd = |i: usize| _mm512_shuffle_f32x4::<0xdd>(fours[i + j], fours[i + 4 + j]);
                rows[j] = _mm512_shuffle_f32x4::<0x88>(even(0), even(8));
                rows[j + 8] = _mm512_shuffle_f32x4::<0xdd>(even(0), even(8));
                rows[j + 4] = _mm512_shuffle_f32x4::<0x88>(odd(0), odd(8));
                rows[j + 12] = _mm512_shuffle_f32x4::<0xdd>(odd(0), odd(8));
            }
            for (i, row) in rows.iter().enumerate().take(count) {
                let at = (first - terms.start + i) * width + left;
                // SAFETY: `at + 16` is at most (terms - 1) · width + left + 16 <= terms · width + 16: in the
                // panel by the second assertion, as `left + 16 <= width + 16`.
                unsafe { _mm512_storeu_ps(panel.as_mut_ptr().add(at), *row) };
            }
        }
    }
}
