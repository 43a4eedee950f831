//! Full-precision matrices as files store them (F32, F16, Q8_0): rows by index, and `x · Wᵀ` for the output head.
//!
//! Every product is a dot of fixed order ([`crate::lanes`]), the same for one token and for many.

use std::borrow::Cow;

use half::f16;
use rayon::prelude::*;

use crate::Backend;
use crate::lanes::{LANES, Lanes, dot, fma, load, multiversion, sums};

/// Weights in a Q8_0 block.
const Q8_0_BLOCK: usize = 32;
/// Bytes of a Q8_0 block: an f16 scale, 32 int8 codes.
const Q8_0_BYTES: usize = 34;
/// Rows of one parallel piece.
const ROWS: usize = 16;
/// Rows, and tokens if there are many, whose dots are computed together.
const TILE: usize = 4;
/// Fused multiply-adds from which threads share the work.
const PARALLEL_PRODUCTS: usize = 1 << 18;

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
        if y.is_empty() {
            return;
        }
        let backend = Backend::active();
        // A piece is some rows of the matrix and all tokens; it owns its part of every token's result.
        let mut pieces: Vec<Vec<&mut [f32]>> =
            (0..self.rows.div_ceil(ROWS)).map(|_| Vec::with_capacity(tokens)).collect();
        for y in y.chunks_exact_mut(self.rows) {
            for (piece, part) in pieces.iter_mut().zip(y.chunks_mut(ROWS)) {
                piece.push(part);
            }
        }
        if self.ty == DenseType::Q8_0 && tokens < TILE {
            // Rows that are needed once or twice are multiplied as they are decoded.
            let row_bytes = self.ty.row_bytes(self.cols);
            let compute = |(piece, y): (usize, &mut Vec<&mut [f32]>)| {
                let bytes = &self.bytes[piece * ROWS * row_bytes..][..y[0].len() * row_bytes];
                for (x, y) in x.chunks_exact(self.cols).zip(y) {
                    q8_0_products(backend, bytes, row_bytes, x, y);
                }
            };
            if x.len() * self.rows >= PARALLEL_PRODUCTS {
                pieces.par_iter_mut().enumerate().for_each(compute);
            } else {
                pieces.iter_mut().enumerate().for_each(compute);
            }
            return;
        }
        // One token needs each decoded row once: few rows at a time stay near. Many tokens are worth a larger buffer.
        let at_once = if tokens < TILE { TILE } else { ROWS };
        let compute = |(piece, y): (usize, &mut Vec<&mut [f32]>)| {
            let mut decoded = vec![0f32; at_once * self.cols];
            let rows = y[0].len();
            for first in (0..rows).step_by(at_once) {
                let count = at_once.min(rows - first);
                let decoded = &mut decoded[..count * self.cols];
                for (i, row) in decoded.chunks_exact_mut(self.cols).enumerate() {
                    decode_row(backend, self.ty, self.row_bytes(piece * ROWS + first + i), row);
                }
                products(backend, decoded, self.cols, x, first, y);
            }
        };
        if x.len() * self.rows >= PARALLEL_PRODUCTS {
            pieces.par_iter_mut().enumerate().for_each(compute);
        } else {
            pieces.iter_mut().enumerate().for_each(compute);
        }
    }
}

multiversion! {
    /// `y[t][first + i] = row i · x_t`, four rows and four tokens at a time: each in the order of [`dot`].
    fn products(rows: &[f32], cols: usize, x: &[f32], first: usize, y: &mut [&mut [f32]]) {
        let count = rows.len() / cols;
        let tokens = y.len();
        let mut t = 0;
        while t < tokens {
            let together = if t + TILE <= tokens { TILE } else { 1 };
            let x = &x[t * cols..(t + together) * cols];
            let mut i = 0;
            while i < count {
                if i + TILE > count || !cols.is_multiple_of(LANES) {
                    for (x, y) in x.chunks_exact(cols).zip(&mut y[t..]) {
                        y[first + i] = dot(&rows[i * cols..(i + 1) * cols], x);
                    }
                    i += 1;
                    continue;
                }
                let rows = &rows[i * cols..(i + TILE) * cols];
                if together == TILE {
                    for (y, sums) in y[t..].iter_mut().zip(tile::<TILE>(rows, x, cols)) {
                        y[first + i..][..TILE].copy_from_slice(&sums);
                    }
                } else {
                    y[t][first + i..][..TILE].copy_from_slice(&tile::<1>(rows, x, cols)[0]);
                }
                i += TILE;
            }
            t += together;
        }
    }
}

