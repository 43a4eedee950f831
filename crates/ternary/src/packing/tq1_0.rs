//! TQ1_0: 256 weights in 52 bytes of base-3 digits, then an f16 scale (`block_tq1_0` of ggml).
//!
//! 256 = 5·32 + 5·16 + 4·4: three groups whose bytes each hold digits of weights a fixed stride apart, the first
//! weight most significant. A byte is `ceil(q · 256 / 243)`, so that a digit comes out by multiplication alone:
//! digit n is `((byte · 3ⁿ mod 256) · 3) >> 8`.

/// Bytes of a block.
pub(super) const BYTES: usize = 54;

/// (first weight, bytes, digits a byte) of each group; a group's stride is its number of bytes.
const GROUPS: [(usize, usize, u32); 3] = [(0, 32, 5), (160, 16, 5), (240, 4, 4)];

/// Appends one block with scale `d` (f16, little endian).
pub(super) fn pack(codes: &[i8; 256], d: [u8; 2], out: &mut Vec<u8>) {
    for (first, bytes, digits) in GROUPS {
        for m in 0..bytes {
            let q = (0..5).fold(0u16, |q, n| {
                let digit = if n < digits { (codes[first + bytes * n as usize + m] + 1) as u16 } else { 0 };
                q * 3 + digit
            });
            out.push((q * 256).div_ceil(243) as u8);
        }
    }
    out.extend_from_slice(&d);
}

/// Appends the 256 codes of a block and returns its scale.
pub(super) fn unpack(block: &[u8; BYTES], codes: &mut Vec<i8>) -> f32 {
    let mut at = 0;
    for (_, bytes, digits) in GROUPS {
        for n in 0..digits {
            for byte in &block[at..at + bytes] {
                let shifted = u16::from(byte.wrapping_mul(3u8.pow(n)));
                codes.push(((shifted * 3) >> 8) as i8 - 1);
            }
        }
        at += bytes;
    }
    half::f16::from_le_bytes([block[52], block[53]]).to_f32()
}
