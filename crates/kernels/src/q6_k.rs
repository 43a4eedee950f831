//! Q6_K matrices (`block_q6_K` of ggml): 6.5625 bits a weight, for the output head and the embedding.
//!
//! A block of 256 weights is 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, sixteen int8
//! scales, one f16 scale `d`. A weight is `d · scale · (code − 32)`: at most 11 + 7 + 5 significant bits, so
//! it is exact in f32, and a product with decoded rows and one that decodes as it multiplies agree bit for
//! bit.

use half::f16;

use crate::Backend;
use crate::lanes::{LANES, Lanes, sum};
use crate::vector::{Vector, f16_bits_to_f32, prefetch};

/// Weights of a block.
pub(crate) const BLOCK: usize = 256;
/// Bytes of a block.
const BLOCK_BYTES: usize = 210;
/// Weights that share an int8 scale.
const GROUP: usize = 16;
/// Groups of a block.
const GROUPS: usize = BLOCK / GROUP;
/// Where the parts of a block begin.
const HIGH: usize = 128;
const SCALES: usize = 192;
const D: usize = 208;
/// Rows whose products are computed together.
const TILE: usize = 4;

/// Bytes of a row of `cols` weights.
///
/// # Panics
/// If 256 does not divide them.
pub(crate) fn row_bytes(cols: usize) -> usize {
    assert!(cols.is_multiple_of(BLOCK), "Q6_K stores blocks of 256, a row has {cols}");
    cols / BLOCK * BLOCK_BYTES
}

/// A row as f32 numbers.
///
/// # Panics
/// If `bytes` are not the blocks of `out`.
pub(crate) fn decode_row(bytes: &[u8], out: &mut [f32]) {
    assert_eq!(bytes.len(), row_bytes(out.len()), "bytes of {} weights", out.len());
    let mut codes = [0i8; BLOCK];
    for (block, out) in bytes.as_chunks::<BLOCK_BYTES>().0.iter().zip(out.chunks_exact_mut(BLOCK)) {
        unpack(block, &mut codes);
        let scales = scales(block);
        for (i, (x, code)) in out.iter_mut().zip(&codes).enumerate() {
            *x = f32::from(*code) * scales[i / GROUP];
        }
    }
}

/// The codes − 32 of a block, in the order of the weights.
#[inline(always)]
fn unpack(block: &[u8; BLOCK_BYTES], codes: &mut [i8; BLOCK]) {
    // Each half has 64 bytes of nibbles and 32 of bit pairs for 4 × 32 weights.
    for half in 0..2 {
        let low = &block[half * 64..][..64];
        let high = &block[HIGH + half * 32..][..32];
        let codes = &mut codes[half * 128..][..128];
        for l in 0..32 {
            codes[l] = ((low[l] & 15) | (high[l] << 4 & 0x30)).wrapping_sub(32) as i8;
            codes[l + 32] = ((low[l + 32] & 15) | (high[l] << 2 & 0x30)).wrapping_sub(32) as i8;
            codes[l + 64] = ((low[l] >> 4) | (high[l] & 0x30)).wrapping_sub(32) as i8;
            codes[l + 96] = ((low[l + 32] >> 4) | (high[l] >> 2 & 0x30)).wrapping_sub(32) as i8;
        }
    }
}

/// `d · scale` of each group: exact.
#[inline(always)]
fn scales(block: &[u8; BLOCK_BYTES]) -> [f32; GROUPS] {
    let d = f16_bits_to_f32(u16::from_le_bytes([block[D], block[D + 1]]));
    let mut out = [0f32; GROUPS];
    for i in 0..GROUPS {
        out[i] = f32::from(block[SCALES + i] as i8) * d;
    }
    out
}

/// `y[i] = row i · x` for rows of `row_bytes` bytes each, decoded as they are multiplied: the bits are those
/// of a product with [`decode_row`]'s numbers in the order of the other dense types, on every backend.
///
/// # Panics
/// If the lengths do not fit or the processor does not support the backend.
pub(crate) fn products(backend: Backend, bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
    backend.assert_supported();
    assert_eq!(row_bytes, self::row_bytes(x.len()), "bytes of a row of {} weights", x.len());
    assert_eq!(bytes.len(), y.len() * row_bytes, "bytes of {} rows", y.len());
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__m256, __m512};

        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")]
        fn avx512(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
            // SAFETY: `__m512` needs AVX-512 F, which this function has.
            unsafe { products_with::<__m512>(bytes, row_bytes, x, y) }
        }
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
            // SAFETY: `[__m256; 2]` needs AVX2, FMA and F16C, which this function has.
            unsafe { products_with::<[__m256; 2]>(bytes, row_bytes, x, y) }
        }
        match backend {
            // SAFETY: the assertion above says that the processor has the instructions.
            Backend::Avx512Vnni => return unsafe { avx512(bytes, row_bytes, x, y) },
            // SAFETY: as above.
            Backend::Avx2 => return unsafe { avx2(bytes, row_bytes, x, y) },
            _ => {}
        }
    }
    // SAFETY: `Lanes` needs no instructions but the baseline's.
    unsafe { products_with::<Lanes>(bytes, row_bytes, x, y) }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn products_with<V: Vector>(bytes: &[u8], row_bytes: usize, x: &[f32], y: &mut [f32]) {
    for (rows, y) in bytes.chunks(TILE * row_bytes).zip(y.chunks_mut(TILE)) {
        if y.len() == TILE {
            // SAFETY: the caller's promise.
            unsafe { products_of_rows::<V, TILE>(rows, row_bytes, x, y) }
        } else {
            for (row, y) in rows.chunks_exact(row_bytes).zip(y.chunks_mut(1)) {
                // SAFETY: the caller's promise.
                unsafe { products_of_rows::<V, 1>(row, row_bytes, x, y) }
            }
        }
    }
}

