//! TQ2_0: 256 weights in 64 bytes of 2-bit codes, then an f16 scale (`block_tq2_0` of ggml).
//!
//! Two halves of 128: weight `128·h + 32·n + m` is bits `2n..2n+1` of byte `32·h + m`, as code + 1.

use super::layout::{Layout, ScalePlace};

pub(super) const LAYOUT: Layout = Layout {
    name: "TQ2_0",
    option: "tq2_0",
    ggml: "TQ2_0",
    bytes_of: "TQ2_0 bytes",
    help: "2.06 bits per weight; llama.cpp, bitnet.cpp",
    file_type: 37,
    block: 256,
    bytes: BYTES,
    scales: ScalePlace::Block,
    scale_bytes: 2,
    scale_at: 64,
    pack,
    unpack,
};

/// Bytes of a block.
const BYTES: usize = 66;

/// Appends whole blocks with scale `d` (f16, little endian).
fn pack(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<256>().0 {
        for half in block.as_chunks::<128>().0 {
            for m in 0..32 {
                let byte = (0..4).fold(0u8, |b, n| b | ((half[32 * n + m] + 1) as u8) << (2 * n));
                out.push(byte);
            }
        }
        out.extend_from_slice(&d);
    }
}

/// The codes of whole blocks. A code of 3 becomes 2, which the caller refuses.
fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<256>().0.iter_mut().zip(blocks) {
        let halves = block[..64].as_chunks::<32>().0.iter();
        for (half, codes) in halves.zip(codes.as_chunks_mut::<128>().0) {
            for (n, codes) in codes.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                for (code, byte) in codes.iter_mut().zip(half) {
                    *code = (byte >> (2 * n) & 3) as i8 - 1;
                }
            }
        }
    }
}
