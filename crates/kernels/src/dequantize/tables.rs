//! Formats of ggml whose codes are looked up: IQ4_NL, IQ4_XS, MXFP4, IQ3_S.

use super::iq3_s_grid::GRID;
use super::{half, nibbles};

/// The values of a code of IQ4_NL and IQ4_XS.
const NON_LINEAR: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// Twice the values of a code of MXFP4, e2m1 numbers.
const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// d (f16), 16 bytes of codes: d·value.
pub(super) fn iq4_nl(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<18>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        let d = half(block);
        nibbles(&block[2..], out, |code, _| d * f32::from(NON_LINEAR[usize::from(code)]));
    }
}

/// d (f16), eight scales of 6 bits (their high bits as a u16, their low nibbles in 4 bytes), 128 bytes of codes:
/// `d·(scale − 32)·value`, groups of 32.
pub(super) fn iq4_xs(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<136>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let (d, high) = (half(block), u16::from_le_bytes([block[2], block[3]]));
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let low = i16::from(block[4 + group / 2] >> (4 * (group % 2)) & 15);
            let scale = low + (high >> (2 * group) & 3) as i16 * 16 - 32;
            let scale = d * f32::from(scale);
            let codes = &block[8 + 16 * group..][..16];
            nibbles(codes, out, |code, _| scale * f32::from(NON_LINEAR[usize::from(code)]));
        }
    }
}

/// An exponent (e8m0), 16 bytes of codes: 2^(e − 127)·value (OCP Microscaling Formats, version 1.0).
pub(super) fn mxfp4(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<17>().0.iter().zip(out.as_chunks_mut::<32>().0) {
        // Half of the scale, as the table has twice the values; below 2 it is a subnormal number.
        let bits = match u32::from(block[0]) {
            e @ 0..2 => 0x0020_0000 << e,
            e => (e - 1) << 23,
        };
        let d = f32::from_bits(bits);
        nibbles(&block[1..], out, |code, _| d * f32::from(E2M1[usize::from(code)]));
    }
}

/// d (f16), 64 bytes of indices of four magnitudes each, their ninth bits (8 bytes), 32 bytes of signs, eight scales of 4
/// bits: `d·(1 + 2·scale)·±magnitude`, groups of 32.
pub(super) fn iq3_s(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<256>().0) {
        let d = half(block);
        for (four, out) in out.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let group = four / 8;
            let scale = block[106 + group / 2] >> (4 * (group % 2)) & 15;
            let scale = d * f32::from(1 + 2 * scale);
            let ninth = usize::from(block[66 + group] >> (four % 8) & 1);
            let magnitudes = GRID[usize::from(block[2 + four]) | ninth << 8];
            let signs = block[74 + four / 2] >> (4 * (four % 2));
            for (i, x) in out.iter_mut().enumerate() {
                let magnitude = f32::from(2 * (magnitudes >> (3 * i) & 7) + 1);
                let sign = if signs >> i & 1 == 1 { -1.0 } else { 1.0 };
                *x = scale * magnitude * sign;
            }
        }
    }
}