/// The dots of T tokens with four rows, [T, 4]; their length is a multiple of 16.
#[inline(always)]
fn tile<const T: usize>(rows: &[f32], x: &[f32], cols: usize) -> [[f32; TILE]; T] {
    assert!(rows.len() == TILE * cols && x.len() == T * cols && cols.is_multiple_of(LANES));
    let mut acc = [[[0f32; LANES]; TILE]; T];
    for i in (0..cols).step_by(LANES) {
        for t in 0..T {
            for r in 0..TILE {
                // SAFETY: i + 16 <= cols as 16 divides cols, and the assertion says that there are TILE rows and T tokens.
                let (row, x) = unsafe { (load(rows, r * cols + i), load(x, t * cols + i)) };
                acc[t][r] = fma(&row, &x, &acc[t][r]);
            }
        }
    }
    let mut out = [[0f32; TILE]; T];
    for t in 0..T {
        out[t] = sums(&acc[t]);
    }
    out
}

multiversion! {
    /// `y[i] = row i · x` of Q8_0 rows, four at a time: each in the order of [`dot`], since a block is two times sixteen numbers.
    fn q8_0_products(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
        let x = x.as_chunks::<LANES>().0;
        for (rows, y) in bytes.chunks(TILE * row_bytes).zip(y.chunks_mut(TILE)) {
            let mut acc = [[0f32; LANES]; TILE];
            if y.len() == TILE {
                let row = |r: usize| rows[r * row_bytes..(r + 1) * row_bytes].as_chunks::<Q8_0_BYTES>().0;
                let blocks = row(0).iter().zip(row(1)).zip(row(2).iter().zip(row(3)));
                for (((a, b), (c, d)), x) in blocks.zip(x.as_chunks::<2>().0) {
                    for (acc, block) in acc.iter_mut().zip([a, b, c, d]) {
                        *acc = q8_0_block(block, x, acc);
                    }
                }
            } else {
                for (row, acc) in rows.chunks_exact(row_bytes).zip(&mut acc) {
                    for (block, x) in row.as_chunks::<Q8_0_BYTES>().0.iter().zip(x.as_chunks::<2>().0) {
                        *acc = q8_0_block(block, x, acc);
                    }
                }
            }
            let len = y.len();
            y.copy_from_slice(&sums(&acc)[..len]);
        }
    }
}

/// `acc + block · x`: code · scale is exact in f32 (8 and 11 bits), so this is the dot with the decoded row.
#[inline(always)]
fn q8_0_block(block: &[u8; Q8_0_BYTES], x: &[Lanes; 2], acc: &Lanes) -> Lanes {
    let d = f16_scale(u16::from_le_bytes([block[0], block[1]]));
    let mut out = *acc;
    for (half, x) in x.iter().enumerate() {
        let mut w = [0f32; LANES];
        for i in 0..LANES {
            w[i] = f32::from(block[2 + half * LANES + i] as i8) * d;
        }
        out = fma(&w, x, &out);
    }
    out
}

/// An f16 as f32 without a branch on the processor's features: the bits are moved into place and the exponent is corrected by an exact
/// multiplication, which also makes subnormal numbers right. Infinity and NaN take the ordinary way.
#[inline(always)]
fn f16_scale(bits: u16) -> f32 {
    /// 2^(127 − 15).
    const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
    if bits & 0x7c00 == 0x7c00 {
        return f16::from_bits(bits).to_f32();
    }
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * REBIAS;
    f32::from_bits(magnitude.to_bits() | u32::from(bits & 0x8000) << 16)
}

