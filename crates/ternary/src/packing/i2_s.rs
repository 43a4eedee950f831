//! I2_S of bitnet.cpp: the tensor as one stream of blocks, then the f32 scale.
//!
//! x86 builds: blocks of 128 weights in 32 bytes; the code, plus one, of weight j of a block is in byte `j
//! mod 32`, bits `6 − 2·(j div 32)` and up. ARM builds: blocks of 64 weights in 16 bytes; weight j is in byte
//! `j mod 16`, bits `6 − 2·(j div 16)` and up. Both take the same bytes, and nothing in a file of bitnet.cpp
//! says which it is. The scale (the multiplier, mean|W|) stands after the codes, repeated to fill 32 bytes.

use super::layout::{Layout, ScalePlace};

/// Weights of which a row must be a multiple: the larger of the two blocks, as readers ask for it.
const BLOCK: usize = 128;

/// In the order of x86 builds.
pub(super) const X86: Layout = Layout {
    name: "I2_S",
    option: "i2_s",
    ggml: "I2_S",
    bytes_of: "I2_S bytes",
    help: "2 bits per weight, exact scale; bitnet.cpp, and ik_llama.cpp after its llama-quantize to IQ2_BN",
    file_type: 40,
    block: BLOCK,
    bytes: BLOCK / 4,
    scales: ScalePlace::Tensor,
    scale_bytes: 4,
    scale_at: 0,
    pack,
    unpack,
};

/// In the order of ARM builds.
pub(super) const ARM: Layout = Layout {
    name: "I2_S_ARM",
    option: "i2_s_arm",
    help: "i2_s in the layout of bitnet.cpp's ARM builds",
    pack: pack_arm,
    unpack: unpack_arm,
    ..X86
};

/// Appends the codes of whole blocks in the layout of x86.
fn pack(codes: &[i8], _: [u8; 2], out: &mut Vec<u8>) {
    pack_of::<128, 32>(codes, out);
}

/// Appends the codes of whole blocks in the layout of ARM.
fn pack_arm(codes: &[i8], _: [u8; 2], out: &mut Vec<u8>) {
    pack_of::<64, 16>(codes, out);
}

fn pack_of<const WEIGHTS: usize, const BYTES: usize>(codes: &[i8], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<WEIGHTS>().0 {
        for m in 0..BYTES {
            let byte = (0..4).fold(0u8, |b, n| b | ((block[BYTES * n + m] + 1) as u8) << (6 - 2 * n));
            out.push(byte);
        }
    }
}

/// The codes of whole blocks in the layout of x86. A code of 3 becomes 2, which the caller refuses.
fn unpack(bytes: &[u8], codes: &mut [i8]) {
    unpack_of::<128, 32>(bytes, codes);
}

/// The codes of whole blocks in the layout of ARM, likewise.
fn unpack_arm(bytes: &[u8], codes: &mut [i8]) {
    unpack_of::<64, 16>(bytes, codes);
}

fn unpack_of<const WEIGHTS: usize, const BYTES: usize>(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<WEIGHTS>().0.iter_mut().zip(blocks) {
        for (n, codes) in codes.as_chunks_mut::<BYTES>().0.iter_mut().enumerate() {
            for (code, byte) in codes.iter_mut().zip(block) {
                *code = (byte >> (6 - 2 * n) & 3) as i8 - 1;
            }
        }
    }
}
