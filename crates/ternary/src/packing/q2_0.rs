//! Q2_0 of llama.cpp: 64 weights in 18 bytes, an f16 scale and then 2-bit codes (`block_q2_0` of ggml,
//! `QK2_0` = 64).
//!
//! Weight j of a block is bits `2·(j mod 4)` and up of byte `j div 4`, as code + 1. The format has a fourth
//! code, 2·d, which no ternary tensor uses. A fork that gave the same id to blocks of 128 weights came
//! before; its tensors are shorter.

/// Weights in a block.
pub(super) const BLOCK: usize = 64;

/// Bytes of a block.
pub(super) const BYTES: usize = 2 + BLOCK / 4;

/// Appends whole blocks with scale `d` (f16, little endian).
pub(super) fn pack(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<BLOCK>().0 {
        out.extend_from_slice(&d);
        for four in block.as_chunks::<4>().0 {
            out.push((0..4).fold(0u8, |b, n| b | ((four[n] + 1) as u8) << (2 * n)));
        }
    }
}

/// The codes of whole blocks. A code of 3 becomes 2, which the caller refuses.
pub(super) fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
        for (four, byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(&block[2..]) {
            for (n, code) in four.iter_mut().enumerate() {
                *code = (byte >> (2 * n) & 3) as i8 - 1;
            }
        }
    }
}