/// A row as f32 numbers.
fn decode_row(backend: Backend, ty: DenseType, bytes: &[u8], out: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if ty == DenseType::F16 && backend == Backend::Avx512Vnni {
        // SAFETY: this backend is chosen only where the processor has AVX-512 F.
        return unsafe { decode_f16_avx512(bytes, out) };
    }
    decode(backend, ty, bytes, out);
}

/// [`decode`] of F16 by the instruction made for it.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn decode_f16_avx512(bytes: &[u8], out: &mut [f32]) {
    use std::arch::x86_64::{_mm256_loadu_si256, _mm512_cvtph_ps, _mm512_storeu_ps};
    let (blocks, rest) = bytes.as_chunks::<{ 2 * LANES }>();
    let (out_blocks, out_rest) = out.as_chunks_mut::<LANES>();
    for (out, block) in out_blocks.iter_mut().zip(blocks) {
        // SAFETY: a block is the 32 bytes that are read, `out` the 64 bytes that are written; neither needs alignment.
        unsafe {
            let halves = _mm256_loadu_si256(block.as_ptr().cast());
            _mm512_storeu_ps(out.as_mut_ptr(), _mm512_cvtph_ps(halves));
        }
    }
    for (out, bytes) in out_rest.iter_mut().zip(rest.as_chunks::<2>().0) {
        *out = f16_to_f32(*bytes);
    }
}

multiversion! {
    fn decode(ty: DenseType, bytes: &[u8], out: &mut [f32]) {
        match ty {
            DenseType::F32 => {
                for (y, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *y = f32::from_le_bytes(*b);
                }
            }
            DenseType::F16 => {
                for (y, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *y = f16_to_f32(*b);
                }
            }
            DenseType::Q8_0 => {
                let blocks = bytes.as_chunks::<Q8_0_BYTES>().0;
                for (y, block) in out.as_chunks_mut::<Q8_0_BLOCK>().0.iter_mut().zip(blocks) {
                    let d = f16_to_f32([block[0], block[1]]);
                    for (y, code) in y.iter_mut().zip(&block[2..]) {
                        *y = f32::from(*code as i8) * d;
                    }
                }
            }
        }
    }
}

/// An f16 number, exactly. `half` asks for the processor's features at every number, which loops cannot afford.
#[inline(always)]
fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    /// 2^112: the difference of the exponents' biases.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let wide = u32::from(u16::from_le_bytes(bytes)) << 16;
    let (sign, magnitude) = (wide & 0x8000_0000, (wide & 0x7fff_0000) >> 3);
    // Exponent and mantissa now stand where f32 has them; the product also makes subnormal f16 numbers normal.
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let bits = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(sign | bits)
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

#[cfg(test)]
mod tests {
    #[test]
    fn every_finite_f16_scale_is_exact() {
        for bits in 0..=u16::MAX {
            let expected = half::f16::from_bits(bits).to_f32();
            let found = super::f16_scale(bits);
            assert!(
                found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan()),
                "{bits:04x}"
            );
        }
    }
    use super::*;

    #[test]
    fn every_f16_is_read_exactly() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for backend in Backend::supported() {
            // One less than all: the last one stands outside whole blocks.
            let mut found = vec![0f32; usize::from(u16::MAX)];
            decode_row(backend, DenseType::F16, &bytes[..2 * found.len()], &mut found);
            for (bits, found) in found.iter().enumerate() {
                let exact = f16::from_bits(bits as u16).to_f32();
                let same = found.to_bits() == exact.to_bits() || found.is_nan() && exact.is_nan();
                assert!(same, "{backend}, {bits:#06x}: {found} for {exact}");
            }
        }
    }
}