/// # Safety
/// The caller has the instructions of `V`.
#[inline(always)]
unsafe fn products_of_rows<V: Vector, const R: usize>(
    rows: &[u8],
    row_bytes: usize,
    x: &[f32],
    y: &mut [f32],
) {
    let mut codes = [[0i8; BLOCK]; R];
    let mut scales_of = [[0f32; GROUPS]; R];
    // SAFETY: the caller's promise; a group is sixteen codes of a row's 256, and sixteen of the 256 numbers
    // of x.
    unsafe {
        let mut acc = [V::zero(); R];
        for (i, x) in x.as_chunks::<BLOCK>().0.iter().enumerate() {
            for r in 0..R {
                let bytes = &rows[r * row_bytes + i * BLOCK_BYTES..];
                let block = bytes.first_chunk().expect("a row has as many blocks as x");
                // The same block of the rows that follow.
                for line in (0..BLOCK_BYTES).step_by(64) {
                    prefetch(block.as_ptr().wrapping_add(R * row_bytes + line));
                }
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

/// The Q6_K blocks of a row-major matrix, as ggml's reference quantizer makes them (`quantize_row_q6_K_ref`).
///
/// # Panics
/// If 256 does not divide the length.
pub fn f32_to_q6_k(values: &[f32]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(row_bytes(values.len()));
    for values in values.as_chunks::<BLOCK>().0 {
        bytes.extend_from_slice(&quantize(values));
    }
    bytes
}

/// What ggml takes for zero.
const TINY: f32 = 1e-15;

/// One block: a scale for each group, then int8 multiples of one scale for all, then codes for these.
fn quantize(values: &[f32; BLOCK]) -> [u8; BLOCK_BYTES] {
    let groups = values.as_chunks::<GROUP>().0;
    let mut block = [0u8; BLOCK_BYTES];
    let mut codes = [0u8; BLOCK];
    let mut scales = [0f32; GROUPS];
    let mut largest = 0f32;
    for ((group, codes), scale) in groups.iter().zip(codes.as_chunks_mut::<GROUP>().0).zip(&mut scales) {
        *scale = best_scale(group, codes);
        if scale.abs() > largest.abs() {
            largest = *scale;
        }
    }
    if largest.abs() < TINY {
        return block;
    }
    let inverse = -128.0 / largest;
    let d = f16::from_f32(1.0 / inverse);
    for (i, group) in groups.iter().enumerate() {
        let scale = nearest(inverse * scales[i]).min(127) as i8;
        block[SCALES + i] = scale as u8;
        let step = d.to_f32() * f32::from(scale);
        if step != 0.0 {
            for (code, x) in codes[i * GROUP..].iter_mut().zip(group) {
                *code = (nearest(x / step).clamp(-32, 31) + 32) as u8;
            }
        }
    }
    for half in 0..2 {
        let codes = &codes[half * 128..][..128];
        for l in 0..32 {
            let [a, b, c, d] = [codes[l], codes[l + 32], codes[l + 64], codes[l + 96]];
            block[half * 64 + l] = (a & 15) | (c & 15) << 4;
            block[half * 64 + 32 + l] = (b & 15) | (d & 15) << 4;
            block[HIGH + half * 32 + l] = (a >> 4) | (b >> 4) << 2 | (c >> 4) << 4 | (d >> 4) << 6;
        }
    }
    block[D..].copy_from_slice(&d.to_le_bytes());
    block
}

/// The scale of a group, the best of nineteen in squared error weighted by x² (`make_qx_quants`), with its
/// codes + 32.
fn best_scale(x: &[f32; GROUP], codes: &mut [u8; GROUP]) -> f32 {
    let mut max = 0f32;
    for x in x {
        if x.abs() > max.abs() {
            max = *x;
        }
    }
    if max.abs() < TINY {
        *codes = [0; GROUP];
        return 0.0;
    }
    let code = |inverse: f32, x: f32| nearest(inverse * x).clamp(-32, 31);
    // Σ w·x·l and Σ w·l² in ggml's order, w = x².
    let sums = |inverse: f32| {
        x.iter().fold((0f32, 0f32), |(lx, l2), x| {
            let (l, w) = (code(inverse, *x) as f32, x * x);
            (lx + w * x * l, l2 + w * l * l)
        })
    };
    let mut chosen = -32.0 / max;
    let (lx, l2) = sums(chosen);
    let mut scale = if l2 == 0.0 { 0.0 } else { lx / l2 };
    let mut best = scale * lx;
    for step in (-9..=9).filter(|step| *step != 0) {
        let inverse = -(32.0 + 0.1 * step as f32) / max;
        let (lx, l2) = sums(inverse);
        if l2 > 0.0 && lx * lx > best * l2 {
            chosen = inverse;
            scale = lx / l2;
            best = scale * lx;
        }
    }
    for (code_of, x) in codes.iter_mut().zip(x) {
        *code_of = (code(chosen, *x) + 32) as u8;
    }
    scale
}

/// The nearest integer, half to even.
fn nearest(x: f32) -> i32 {
    x.round_ties_even() as i32
}
