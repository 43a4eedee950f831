//! IQ2_BN of ik_llama.cpp: each row is its f32 scale, then blocks of 64 weights in 16 bytes.
//!
//! Weight `16·n + m` of a block is bits `2n..2n+1` of byte m, as code + 1 (`quantize_one_row_2bn` and
//! `dequantize_row_iq2_bn` of ik_llama.cpp). Its first versions had no scale; a file of theirs is shorter.

use super::layout::{Layout, ScalePlace};

/// Weights in a block.
const BLOCK: usize = 64;

/// Bytes of a block.
const BYTES: usize = BLOCK / 4;

pub(super) const LAYOUT: Layout = Layout {
    name: "IQ2_BN",
    option: "iq2_bn",
    ggml: "IQ2_BN",
    bytes_of: "IQ2_BN bytes",
    help: "2 bits per weight, exact scale of each row, blocks of 64; ik_llama.cpp, for rows of at least 512 weights",
    file_type: 137,
    block: BLOCK,
    bytes: BYTES,
    scales: ScalePlace::Row,
    scale_bytes: 4,
    scale_at: 0,
    pack,
    unpack,
};

/// Appends the codes of whole blocks.
fn pack(codes: &[i8], _: [u8; 2], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<BLOCK>().0 {
        out.extend(
            (0..BYTES).map(|m| (0..4).fold(0u8, |b, n| b | ((block[BYTES * n + m] + 1) as u8) << (2 * n))),
        );
    }
}

/// The codes of whole blocks. A code of 3 becomes 2, which the caller refuses.
fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
        for (n, codes) in codes.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(block) {
                *code = (byte >> (2 * n) & 3) as i8 - 1;
            }
        }
    }
}
