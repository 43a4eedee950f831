//! Full-precision matrices as files store them (F32, F16, Q8_0): rows by index, and `x · Wᵀ` for the output head.
//!
//! Every product is a dot of fixed order ([`crate::lanes`]), the same for one token and for many.

use std::borrow::Cow;

use half::f16;
use rayon::prelude::*;

use crate::Backend;
use crate::lanes::{LANES, dot, fma, multiversion, sum};

/// Weights in a Q8_0 block.
const Q8_0_BLOCK: usize = 32;
/// Bytes of a Q8_0 block: an f16 scale, 32 int8 codes.
const Q8_0_BYTES: usize = 34;
/// Rows of one parallel piece.
const ROWS: usize = 64;

/// How a matrix stores its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseType {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight.
    F16,
    /// 34 bytes for 32 weights (`block_q8_0` of ggml).
    Q8_0,
}

impl DenseType {
    /// The types.
    pub const ALL: [DenseType; 3] = [DenseType::F32, DenseType::F16, DenseType::Q8_0];

    /// The name, as recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            DenseType::F32 => "f32",
            DenseType::F16 => "f16",
            DenseType::Q8_0 => "q8_0",
        }
    }

    /// Bytes of a row.
    ///
    /// # Panics
    /// If Q8_0's block does not divide the columns.
    pub fn row_bytes(self, cols: usize) -> usize {
        match self {
            DenseType::F32 => 4 * cols,
            DenseType::F16 => 2 * cols,
            DenseType::Q8_0 => {
                assert!(cols.is_multiple_of(Q8_0_BLOCK), "Q8_0 stores blocks of 32, a row has {cols}");
                cols / Q8_0_BLOCK * Q8_0_BYTES
            }
        }
    }
}

/// A matrix [rows, cols], borrowed from the bytes of a file.
#[derive(Debug, Clone)]
pub struct DenseMatrix<'a> {
    ty: DenseType,
    bytes: Cow<'a, [u8]>,
    rows: usize,
    cols: usize,
}

impl<'a> DenseMatrix<'a> {
    /// A matrix in the bytes of a file; any alignment.
    ///
    /// # Panics
    /// If the number of bytes does not fit the shape.
    pub fn from_bytes(ty: DenseType, bytes: &'a [u8], rows: usize, cols: usize) -> Self {
        assert_eq!(bytes.len(), rows * ty.row_bytes(cols), "bytes of {ty:?} [{rows}, {cols}]");
        Self { ty, bytes: Cow::Borrowed(bytes), rows, cols }
    }

    /// A matrix of f32 numbers, row-major.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn from_f32(values: &[f32], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols, "values of [{rows}, {cols}]");
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { ty: DenseType::F32, bytes: Cow::Owned(bytes), rows, cols }
    }

    /// How the rows are stored.
    pub fn dense_type(&self) -> DenseType {
        self.ty
    }

    /// Row `i` as f32: what an embedding looks up.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `[cols]`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.rows && out.len() == self.cols, "row {i} of [{}, {}]", self.rows, self.cols);
        decode_row(Backend::active(), self.ty, self.row_bytes(i), out);
    }

    fn row_bytes(&self, i: usize) -> &[u8] {
        let len = self.ty.row_bytes(self.cols);
        &self.bytes[i * len..(i + 1) * len]
    }

    /// `y = x · Wᵀ`: x [tokens, cols], y [tokens, rows].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn matmul(&self, x: &[f32], y: &mut [f32]) {
        assert!(x.len().is_multiple_of(self.cols), "x is rows of {}", self.cols);
        let tokens = x.len() / self.cols;
        assert_eq!(y.len(), tokens * self.rows, "y is [{tokens}, {}]", self.rows);
        let backend = Backend::active();
        // Transposed pieces [rows of the piece, tokens], then put in place.
        let pieces: Vec<Vec<f32>> = (0..self.rows.div_ceil(ROWS))
            .into_par_iter()
            .map(|piece| {
                let rows = piece * ROWS..self.rows.min((piece + 1) * ROWS);
                let mut part = vec![0f32; rows.len() * tokens];
                let mut decoded = vec![0f32; self.cols];
                for (i, part) in rows.zip(part.chunks_exact_mut(tokens.max(1))) {
                    decode_row(backend, self.ty, self.row_bytes(i), &mut decoded);
                    dots(backend, &decoded, x, part);
                }
                part
            })
            .collect();
        for (piece, part) in pieces.iter().enumerate() {
            for (i, part) in part.chunks_exact(tokens.max(1)).enumerate() {
                for (t, value) in part.iter().enumerate() {
                    y[t * self.rows + piece * ROWS + i] = *value;
                }
            }
        }
    }
}

