//! A layout that only tests have: blocks of 32 weights, two a byte, after an f16 scale. This file and its line in
//! [`super::Packing`] are all that it takes; the tests of all layouts ([`super::tests`]) are its tests too.

use super::layout::{Layout, ScalePlace};

pub(super) const LAYOUT: Layout = Layout {
    name: "NIBBLES",
    option: "nibbles",
    ggml: "NIBBLES",
    bytes_of: "NIBBLES bytes",
    help: "4.5 bits per weight",
    file_type: 1024,
    block: 32,
    bytes: 18,
    scales: ScalePlace::Block,
    scale_bytes: 2,
    scale_at: 0,
    pack,
    unpack,
};

fn pack(codes: &[i8], d: [u8; 2], out: &mut Vec<u8>) {
    for block in codes.as_chunks::<32>().0 {
        out.extend_from_slice(&d);
        out.extend(block.as_chunks::<2>().0.iter().map(|two| (two[0] + 1) as u8 | ((two[1] + 1) as u8) << 4));
    }
}

fn unpack(bytes: &[u8], codes: &mut [i8]) {
    let blocks = bytes.as_chunks::<18>().0;
    for (codes, block) in codes.as_chunks_mut::<32>().0.iter_mut().zip(blocks) {
        for (two, byte) in codes.as_chunks_mut::<2>().0.iter_mut().zip(&block[2..]) {
            *two = [(byte & 3) as i8 - 1, (byte >> 4 & 3) as i8 - 1];
        }
    }
}
