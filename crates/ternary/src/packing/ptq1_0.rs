//! PTQ1_0 of PrismML's fork of llama.cpp: 128 weights in 26 bytes of base-3 digits, then an f16 scale
//! (`block_ptq1_0`): TQ1_0 with a scale for half as many weights.
//!
//! 128 = 5·16 + 5·8 + 4·2: the first 24 bytes are walked in runs of 32, 16 and 8, of which no 32 fit.

use super::layout::{Layout, ScalePlace};
use super::trits::{pack_run, unpack_run};

pub(super) const LAYOUT: Layout = Layout {
    name: "PTQ1_0",
    option: "ptq1_0",
    ggml: "PTQ1_0",
    bytes_of: "PTQ1_0 bytes",
    help: "1.75 bits per weight, blocks of 128; PrismML's fork of llama.cpp",
    file_type: 143,
    block: 128,
    bytes: BYTES,
    scales: ScalePlace::Block,
    scale_bytes: 2,
    scale_at: 26,
    pack,
    unpack,
};

/// Bytes of a block.
const BYTES: usize = 28;

/// Appends whole blocks with scale `d` (f16, little endian).
fn pack(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for codes in codes.as_chunks::<128>().0 {
        pack_run::<16, 5>(&codes[..80], out);
        pack_run::<8, 5>(&codes[80..120], out);
        pack_run::<2, 4>(&codes[120..], out);
        out.extend_from_slice(&d);
    }
}

/// The codes of whole blocks; every byte holds digits, so every code is ternary.
fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<128>().0.iter_mut().zip(blocks) {
        unpack_run::<16, 5>(&block[..16], &mut codes[..80]);
        unpack_run::<8, 5>(&block[16..24], &mut codes[80..120]);
        unpack_run::<2, 4>(&block[24..26], &mut codes[120..]);
    }
}
