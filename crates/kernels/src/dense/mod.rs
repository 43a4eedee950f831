//! Full-precision matrices as files store them (F32, F16, BF16, Q8_0, Q6_K): rows by index, and `x · Wᵀ` for
//! the output head.
//!
//! Every product is a dot of fixed order ([`crate::lanes`]), the same for one token and for many.

use std::borrow::Cow;

mod dot_tiles;
mod few;
mod finite;
mod interleaved;
mod rows;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86;
#[cfg(target_arch = "x86_64")]
mod x86_interleaved;

use self::rows::decode_row;
pub use self::rows::{f32_to_f16, f32_to_q8_0};
use crate::{Backend, pool, q6_k};

/// Weights in a Q8_0 block.
const Q8_0_BLOCK: usize = 32;
/// Bytes of a Q8_0 block: an f16 scale, 32 int8 codes.
const Q8_0_BYTES: usize = 34;
/// Parallel pieces for each thread.
const PIECES_A_THREAD: usize = 32;
/// Rows decoded at once for many tokens.
const ROWS: usize = 16;
/// Rows, and tokens if there are many, whose dots are computed together.
const TILE: usize = 4;
/// Tokens up to which rows are multiplied as they are decoded, where the backend has code for it.
#[cfg(target_arch = "x86_64")]
const FEW_TOKENS: usize = 8;
/// The same for Q8_0 where registers have eight lanes: more tokens need more registers than there are.
#[cfg(target_arch = "x86_64")]
const FEW_TOKENS_OF_Q8_0: usize = 6;
/// Fused multiply-adds from which threads share the work.
const PARALLEL_PRODUCTS: usize = 1 << 18;

/// How a matrix stores its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseType {
    /// 4 bytes a weight.
    F32,
    /// 2 bytes a weight.
    F16,
    /// 2 bytes a weight, the upper half of an f32.
    Bf16,
    /// 34 bytes for 32 weights (`block_q8_0` of ggml).
    Q8_0,
    /// 210 bytes for 256 weights (`block_q6_K` of ggml).
    Q6K,
}

impl DenseType {
    /// The types.
    pub const ALL: [DenseType; 5] =
        [DenseType::F32, DenseType::F16, DenseType::Bf16, DenseType::Q8_0, DenseType::Q6K];

    /// The name, as recipes and command lines spell it.
    pub fn name(self) -> &'static str {
        match self {
            DenseType::F32 => "f32",
            DenseType::F16 => "f16",
            DenseType::Bf16 => "bf16",
            DenseType::Q8_0 => "q8_0",
            DenseType::Q6K => "q6_k",
        }
    }

    /// Weights as the type stores them; whole blocks of them.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            DenseType::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            DenseType::F16 => f32_to_f16(values),
            DenseType::Bf16 => rows::f32_to_bf16(values),
            DenseType::Q8_0 => f32_to_q8_0(values),
            DenseType::Q6K => q6_k::f32_to_q6_k(values),
        }
    }

    /// Weights of a block: a row must be whole blocks.
    pub fn block(self) -> usize {
        match self {
            DenseType::F32 | DenseType::F16 | DenseType::Bf16 => 1,
            DenseType::Q8_0 => Q8_0_BLOCK,
            DenseType::Q6K => q6_k::BLOCK,
        }
    }

    /// Whether [`DenseMatrix::for_decoding`] makes a copy of a matrix of this type here.
    pub fn is_rearranged(self) -> bool {
        self == DenseType::Q8_0 && cfg!(target_arch = "x86_64") && Backend::active() != Backend::Scalar
    }

    /// Bytes of a row.
    ///
    /// # Panics
    /// If the block of Q8_0 or Q6_K does not divide the columns.
    pub fn row_bytes(self, cols: usize) -> usize {
        match self {
            DenseType::F32 => 4 * cols,
            DenseType::F16 | DenseType::Bf16 => 2 * cols,
            DenseType::Q8_0 => {
                assert!(cols.is_multiple_of(Q8_0_BLOCK), "Q8_0 stores blocks of 32, a row has {cols}");
                cols / Q8_0_BLOCK * Q8_0_BYTES
            }
            DenseType::Q6K => q6_k::row_bytes(cols),
        }
    }
}

