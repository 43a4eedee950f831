//! IQ1_BN of ik_llama.cpp: each row is its f16 scale, then blocks of 64 weights in 13 bytes of base-3 digits.
//!
//! 64 = 4·(3·5 + 1): of every 16 weights the first 15 are the digits of three bytes, neighbours together and the first
//! *least* significant; the last is a digit of byte 12, which has one for each 16 (`quantize_one_row_1bn` and
//! `dequantize_row_iq1_bn` of ik_llama.cpp). A byte is `ceil(q · 256 / 243)`, as in TQ1_0: with the digits from the
//! other end, digit n is `((byte · 3⁴⁻ⁿ mod 256) · 3) >> 8`.

use super::layout::{Layout, ScalePlace};

/// Weights in a block.
const BLOCK: usize = 64;

/// Bytes of a block.
const BYTES: usize = 13;

pub(super) const LAYOUT: Layout = Layout {
    name: "IQ1_BN",
    option: "iq1_bn",
    ggml: "IQ1_BN",
    bytes_of: "IQ1_BN bytes",
    help: "1.63 bits per weight, a scale of each row, blocks of 64; ik_llama.cpp",
    file_type: 136,
    block: BLOCK,
    bytes: BYTES,
    scales: ScalePlace::Row,
    scale_bytes: 2,
    scale_at: 0,
    pack,
    unpack,
};

/// A byte of up to five codes, the first least significant.
fn byte(codes: impl DoubleEndedIterator<Item = i8>) -> u8 {
    let q = codes.rev().fold(0u16, |q, code| q * 3 + (code + 1) as u16);
    (q * 256).div_ceil(243) as u8
}

/// Code n of a byte.
fn code(byte: u8, n: usize) -> i8 {
    const POWERS: [u8; 5] = [81, 27, 9, 3, 1];
    ((u16::from(byte.wrapping_mul(POWERS[n])) * 3) >> 8) as i8 - 1
}

/// Appends the codes of whole blocks.
fn pack(codes: &[i8], _: [u8; 2], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<BLOCK>().0 {
        let sixteens = block.as_chunks::<16>().0;
        for codes in sixteens {
            out.extend(codes[..15].as_chunks::<5>().0.iter().map(|five| byte(five.iter().copied())));
        }
        out.push(byte(sixteens.iter().map(|codes| codes[15])));
    }
}

/// The codes of whole blocks; every byte holds digits, so every code is ternary.
fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<BYTES>().0;
    for (codes, block) in codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(blocks) {
        for (i, codes) in codes.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            for (j, value) in codes[..15].iter_mut().enumerate() {
                *value = code(block[3 * i + j / 5], j % 5);
            }
            codes[15] = code(block[12], i);
        }
    }
}
