//! Rows of F16, BF16 and Q8_0 to and from f32.

use half::{bf16, f16};

use super::{DenseType, Q8_0_BLOCK, Q8_0_BYTES};
#[cfg(target_arch = "x86_64")]
use crate::lanes::LANES;
use crate::lanes::multiversion;
use crate::{Backend, q6_k};

/// A row as f32 numbers.
pub(super) fn decode_row(backend: Backend, ty: DenseType, bytes: &[u8], out: &mut [f32]) {
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
        // SAFETY: a block is the 32 bytes that are read, `out` the 64 bytes that are written; neither needs
        // alignment.
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
            DenseType::Bf16 => {
                for (y, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *y = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
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
            DenseType::Q6K => q6_k::decode_row(bytes, out),
        }
    }
}

/// An f16 number, exactly. `half` asks for the processor's features at every number, which loops cannot
/// afford.
#[inline(always)]
pub(super) fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    /// 2^112: the difference of the exponents' biases.
    const REBIAS: f32 = f32::from_bits(0x7780_0000);
    let wide = u32::from(u16::from_le_bytes(bytes)) << 16;
    let (sign, magnitude) = (wide & 0x8000_0000, (wide & 0x7fff_0000) >> 3);
    // Exponent and mantissa now stand where f32 has them; the product also makes subnormal f16 numbers
    // normal.
    let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
    let bits = if magnitude >= 0x0f80_0000 { magnitude | 0x7f80_0000 } else { finite };
    f32::from_bits(sign | bits)
}

/// The bytes of f32 numbers as f16, rounded half to even; magnitudes from 65520 become infinite.
pub fn f32_to_f16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
}

/// The bytes of f32 numbers as bf16, rounded half to even.
pub(crate) fn f32_to_bf16(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect()
}

/// The Q8_0 blocks of a row-major matrix, as ggml's reference quantizer makes them: `d = absmax/127`, codes
/// rounded half away from zero with the f32 `d`, which is then stored as f16.
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

    #[test]
    fn every_bf16_is_read_exactly() {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        for backend in Backend::supported() {
            let mut found = vec![0f32; 1 << 16];
            decode_row(backend, DenseType::Bf16, &bytes, &mut found);
            for (bits, found) in found.iter().enumerate() {
                assert_eq!(found.to_bits(), (bits as u32) << 16, "{backend}");
            }
        }
        // Half to even at the 17th bit, as `half` and ggml do.
        let values =
            [1.0, f32::from_bits(0x3f80_8000), f32::from_bits(0x3f81_8000), f32::from_bits(0x3f80_8001)];
        let expected = [0x3f80u16, 0x3f80, 0x3f82, 0x3f81].map(u16::to_le_bytes).concat();
        assert_eq!(f32_to_bf16(&values), expected);
    }
}
