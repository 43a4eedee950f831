//! Many tokens: rows decoded to f32 once, then multiplied four by four.

use super::TILE;
use crate::lanes::{LANES, dot, fma, load, multiversion, sums};

multiversion! {
    /// `y[t][first + i] = row i · x_t`, four rows and four tokens at a time: each in the order of [`dot`].
    pub(super) fn products(rows: &[f32], cols: usize, x: &[f32], first: usize, y: &mut [&mut [f32]]) {
        let count = rows.len() / cols;
        let tokens = y.len();
        let mut t = 0;
        while t < tokens {
            let together = if t + TILE <= tokens { TILE } else { 1 };
            let x = &x[t * cols..(t + together) * cols];
            let mut i = 0;
            while i < count {
                if i + TILE > count || !cols.is_multiple_of(LANES) {
                    for (x, y) in x.chunks_exact(cols).zip(&mut y[t..]) {
                        y[first + i] = dot(&rows[i * cols..(i + 1) * cols], x);
                    }
                    i += 1;
                    continue;
                }
                let rows = &rows[i * cols..(i + TILE) * cols];
                if together == TILE {
                    for (y, sums) in y[t..].iter_mut().zip(tile::<TILE>(rows, x, cols)) {
                        y[first + i..][..TILE].copy_from_slice(&sums);
                    }
                } else {
                    y[t][first + i..][..TILE].copy_from_slice(&tile::<1>(rows, x, cols)[0]);
                }
                i += TILE;
            }
            t += together;
        }
    }
}

/// The dots of T tokens with four rows, [T, 4]; their length is a multiple of 16.
#[inline(always)]
fn tile<const T: usize>(rows: &[f32], x: &[f32], cols: usize) -> [[f32; TILE]; T] {
    assert!(rows.len() == TILE * cols && x.len() == T * cols && cols.is_multiple_of(LANES));
    let mut acc = [[[0f32; LANES]; TILE]; T];
    for i in (0..cols).step_by(LANES) {
        for t in 0..T {
            for r in 0..TILE {
                // SAFETY: i + 16 <= cols as 16 divides cols, and the assertion says that there are TILE rows
                // and T tokens.
                let (row, x) = unsafe { (load(rows, r * cols + i), load(x, t * cols + i)) };
                acc[t][r] = fma(&row, &x, &acc[t][r]);
            }
        }
    }
    let mut out = [[0f32; TILE]; T];
    for t in 0..T {
        out[t] = sums(&acc[t]);
    }
    out
}
