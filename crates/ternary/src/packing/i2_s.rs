//! I2_S of bitnet.cpp: the tensor as one stream of blocks, then the f32 scale.
//!
//! x86 builds: blocks of 128 weights in 32 bytes; the code, plus one, of weight j of a block is in byte `j
//! mod 32`, bits `6 − 2·(j div 32)` and up. ARM builds: blocks of 64 weights in 16 bytes; weight j is in byte
//! `j mod 16`, bits `6 − 2·(j div 16)` and up. Both take the same bytes, and nothing in a file of bitnet.cpp
//! says which it is. The scale (the multiplier, mean|W|) stands after the codes, repeated to fill 32 bytes.

/// Weights of which a row must be a multiple: the larger of the two blocks, as readers ask for it.
pub(super) const BLOCK: usize = 128;

/// Bytes of as many codes.
pub(super) const BYTES: usize = BLOCK / 4;

/// Appends the codes of whole blocks in the layout of x86.
pub(super) fn pack(codes: &[i8], _: [u8; 2], out: &mut Vec<u8>) {
    pack_of::<128, 32>(codes, out);
}

/// Appends the codes of whole blocks in the layout of ARM.
pub(super) fn pack_arm(codes: &[i8], _: [u8; 2], out: &mut Vec<u8>) {
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
pub(super) fn unpack(bytes: &[u8], codes: &mut [i8]) {
    unpack_of::<128, 32>(bytes, codes);
}

/// The codes of whole blocks in the layout of ARM, likewise.
pub(super) fn unpack_arm(bytes: &[u8], codes: &mut [i8]) {
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