/// Numbers of whole blocks.
pub(crate) fn decode_dense(ty: DenseType, bytes: &[u8], out: &mut [f32]) {
    decode_row(Backend::active(), ty, bytes, out);
}

/// A matrix [rows, cols], borrowed from the bytes of a file or rearranged for decoding.
#[derive(Debug, Clone)]
pub struct DenseMatrix<'a> {
    ty: DenseType,
    bytes: Cow<'a, [u8]>,
    /// Whether the bytes are in the order of [`interleaved`].
    interleaved: bool,
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
        Self { ty, bytes: Cow::Borrowed(bytes), interleaved: false, rows, cols }
    }

    /// A matrix of f32 numbers, row-major, borrowed where the processor stores them as files do.
    ///
    /// # Panics
    /// If the length does not fit the shape.
    pub fn from_f32(values: &'a [f32], rows: usize, cols: usize) -> Self {
        assert_eq!(values.len(), rows * cols, "values of [{rows}, {cols}]");
        let bytes = if cfg!(target_endian = "little") {
            Cow::Borrowed(bytemuck::cast_slice(values))
        } else {
            Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        };
        Self { ty: DenseType::F32, bytes, interleaved: false, rows, cols }
    }

    /// The matrix as it decodes fastest here: a copy of Q8_0 rows, rearranged, where there is code for it.
    /// None where the file's own order is the best. Products have the same bits either way.
    pub fn for_decoding(&self) -> Option<DenseMatrix<'static>> {
        (self.ty.is_rearranged() && !self.interleaved).then(|| DenseMatrix {
            ty: self.ty,
            bytes: Cow::Owned(interleaved::interleave(&self.bytes, self.ty.row_bytes(self.cols))),
            interleaved: true,
            rows: self.rows,
            cols: self.cols,
        })
    }

    /// The same matrix, borrowing this one's bytes.
    pub fn borrowed(&self) -> DenseMatrix<'_> {
        DenseMatrix { bytes: Cow::Borrowed(&self.bytes), ..*self }
    }

    /// How the rows are stored.
    pub fn dense_type(&self) -> DenseType {
        self.ty
    }

    /// Bytes of the matrix as it is stored: what one decoding step reads of a head.
    pub fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Row `i` as f32: what an embedding looks up.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `[cols]`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.rows && out.len() == self.cols, "row {i} of [{}, {}]", self.rows, self.cols);
        self.decode_row(Backend::active(), i, &mut Vec::new(), out);
    }

    /// Row `i`; `buffer` is for the bytes of a row.
    fn decode_row(&self, backend: Backend, i: usize, buffer: &mut Vec<u8>, out: &mut [f32]) {
        let len = self.ty.row_bytes(self.cols);
        let bytes = if self.interleaved {
            interleaved::row(&self.bytes, len, i, buffer);
            buffer
        } else {
            &self.bytes[i * len..(i + 1) * len]
        };
        decode_row(backend, self.ty, bytes, out);
    }

    /// `y = x · Wᵀ`: x [tokens, cols], y [tokens, rows].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn matmul(&self, x: &[f32], y: &mut [f32]) {
        self.matmul_with(Backend::active(), x, y);
    }

    /// [`DenseMatrix::matmul`] on the backend given.
    ///
    /// # Panics
    /// As [`DenseMatrix::matmul`], and if the processor does not support the backend.
    pub fn matmul_with(&self, backend: Backend, x: &[f32], y: &mut [f32]) {
        backend.assert_supported();
        assert!(x.len().is_multiple_of(self.cols), "x is rows of {}", self.cols);
        let tokens = x.len() / self.cols;
        assert_eq!(y.len(), tokens * self.rows, "y is [{tokens}, {}]", self.rows);
        if y.is_empty() {
            return;
        }
        // A piece is some rows of the matrix and all tokens; it owns its part of every token's result. It is
        // long, so that a thread reads on for a while; a decoding step waits for the last one, so there are
        // several a thread.
        let rows = self.rows.div_ceil(pool::threads() * PIECES_A_THREAD).next_multiple_of(ROWS);
        let mut pieces: Vec<Vec<&mut [f32]>> =
            (0..self.rows.div_ceil(rows)).map(|_| Vec::with_capacity(tokens)).collect();
        for y in y.chunks_exact_mut(self.rows) {
            for (piece, part) in pieces.iter_mut().zip(y.chunks_mut(rows)) {
                piece.push(part);
            }
        }
        let compute = |(piece, mut y): (usize, Vec<&mut [f32]>)| self.piece(backend, piece * rows, x, &mut y);
        let pieces = pieces.into_iter().enumerate();
        if x.len() * self.rows >= PARALLEL_PRODUCTS {
            pool::for_each(pieces, compute);
        } else {
            pieces.for_each(compute);
        }
    }

    /// The products of all tokens with the rows from `first_row` on for which `y` has places.
    fn piece(&self, backend: Backend, first_row: usize, x: &[f32], y: &mut [&mut [f32]]) {
        let row_bytes = self.ty.row_bytes(self.cols);
        let rows = y[0].len();
        if !self.interleaved
            && self.few(backend, &self.bytes[first_row * row_bytes..][..rows * row_bytes], x, y)
        {
            return;
        }
        #[cfg(target_arch = "x86_64")]
        if self.interleaved && y.len() <= self.few_tokens(backend) && backend != Backend::Scalar {
            let groups = rows.next_multiple_of(interleaved::GROUP);
            let groups = &self.bytes[first_row * row_bytes..][..groups * row_bytes];
            return x86_interleaved::products(backend, groups, x, y);
        }
        // One token needs each decoded row once: few rows at a time stay near. Many tokens are worth a larger
        // buffer.
        let at_once = if y.len() < TILE { TILE } else { ROWS };
        let mut decoded = vec![0f32; at_once * self.cols];
        let mut buffer = Vec::new();
        for first in (0..rows).step_by(at_once) {
            let count = at_once.min(rows - first);
            let decoded = &mut decoded[..count * self.cols];
            for (i, row) in decoded.chunks_exact_mut(self.cols).enumerate() {
                self.decode_row(backend, first_row + first + i, &mut buffer, row);
            }
            tiles::products(backend, decoded, self.cols, x, first, y);
        }
    }

    /// Tokens up to which rows of this type are multiplied as they are decoded.
    #[cfg(target_arch = "x86_64")]
    fn few_tokens(&self, backend: Backend) -> usize {
        match (self.ty, backend) {
            (DenseType::Q8_0, Backend::Avx2 | Backend::AvxVnni) => FEW_TOKENS_OF_Q8_0,
            _ => FEW_TOKENS,
        }
    }

    /// The products of a piece in the file's order, if there is code for so few tokens of this type; says
    /// whether there is.
    fn few(&self, backend: Backend, bytes: &[u8], x: &[f32], y: &mut [&mut [f32]]) -> bool {
        let row_bytes = self.ty.row_bytes(self.cols);
        #[cfg(target_arch = "x86_64")]
        if y.len() <= self.few_tokens(backend)
            && self.ty != DenseType::Q6K
            && self.cols.is_multiple_of(x86::UNIT)
            && backend != Backend::Scalar
        {
            x86::products(backend, self.ty, bytes, row_bytes, x, y);
            return true;
        }
        match self.ty {
            DenseType::Q6K if y.len() <= q6_k::MOST_TOKENS => {
                q6_k::products(backend, bytes, row_bytes, x, y);
            }
            DenseType::Q8_0 if y.len() < TILE => {
                for (x, y) in x.chunks_exact(self.cols).zip(y) {
                    few::q8_0_products(backend, bytes, row_bytes, x, y);
                }
            }
            _ => return false,
        }
        true
    }
}
