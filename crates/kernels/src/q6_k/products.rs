//! Products with rows of Q6_K for few tokens, decoded as they are multiplied.

use super::{BLOCK, BLOCK_BYTES, GROUP, GROUPS, scales, unpack};
use crate::Backend;
use crate::lanes::{LANES, Lanes, sum};
use crate::vector::{Vector, prefetch};

/// Rows whose products are computed together.
const TILE: usize = 4;
/// Tokens at most.
pub(crate) const MOST_TOKENS: usize = 8;

/// `y[t][i] = row i · x_t` for rows of `row_bytes` bytes each and at most [`MOST_TOKENS`] tokens: the bits are those of
/// a product with [`super::decode_row`]'s numbers in the order of the other dense types, on every backend.
///
/// # Panics
/// If the lengths do not fit or the processor does not support the backend.
pub(crate) fn products(backend: Backend, bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [&mut [f32]]) {
    backend.assert_supported();
    assert!((1..=MOST_TOKENS).contains(&y.len()) && x.len().is_multiple_of(y.len()), "{} tokens", y.len());
    let cols = x.len() / y.len();
    assert_eq!(row_bytes, super::row_bytes(cols), "bytes of a row of {cols} weights");
    assert!(y.iter().all(|y| bytes.len() == y.len() * row_bytes), "bytes of {} rows", y[0].len());
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn avx512(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [&mut [f32]]) {
            // SAFETY: `__m512` needs AVX-512 F, which this function has.
            unsafe { products_with::<__m512>(bytes, row_bytes, x, y) }
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [&mut [f32]]) {
            // SAFETY: `[__m256; 2]` needs AVX2, FMA and F16C, which this function has.
            unsafe { products_with::<[__m256; 2]>(bytes, row_bytes, x, y) }
        }
        match backend {
            // SAFETY: the assertion above says that the processor has the instructions.
            Backend::Avx512Vnni => return unsafe { avx512(bytes, row_bytes, x, y) },
            // SAFETY: as above.
            Backend::Avx2 | Backend::AvxVnni => return unsafe { avx2(bytes, row_bytes, x, y) },
            _ => {}
        }
    }
    // SAFETY: `Lanes` needs no instructions but the baseline's.
    unsafe { products_with::<Lanes>(bytes, row_bytes, x, y) }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn products_with<V: Vector>(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [&mut [f32]]) {
    for (i, rows) in bytes.chunks(TILE * row_bytes).enumerate() {
        let (first, count) = (i * TILE, rows.len() / row_bytes);
        // SAFETY: the caller's promise; the lengths are asserted in `products`.
        unsafe {
            match (&mut *y, count) {
                ([y], TILE) => one_token::<V, TILE>(rows, row_bytes, x, &mut y[first..]),
                ([y], _) => {
                    for (r, row) in rows.chunks_exact(row_bytes).enumerate() {
                        one_token::<V, 1>(row, row_bytes, x, &mut y[first + r..]);
                    }
                }
                (y, _) => several_tokens::<V>(rows, row_bytes, x, first, y),
            }
        }
    }
}

/// # Safety
/// The caller has the instructions of `V`; there are R rows and places for as many products.
#[inline(always)]
unsafe fn one_token<V: Vector, const R: usize>(rows: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
    let mut codes = [[0i8; BLOCK]; R];
    let mut scales_of = [[0f32; GROUPS]; R];
    // SAFETY: the caller's promise; a group is sixteen codes of a row's 256, and sixteen of the 256 numbers
    // of x.
    unsafe {
        let mut acc = [V::zero(); R];
        for (i, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            for r in 0..R {
                let block = block(rows, row_bytes, r, i, R);
                unpack(block, &mut codes[r]);
                scales_of[r] = scales(block);
            }
            for group in 0..GROUPS {
                let x = V::load(x.as_ptr().add(group * GROUP));
                for r in 0..R {
                    let weights = V::load_i8(codes[r].as_ptr().add(group * GROUP)).scale(scales_of[r][group]);
                    acc[r] = weights.mul_add(x, acc[r]);
                }
            }
        }
        let mut lanes = [[0f32; LANES]; R];
        for r in 0..R {
            acc[r].store(lanes[r].as_mut_ptr());
            y[r] = sum(&lanes[r]);
        }
    }
}

/// The weights of a block for some rows.
type Weights = [[f32; BLOCK]; TILE];

/// The sums of some tokens and rows, which wait in the L1 cache while other tokens use the weights of a block.
type Sums = [[Lanes; TILE]; MOST_TOKENS];

