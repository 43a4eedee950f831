//! Weights to blocks of Q6_K, as ggml's reference quantizer makes them.

use half::f16;

use super::{BLOCK, BLOCK_BYTES, D, GROUP, GROUPS, HIGH, SCALES, row_bytes};

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