multiversion! {
    /// `out[t] = row · x_t`, four tokens at a time: each in the order of [`dot`].
    fn dots(row: &[f32], x: &[f32], out: &mut [f32]) {
        let cols = row.len();
        let (blocks, rest) = row.as_chunks::<LANES>();
        let whole = blocks.len() * LANES;
        for (x, out) in x.chunks(4 * cols).zip(out.chunks_mut(4)) {
            if let [a, b, c, d] = out {
                let mut acc = [[0f32; LANES]; 4];
                for (i, block) in blocks.iter().enumerate() {
                    for (t, acc) in acc.iter_mut().enumerate() {
                        if let Some(x) = x[t * cols + i * LANES..].first_chunk::<LANES>() {
                            *acc = fma(block, x, acc);
                        }
                    }
                }
                for (t, (acc, y)) in acc.iter_mut().zip([a, b, c, d]).enumerate() {
                    for (i, w) in rest.iter().enumerate() {
                        acc[i] = w.mul_add(x[t * cols + whole + i], acc[i]);
                    }
                    *y = sum(acc);
                }
            } else {
                for (x, y) in x.chunks_exact(cols).zip(out) {
                    *y = dot(row, x);
                }
            }
        }
    }
}

multiversion! {
    fn decode_row(ty: DenseType, bytes: &[u8], out: &mut [f32]) {
        match ty {
            DenseType::F32 => {
                for (y, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *y = f32::from_le_bytes(*b);
                }
            }
            DenseType::F16 => {
                for (y, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *y = f16::from_le_bytes(*b).to_f32();
                }
            }
            DenseType::Q8_0 => {
                let blocks = bytes.as_chunks::<Q8_0_BYTES>().0;
                for (y, block) in out.as_chunks_mut::<Q8_0_BLOCK>().0.iter_mut().zip(blocks) {
                    let d = f16::from_le_bytes([block[0], block[1]]).to_f32();
                    for (y, code) in y.iter_mut().zip(&block[2..]) {
                        *y = f32::from(*code as i8) * d;
                    }
                }
            }
        }
    }
}

/// The bytes of f32 numbers as f16, rounded half to even; magnitudes from 65520 become infinite.
pub fn f32_to_f16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
}

/// The Q8_0 blocks of a row-major matrix, as ggml's reference quantizer makes them: `d = absmax/127`, codes rounded half away
/// from zero with the f32 `d`, which is then stored as f16.
///
/// # Panics
/// If 32 does not divide the length.
pub fn f32_to_q8_0(values: &[f32]) -> Vec<u8> {
    let (blocks, rest) = values.as_chunks::<Q8_0_BLOCK>();
    assert!(rest.is_empty(), "Q8_0 stores blocks of 32, found {} values", values.len());
    let mut bytes = Vec::with_capacity(blocks.len() * Q8_0_BYTES);
    for block in blocks {
        let absmax = block.iter().fold(0f32, |m, x| m.max(x.abs()));
        let d = absmax / 127.0;
        let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
        bytes.extend_from_slice(&f16::from_f32(d).to_le_bytes());
        bytes.extend(block.iter().map(|x| (x * inverse).round() as i8 as u8));
    }
    bytes
}