/// Every block is decoded once for all tokens.
///
/// # Safety
/// The caller has the instructions of `V`; there are at most [`TILE`] rows, and places for their products from `first` on.
#[inline(always)]
unsafe fn several_tokens<V: Vector>(
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
    first: usize,
    y: &mut [&mut [f32]],
) {
    let (tokens, count) = (y.len(), rows.len() / row_bytes);
    let cols = x.len() / tokens;
    let mut codes = [0i8; BLOCK];
    let mut weights: Weights = [[0f32; BLOCK]; TILE];
    let mut acc: Sums = [[[0f32; LANES]; TILE]; MOST_TOKENS];
    for i in 0..cols / BLOCK {
        for (r, weights) in weights[..count].iter_mut().enumerate() {
            let block = block(rows, row_bytes, r, i, count);
            unpack(block, &mut codes);
            let scales = scales(block);
            for group in 0..GROUPS {
                // SAFETY: the caller's promise; sixteen of 256 codes and weights.
                unsafe {
                    let weight = V::load_i8(codes.as_ptr().add(group * GROUP)).scale(scales[group]);
                    weight.store(weights.as_mut_ptr().add(group * GROUP));
                }
            }
        }
        let mut t = 0;
        while t < tokens {
            let x = &x[t * cols + i * BLOCK..];
            let acc = &mut acc[t..];
            // SAFETY: the caller's promise; the tokens t.. have a block at `i`, and sums.
            t += unsafe {
                match tokens - t {
                    1 => tokens_of::<V, 1>(&weights, x, cols, acc, count),
                    2 => tokens_of::<V, 2>(&weights, x, cols, acc, count),
                    3 => tokens_of::<V, 3>(&weights, x, cols, acc, count),
                    _ if V::MANY => tokens_of::<V, 4>(&weights, x, cols, acc, count),
                    _ => tokens_of::<V, 3>(&weights, x, cols, acc, count),
                }
            };
        }
    }
    for (y, acc) in y.iter_mut().zip(&acc) {
        for (y, acc) in y[first..][..count].iter_mut().zip(acc) {
            *y = sum(acc);
        }
    }
}

/// T tokens with `count` rows, as many together as have registers; returns T.
///
/// # Safety
/// As [`block_product`].
#[inline(always)]
unsafe fn tokens_of<V: Vector, const T: usize>(
    weights: &Weights,
    x: &[f32],
    cols: usize,
    acc: &mut [[Lanes; TILE]],
    count: usize,
) -> usize {
    // SAFETY: the caller's promise.
    unsafe {
        let mut r = 0;
        while r < count {
            r += match count - r {
                1 => block_product::<V, 1, T>(weights, x, cols, acc, r),
                4 if V::MANY => block_product::<V, 4, T>(weights, x, cols, acc, r),
                _ => block_product::<V, 2, T>(weights, x, cols, acc, r),
            };
        }
    }
    T
}

/// Adds the products of a block of R rows from `first` on and T tokens; returns R.
///
/// # Safety
/// The caller has the instructions of `V`; `first + R` is at most [`TILE`], and x holds a block at every `cols`-th place
/// for T tokens.
#[inline(always)]
unsafe fn block_product<V: Vector, const R: usize, const T: usize>(
    weights: &Weights,
    x: &[f32],
    cols: usize,
    acc: &mut [[Lanes; TILE]],
    first: usize,
) -> usize {
    debug_assert!(first + R <= TILE && x.len() >= (T - 1) * cols + BLOCK && acc.len() >= T);
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::zero(); R]; T];
        for t in 0..T {
            for r in 0..R {
                sums[t][r] = V::load(acc[t][first + r].as_ptr());
            }
        }
        for at in (0..BLOCK).step_by(LANES) {
            let mut w = [V::zero(); R];
            for r in 0..R {
                w[r] = V::load(weights[first + r].as_ptr().add(at));
            }
            for t in 0..T {
                let x = V::load(x.as_ptr().add(t * cols + at));
                for r in 0..R {
                    sums[t][r] = w[r].mul_add(x, sums[t][r]);
                }
            }
        }
        for t in 0..T {
            for r in 0..R {
                sums[t][r].store(acc[t][first + r].as_mut_ptr());
            }
        }
    }
    R
}

/// Block `i` of row `r`; that of the row `ahead` rows later is asked for.
#[inline(always)]
fn block(rows: &[u8], row_bytes: usize, r: usize, i: usize, ahead: usize) -> &[u8; BLOCK_BYTES] {
    let block: &[u8; BLOCK_BYTES] =
        rows[r * row_bytes + i * BLOCK_BYTES..].first_chunk().expect("a row has as many blocks as x");
    for line in (0..BLOCK_BYTES).step_by(64) {
        prefetch(block.as_ptr().wrapping_add(ahead * row_bytes + line));
    }
    block
}
