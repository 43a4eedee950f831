//! TQ1_0: 256 weights in 52 bytes of base-3 digits, then an f16 scale (`block_tq1_0` of ggml).
//!
//! 256 = 5·32 + 5·16 + 4·4: three groups whose bytes each hold digits of weights a fixed stride apart, the
//! first weight most significant. A byte is `ceil(q · 256 / 243)`, so that a digit comes out by
//! multiplication alone: digit n is `((byte · 3ⁿ mod 256) · 3) >> 8`.

/// Bytes of a block.
pub(super) const BYTES: usize = 54;

/// (first weight, bytes, digits a byte) of each group; a group's stride is its number of bytes.
const GROUPS: [(usize, usize, u32); 3] = [(0, 32, 5), (160, 16, 5), (240, 4, 4)];

/// Appends whole blocks with scale `d` (f16, little endian).
pub(super) fn pack(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for codes in codes.as_chunks::<256>().0 {
        for (first, bytes, digits) in GROUPS {
            for m in 0..bytes {
                let digit = |n: u32| (codes[first + bytes * n as usize + m] + 1) as u16;
                let q = (0..5).fold(0u16, |q, n| q * 3 + if n < digits { digit(n) } else { 0 });
                out.push((q * 256).div_ceil(243) as u8);
            }
        }
        out.extend_from_slice(&d);
    }
}

/// The codes of whole blocks; every byte holds digits, so every code is ternary.
pub(super) fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<256>().0.iter_mut().zip(blocks) {
        group::<32, 5>(&block[..32], &mut codes[..160]);
        group::<16, 5>(&block[32..48], &mut codes[160..240]);
        group::<4, 4>(&block[48..52], &mut codes[240..]);
    }
}

/// One group: `N` bytes of `DIGITS` digits.
#[inline]
fn group<const N: usize, const DIGITS: u32>(bytes: &[u8], codes: &mut [i8]) {
    for (codes, n) in codes.as_chunks_mut::<N>().0.iter_mut().zip(0..DIGITS) {
        for (code, byte) in codes.iter_mut().zip(bytes) {
            let shifted = u16::from(byte.wrapping_mul(3u8.pow(n)));
            *code = ((shifted * 3) >> 8) as i8 - 1;
        }
    }
}
