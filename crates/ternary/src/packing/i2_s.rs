//! I2_S of bitnet.cpp, x86 layout: the tensor as one stream of blocks of 128 weights in 32 bytes, then the f32 scale.
//!
//! Weight j of a block is in byte `j mod 32`, bits `6 − 2·(j div 32)` and up, as code + 1. The scale (the
//! multiplier, mean|W|) stands after the codes, repeated to fill 32 bytes.

/// Weights in a block.
pub(super) const BLOCK: usize = 128;

/// Bytes after the codes: eight copies of the scale.
pub(super) const TAIL: usize = 32;

/// Appends all codes and the tail.
pub(super) fn pack(codes: &[i8], scale: f32, out: &mut Vec<u8>) {
    for block in codes.as_chunks::<BLOCK>().0 {
        for m in 0..32 {
            let byte = (0..4).fold(0u8, |b, n| b | ((block[32 * n + m] + 1) as u8) << (6 - 2 * n));
            out.push(byte);
        }
    }
    for _ in 0..TAIL / 4 {
        out.extend_from_slice(&scale.to_le_bytes());
    }
}

/// The codes of one block. A code of 3 becomes 2, which the caller refuses.
#[inline]
pub(super) fn unpack(block: &[u8; BLOCK / 4], codes: &mut [i8; BLOCK]) {
    for (n, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        for (code, byte) in codes.iter_mut().zip(block) {
            *code = (byte >> (6 - 2 * n) & 3) as i8 - 1;
        }
    }
}

/// The scale in the tail.
pub(super) fn scale(tail: &[u8; TAIL]) -> f32 {
    f32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]])
}
