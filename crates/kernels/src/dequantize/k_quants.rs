//! The K-quants of ggml: blocks of 256 numbers in groups of 16 or 32, whose scales are a few bits each.
//!
//! Q6_K, which is also multiplied, is in [`crate::q6_k`].

use super::half;

/// Numbers of a block.
const BLOCK: usize = 256;

/// Scales and minima (low and high nibbles, 16 bytes), 64 bytes of 2-bit codes, d, dmin (f16):
/// `d·scale·code − dmin·min`, groups of 16.
pub(super) fn q2_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<84>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let (d, dmin) = (half(&block[80..]), half(&block[82..]));
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let scale = d * f32::from(block[group] & 15);
            let min = dmin * f32::from(block[group] >> 4);
            let (codes, shift) = two_bits(&block[16..80], group);
            for (x, byte) in out.iter_mut().zip(codes) {
                *x = scale * f32::from(byte >> shift & 3) - min;
            }
        }
    }
}

/// The codes' third bits (32 bytes), 64 bytes of their others, sixteen scales of 6 bits (12 bytes), d (f16):
/// `d·(scale − 32)·(code − 4)`, groups of 16.
pub(super) fn q3_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<110>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        let d = half(&block[108..]);
        let scales = &block[96..108];
        for (group, out) in out.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let low = scales[group % 8] >> (4 * (group / 8)) & 15;
            let high = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
            let scale = d * f32::from(i16::from(low | high << 4) - 32);
            let (codes, shift) = two_bits(&block[32..96], group);
            let high = &block[16 * (group % 2)..][..16];
            for ((x, byte), high) in out.iter_mut().zip(codes).zip(high) {
                let low = i16::from(byte >> shift & 3);
                let third = i16::from(high >> (group / 2) & 1);
                *x = scale * f32::from(low + 4 * third - 4);
            }
        }
    }
}

/// The bytes that hold a group's 2-bit codes, and how far up these are: of each 128 numbers, 32 bytes hold four times
/// 32.
fn two_bits(bytes: &[u8], group: usize) -> (&[u8], usize) {
    let (half, within) = (group / 8, group % 8);
    (&bytes[32 * half + 16 * (within % 2)..][..16], 2 * (within / 2))
}

/// d, dmin (f16), eight scales and minima of 6 bits (12 bytes), 128 bytes of codes: `d·scale·code − dmin·min`, groups of 32.
pub(super) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<144>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(block, group);
            let codes = &block[16 + 32 * (group / 2)..][..32];
            for (x, byte) in out.iter_mut().zip(codes) {
                *x = scale * f32::from(byte >> (4 * (group % 2)) & 15) - min;
            }
        }
    }
}

/// As Q4_K, with the codes' fifth bits (32 bytes, a bit a group) before their others.
pub(super) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    for (block, out) in bytes.as_chunks::<176>().0.iter().zip(out.as_chunks_mut::<BLOCK>().0) {
        for (group, out) in out.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            let (scale, min) = scale_and_min(block, group);
            let codes = &block[48 + 32 * (group / 2)..][..32];
            for ((x, byte), high) in out.iter_mut().zip(codes).zip(&block[16..48]) {
                let code = (byte >> (4 * (group % 2)) & 15) | (high >> group & 1) << 4;
                *x = scale * f32::from(code) - min;
            }
        }
    }
}

/// `d·scale` and `dmin·min` of a group of Q4_K and Q5_K: the first four groups have theirs in the low six bits of bytes 0
/// to 7, the others in nibbles of bytes 8 to 11 and the high bits that are left.
fn scale_and_min(block: &[u8], group: usize) -> (f32, f32) {
    let packed = &block[4..16];
    let (scale, min) = match group.checked_sub(4) {
        None => (packed[group] & 63, packed[group + 4] & 63),
        Some(i) => (packed[8 + i] & 15 | packed[i] >> 6 << 4, packed[8 + i] >> 4 | packed[4 + i] >> 6 << 4),
    };
    (half(block) * f32::from(scale), half(&block[2..]) * f32::from(min))
}
