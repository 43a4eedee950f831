//! Reading operands: panels of a few rows or columns, one term after the other, decoded and zero-padded.

use std::ops::Range;

use crate::Backend;
use crate::lanes::multiversion;

/// A matrix as it lies in memory, row-major, perhaps to be read transposed.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    numbers: Numbers<'a>,
    /// Rows and columns in memory.
    rows: usize,
    cols: usize,
    transposed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Numbers<'a> {
    F32(&'a [f32]),
    /// Codes, and a scale a row.
    Int8(&'a [i8], &'a [f32]),
    /// Latent weights, the inverse of their scale, and the scale.
    Ternary(&'a [f32], f32, f32),
}

impl<'a> Matrix<'a> {
    /// f32 numbers, [rows, cols].
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn f32(numbers: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(numbers.len(), rows * cols, "numbers of [{rows}, {cols}]");
        Self { numbers: Numbers::F32(numbers), rows, cols, transposed: false }
    }

    /// Quantized activations: element (t, i) is `codes[t · cols + i] · scales[t]`.
    ///
    /// # Panics
    /// If the lengths do not fit the shape.
    pub fn int8(codes: &'a [i8], scales: &'a [f32], cols: usize) -> Self {
        assert_eq!(codes.len(), scales.len() * cols, "codes of [{}, {cols}]", scales.len());
        Self { numbers: Numbers::Int8(codes, scales), rows: scales.len(), cols, transposed: false }
    }

    /// Latent weights read as the ternary values `clamp(round_half_even(w · (1/scale)), -1, 1) · scale`, [rows, cols].
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn ternary(latent: &'a [f32], rows: usize, cols: usize, scale: f32) -> Self {
        assert_eq!(latent.len(), rows * cols, "weights of [{rows}, {cols}]");
        Self { numbers: Numbers::Ternary(latent, 1.0 / scale, scale), rows, cols, transposed: false }
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

/// Packs rows `terms` of columns `columns` of a matrix: panel [terms, width], zero past the last column.
pub(super) fn pack_panels(
    backend: Backend,
    matrix: Matrix<'_>,
    terms: Range<usize>,
    columns: Range<usize>,
    width: usize,
    panel: &mut [f32],
) {
    if matrix.transposed {
        transpose_panel(backend, matrix, terms, columns, width, panel);
    } else {
        copy_panel(backend, matrix, terms, columns, width, panel);
    }
}

/// Numbers `at..at + out.len()` of a row.
#[inline(always)]
fn decode(numbers: Numbers<'_>, cols: usize, row: usize, at: usize, out: &mut [f32]) {
    let range = row * cols + at..row * cols + at + out.len();
    match numbers {
        Numbers::F32(values) => out.copy_from_slice(&values[range]),
        Numbers::Int8(codes, scales) => {
            let scale = scales[row];
            for (out, code) in out.iter_mut().zip(&codes[range]) {
                *out = f32::from(*code) * scale;
            }
        }
        Numbers::Ternary(latent, inverse, scale) => {
            for (out, w) in out.iter_mut().zip(&latent[range]) {
                *out = (w * inverse).round_ties_even().clamp(-1.0, 1.0) * scale;
            }
        }
    }
}

multiversion! {
    /// Terms are rows in memory: each is copied.
    fn copy_panel(
        matrix: Matrix<'_>,
        terms: Range<usize>,
        columns: Range<usize>,
        width: usize,
        panel: &mut [f32],
    ) {
        let first = columns.start;
        macro_rules! whole {
            ($width:literal) => {
                for (term, out) in terms.zip(panel.as_chunks_mut::<$width>().0) {
                    decode(matrix.numbers, matrix.cols, term, first, out);
                }
            };
        }
        match columns.len() {
            32 if width == 32 => whole!(32),
            16 if width == 16 => whole!(16),
            12 if width == 12 => whole!(12),
            6 if width == 6 => whole!(6),
            count => {
                for (term, out) in terms.zip(panel.chunks_exact_mut(width)) {
                    decode(matrix.numbers, matrix.cols, term, first, &mut out[..count]);
                    out[count..].fill(0.0);
                }
            }
        }
    }
}

/// Side of the square blocks that are transposed at once.
const SIDE: usize = 16;

multiversion! {
    /// Columns are rows in memory: they are read sixteen numbers at a time and transposed.
    fn transpose_panel(
        matrix: Matrix<'_>,
        terms: Range<usize>,
        columns: Range<usize>,
        width: usize,
        panel: &mut [f32],
    ) {
        for left in (0..width).step_by(SIDE) {
            let lanes = SIDE.min(width - left);
            let used = lanes.min(columns.len().saturating_sub(left));
            let mut block = [[0f32; SIDE]; SIDE];
            for at in (0..terms.len()).step_by(SIDE) {
                let count = SIDE.min(terms.len() - at);
                for lane in 0..used {
                    let (row, first) = (columns.start + left + lane, terms.start + at);
                    if count == SIDE {
                        decode(matrix.numbers, matrix.cols, row, first, &mut block[lane]);
                    } else {
                        decode(matrix.numbers, matrix.cols, row, first, &mut block[lane][..count]);
                    }
                }
                transpose(&mut block);
                let rows = panel[at * width..].chunks_exact_mut(width).take(count);
                for (out, row) in rows.zip(&block) {
                    out[left..left + lanes].copy_from_slice(&row[..lanes]);
                }
                if used < SIDE {
                    block[used..].fill([0.0; SIDE]);
                }
            }
        }
    }
}

/// Transposes a block in four rounds, each of which swaps squares half as large.
#[inline(always)]
fn transpose(block: &mut [[f32; SIDE]; SIDE]) {
    macro_rules! round {
        ($half:literal) => {
            for i in (0..SIDE).filter(|i| i & $half == 0) {
                let (a, b) = (block[i], block[i + $half]);
                for j in 0..SIDE {
                    block[i][j] = if j & $half == 0 { a[j] } else { b[j ^ $half] };
                    block[i + $half][j] = if j & $half == 0 { a[j ^ $half] } else { b[j] };
                }
            }
        };
    }
    round!(8);
    round!(4);
    round!(2);
    round!(1);
}
