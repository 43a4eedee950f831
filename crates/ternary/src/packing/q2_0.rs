//! Q2_0 and PQ2_0: blocks of an f16 scale and 2-bit codes.
//!
//! Weight j of a block is bits `2·(j mod 4)` and up of byte `j div 4`, as code + 1. The format has a fourth
//! code, 2·d, which no ternary tensor uses.
//!
//! Q2_0 of llama.cpp has blocks of 64 weights in 18 bytes (`block_q2_0` of ggml, `QK2_0` = 64). The fork from which
//! it came, PrismML's, gave the same id to blocks of 128 weights in 34 bytes, and published models in them, before it
//! gave these an id of their own, PQ2_0 (`block_pq2_0`). Tensors of the two Q2_0 differ in length.

use super::layout::{Layout, ScalePlace};

/// llama.cpp's.
pub(super) const Q2_0: Layout = Layout {
    name: "Q2_0",
    option: "q2_0",
    ggml: "Q2_0",
    bytes_of: "Q2_0 bytes",
    help: "2.25 bits per weight, blocks of 64; llama.cpp since mid 2026",
    file_type: 41,
    block: 64,
    bytes: 2 + 64 / 4,
    scales: ScalePlace::Block,
    scale_bytes: 2,
    scale_at: 0,
    pack: pack::<64>,
    unpack: unpack::<18, 64>,
};

/// The older one, of PrismML's fork.
pub(super) const Q2_0_G128: Layout = Layout {
    name: "Q2_0_G128",
    option: "q2_0_g128",
    ggml: "Q2_0_G128",
    bytes_of: "Q2_0 bytes (blocks of 128)",
    help: "2.13 bits per weight, q2_0 in blocks of 128; readers of the first Ternary Bonsai files",
    block: 128,
    bytes: 2 + 128 / 4,
    pack: pack::<128>,
    unpack: unpack::<34, 128>,
    ..Q2_0
};

/// The same under its own id.
pub(super) const PQ2_0: Layout = Layout {
    name: "PQ2_0",
    option: "pq2_0",
    ggml: "PQ2_0",
    bytes_of: "PQ2_0 bytes",
    help: "2.13 bits per weight, blocks of 128; PrismML's fork of llama.cpp",
    file_type: 141,
    ..Q2_0_G128
};

/// Appends whole blocks of `N` weights with scale `d` (f16, little endian).
fn pack<const N: usize>(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<N>().0 {
        out.extend_from_slice(&d);
        for four in block.as_chunks::<4>().0 {
            out.push((0..4).fold(0u8, |b, n| b | ((four[n] + 1) as u8) << (2 * n)));
        }
    }
}

/// The codes of whole blocks of `N` weights in `BYTES`. A code of 3 becomes 2, which the caller refuses.
fn unpack<const BYTES: usize, const N: usize>(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<N>().0.iter_mut().zip(blocks) {
        for (four, byte) in codes.as_chunks_mut::<4>().0.iter_mut().zip(&block[2..]) {
            for (n, code) in four.iter_mut().enumerate() {
                *code = (byte >> (2 * n) & 3) as i8 - 1;
            }
        }
    }
}
