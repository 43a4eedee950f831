//! Stored numbers of GGUF files to f32: one row a format, exactly as ggml's `dequantize_row_*` computes them.
//!
//! This is for reading models in, not for running them: [`crate::DenseMatrix`] multiplies the formats worth
//! multiplying.

mod iq3_s_grid;
mod k_quants;
mod tables;

use crate::dense::{DenseType, decode_dense};

/// A format in which files hold full-precision or quantized numbers, block by block.
#[derive(Debug, Clone, Copy)]
pub struct BlockFormat {
    /// The name, as ggml writes it.
    pub name: &'static str,
    /// Numbers in a block.
    pub numbers: usize,
    /// Bytes of a block.
    pub bytes: usize,
    decode: fn(&[u8], &mut [f32]),
}

/// The formats. Sources: `ggml-common.h` and `ggml-quants.c` of llama.cpp.
const FORMATS: [BlockFormat; 17] = [
    BlockFormat { name: "F32", numbers: 1, bytes: 4, decode: |b, out| decode_dense(DenseType::F32, b, out) },
    BlockFormat { name: "F16", numbers: 1, bytes: 2, decode: |b, out| decode_dense(DenseType::F16, b, out) },
    BlockFormat {
        name: "BF16",
        numbers: 1,
        bytes: 2,
        decode: |b, out| decode_dense(DenseType::Bf16, b, out),
    },
    BlockFormat { name: "Q4_0", numbers: 32, bytes: 18, decode: q4_0 },
    BlockFormat { name: "Q4_1", numbers: 32, bytes: 20, decode: q4_1 },
    BlockFormat { name: "Q5_0", numbers: 32, bytes: 22, decode: q5_0 },
    BlockFormat { name: "Q5_1", numbers: 32, bytes: 24, decode: q5_1 },
    BlockFormat {
        name: "Q8_0",
        numbers: 32,
        bytes: 34,
        decode: |b, out| decode_dense(DenseType::Q8_0, b, out),
    },
    BlockFormat {
        name: "Q6_K",
        numbers: 256,
        bytes: 210,
        decode: |b, out| decode_dense(DenseType::Q6K, b, out),
    },
    BlockFormat { name: "Q2_K", numbers: 256, bytes: 84, decode: k_quants::q2_k },
    BlockFormat { name: "Q3_K", numbers: 256, bytes: 110, decode: k_quants::q3_k },
    BlockFormat { name: "Q4_K", numbers: 256, bytes: 144, decode: k_quants::q4_k },
    BlockFormat { name: "Q5_K", numbers: 256, bytes: 176, decode: k_quants::q5_k },
    BlockFormat { name: "IQ4_NL", numbers: 32, bytes: 18, decode: tables::iq4_nl },
    BlockFormat { name: "IQ4_XS", numbers: 256, bytes: 136, decode: tables::iq4_xs },
    BlockFormat { name: "IQ3_S", numbers: 256, bytes: 110, decode: tables::iq3_s },
    BlockFormat { name: "MXFP4", numbers: 32, bytes: 17, decode: tables::mxfp4 },
];

impl BlockFormat {
    /// All formats.
    pub fn all() -> &'static [BlockFormat] {
        &FORMATS
    }

    /// The format of a name.
    pub fn from_name(name: &str) -> Option<&'static BlockFormat> {
        FORMATS.iter().find(|format| format.name == name)
    }

    /// The numbers of whole blocks.
    ///
    /// # Panics
    /// If `out` is not whole blocks, or the bytes are not those of as many.
    pub fn decode(&self, bytes: &[u8], out: &mut [f32]) {
        assert!(
            out.len().is_multiple_of(self.numbers) && bytes.len() == out.len() / self.numbers * self.bytes,
            "{} bytes of {} for {} numbers",
            bytes.len(),
            self.name,
            out.len()
        );
        (self.decode)(bytes, out);
    }
}

fn half(bytes: &[u8]) -> f32 {
    half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()
}

/// Of the 16 bytes of a block of 32: low halves are the first 16 codes, high halves the others.
fn nibbles(bytes: &[u8], out: &mut [f32], value: impl Fn(u8, usize) -> f32) {
    for (i, byte) in bytes.iter().enumerate() {
        out[i] = value(byte & 15, i);
        out[i + 16] = value(byte >> 4, i + 16);
    }
}

/// d (f16), 16 bytes of codes: (code − 8)·d.
fn q4_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = half(block);
        nibbles(&block[2..], out, |code, _| f32::from(i16::from(code) - 8) * d);
    }
}

/// d, m (f16), 16 bytes of codes: code·d + m.
fn q4_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<20>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (d, m) = (half(block), half(&block[2..]));
        nibbles(&block[4..], out, |code, _| f32::from(code) * d + m);
    }
}

/// d (f16), the codes' fifth bits (u32), 16 bytes of their others: (code − 16)·d.
fn q5_0(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<22>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (d, high) = (half(block), u32::from_le_bytes([block[2], block[3], block[4], block[5]]));
        nibbles(&block[6..], out, |code, i| {
            f32::from(i16::from(code) + (((high >> i) & 1) << 4) as i16 - 16) * d
        });
    }
}

/// d, m (f16), the codes' fifth bits (u32), 16 bytes of their others: code·d + m.
fn q5_1(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<24>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let (d, m) = (half(block), half(&block[2..]));
        let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
        nibbles(&block[8..], out, |code, i| {
            f32::from(i16::from(code) + (((high >> i) & 1) << 4) as i16) * d + m
        });
    }
}
