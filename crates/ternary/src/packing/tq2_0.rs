//! TQ2_0: 256 weights in 64 bytes of 2-bit codes, then an f16 scale (`block_tq2_0` of ggml).
//!
//! Two halves of 128: weight `128·h + 32·n + m` is bits `2n..2n+1` of byte `32·h + m`, as code + 1.

/// Bytes of a block.
pub(super) const BYTES: usize = 66;

/// Appends one block with scale `d` (f16, little endian).
pub(super) fn pack(codes: &[i8; 256], d: [u8; 2], out: &mut Vec<u8>) {
    for half in codes.as_chunks::<128>().0 {
        for m in 0..32 {
            let byte = (0..4).fold(0u8, |b, n| b | ((half[32 * n + m] + 1) as u8) << (2 * n));
            out.push(byte);
        }
    }
    out.extend_from_slice(&d);
}

/// The codes of one block. A code of 3 becomes 2, which the caller refuses.
#[inline]
pub(super) fn unpack(block: &[u8; BYTES], codes: &mut [i8; 256]) {
    let halves = block[..64].as_chunks::<32>().0.iter();
    for (half, codes) in halves.zip(codes.as_chunks_mut::<128>().0) {
        for (n, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(half) {
                *code = (byte >> (2 * n) & 3) as i8 - 1;
            }
        }
    }
}

/// The scale of a block, f16 bits.
pub(super) fn scale(block: &[u8; BYTES]) -> u16 {
    u16::from_le_bytes([block[64], block[65]])
}
