//! TQ1_0: 256 weights in 52 bytes of base-3 digits, then an f16 scale (`block_tq1_0` of ggml).
//!
//! 256 = 5·32 + 5·16 + 4·4: three runs of bytes, each byte with digits of weights a fixed stride apart, the
//! first weight most significant ([`super::trits`]).

use super::layout::{Layout, ScalePlace};
use super::trits::{pack_run, unpack_run};

pub(super) const LAYOUT: Layout = Layout {
    name: "TQ1_0",
    option: "tq1_0",
    ggml: "TQ1_0",
    bytes_of: "TQ1_0 bytes",
    help: "1.69 bits per weight; llama.cpp, bitnet.cpp",
    file_type: 36,
    block: 256,
    bytes: BYTES,
    scales: ScalePlace::Block,
    scale_bytes: 2,
    scale_at: 52,
    pack,
    unpack,
};

/// Bytes of a block.
const BYTES: usize = 54;

/// Appends whole blocks with scale `d` (f16, little endian).
fn pack(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for codes in codes.as_chunks::<256>().0 {
        pack_run::<32, 5>(&codes[..160], out);
        pack_run::<16, 5>(&codes[160..240], out);
        pack_run::<4, 4>(&codes[240..], out);
        out.extend_from_slice(&d);
    }
}

/// The codes of whole blocks; every byte holds digits, so every code is ternary.
fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<256>().0.iter_mut().zip(blocks) {
        unpack_run::<32, 5>(&block[..32], &mut codes[..160]);
        unpack_run::<16, 5>(&block[32..48], &mut codes[160..240]);
        unpack_run::<4, 4>(&block[48..52], &mut codes[240..]);
    }
}
