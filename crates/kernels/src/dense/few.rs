//! Few tokens: rows multiplied as they are decoded, bound by memory. The portable form, and the reference of
//! `x86`.

use super::rows::f16_to_f32;
use super::{Q8_0_BYTES, TILE};
use crate::lanes::{LANES, Lanes, fma, multiversion, sums};

multiversion! {
    /// `y[i] = row i · x` of Q8_0 rows, four at a time: each in the order of [`dot`], since a block is two
    /// times sixteen numbers.
    pub(super) fn q8_0_products(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
        let x = x.as_chunks::<LANES>().0;
        for (rows, y) in bytes.chunks(TILE * row_bytes).zip(y.chunks_mut(TILE)) {
            let mut acc = [[0f32; LANES]; TILE];
            if y.len() == TILE {
                let row = |r: usize| rows[r * row_bytes..(r + 1) * row_bytes].as_chunks::<Q8_0_BYTES>().0;
                let blocks = row(0).iter().zip(row(1)).zip(row(2).iter().zip(row(3)));
                for (((a, b), (c, d)), x) in blocks.zip(x.as_chunks::<2>().0) {
                    for (acc, block) in acc.iter_mut().zip([a, b, c, d]) {
                        *acc = q8_0_block(block, x, acc);
                    }
                }
            } else {
                for (row, acc) in rows.chunks_exact(row_bytes).zip(&mut acc) {
                    for (block, x) in row.as_chunks::<Q8_0_BYTES>().0.iter().zip(x.as_chunks::<2>().0) {
                        *acc = q8_0_block(block, x, acc);
                    }
                }
            }
            let len = y.len();
            y.copy_from_slice(&sums(&acc)[..len]);
        }
    }
}

/// `acc + block · x`: code · scale is exact in f32 (8 and 11 bits), so this is the dot with the decoded row.
#[inline(always)]
fn q8_0_block(block: &[u8; Q8_0_BYTES], x: &[Lanes; 2], acc: &Lanes) -> Lanes {
    let d = f16_to_f32([block[0], block[1]]);
    let mut out = *acc;
    for (half, x) in x.iter().enumerate() {
        let mut w = [0f32; LANES];
        for i in 0..LANES {
            w[i] = f32::from(block[2 + half * LANES + i] as i8) * d;
        }
        out = fma(&w, x, &out);
    }
    out
}
