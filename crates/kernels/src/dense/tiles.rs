//! Many tokens: rows decoded to f32 once, then multiplied in tiles.

use super::TILE;
use super::dot_tiles::{Part, Strided, add_products};
use crate::Backend;
use crate::lanes::{LANES, dot, sums};

/// Columns of which rows and tokens of a tile stay in the L1 cache while parts of the lanes pass over them.
const COLUMNS: usize = 512;
/// Tokens whose sums wait in the L1 cache meanwhile: whole tiles of three and of four.
const TOKENS: usize = 12;

/// `y[t][first + i] = row i · x_t`, each in the order of [`dot`].
///
/// # Panics
/// If the lengths do not fit or the processor does not support the backend.
pub(super) fn products(
    backend: Backend,
    rows: &[f32],
    cols: usize,
    x: &[f32],
    first: usize,
    y: &mut [&mut [f32]],
) {
    backend.assert_supported();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")]
        fn avx512(rows: &[f32], cols: usize, x: &[f32], first: usize, y: &mut [&mut [f32]]) {
            // SAFETY: `__m512` needs AVX-512 F, which this function has.
            unsafe { products_with::<__m512>(rows, cols, x, first, y) }
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(rows: &[f32], cols: usize, x: &[f32], first: usize, y: &mut [&mut [f32]]) {
            // SAFETY: `__m256` needs AVX2 and FMA, which this function has.
            unsafe { products_with::<__m256>(rows, cols, x, first, y) }
        }
        match backend {
            // SAFETY: the assertion above says that the processor has the instructions.
            Backend::Avx512Vnni => return unsafe { avx512(rows, cols, x, first, y) },
            // SAFETY: as above.
            Backend::Avx2 | Backend::AvxVnni => return unsafe { avx2(rows, cols, x, first, y) },
            _ => {}
        }
    }
    // SAFETY: four numbers need no instructions but the baseline's.
    unsafe { products_with::<[f32; 4]>(rows, cols, x, first, y) }
}

/// # Safety
/// The caller has the instructions of `P`.
#[inline(always)]
unsafe fn products_with<P: Part>(rows: &[f32], cols: usize, x: &[f32], first: usize, y: &mut [&mut [f32]]) {
    if !cols.is_multiple_of(LANES) {
        for (x, y) in x.chunks_exact(cols).zip(y) {
            for (row, y) in rows.chunks_exact(cols).zip(&mut y[first..]) {
                *y = dot(row, x);
            }
        }
        return;
    }
    // A register of all lanes passes once, over all columns.
    let (columns, tokens) = if P::WIDTH == LANES { (cols, P::TOKENS) } else { (COLUMNS, TOKENS) };
    for (x, y) in x.chunks(tokens * cols).zip(y.chunks_mut(tokens)) {
        for (i, rows) in rows.chunks(TILE * cols).enumerate() {
            let count = rows.len() / cols;
            let mut acc = [[[0f32; LANES]; TILE]; TOKENS];
            let acc = &mut acc[..y.len()];
            for from in (0..cols).step_by(columns) {
                let rows = Strided { numbers: &rows[from..], step: cols };
                let x = Strided { numbers: &x[from..], step: cols };
                // SAFETY: the caller's promise.
                unsafe { add_products::<P>(rows, count, x, columns.min(cols - from), acc) };
            }
            for (y, acc) in y.iter_mut().zip(acc) {
                y[first + i * TILE..][..count].copy_from_slice(&sums(acc)[..count]);
            }
        }
    }
}
