//! Operands in panels of a few columns, a word of consecutive tokens after the other; the gradient is quantized on the way.
//!
//! A word holds 4 tokens' int8 (AVX-512; activations plus 128, without sign) or 2 tokens' int16. Missing tokens and columns are 0 in
//! the gradient, so that it does not matter what they meet.

use super::Product;
use crate::lanes::multiversion;
use crate::noise::{code_scale, round_to_code};

/// Columns that one task packs, at most; a multiple of every panel's width.
pub(super) const GROUP: usize = 96;

multiversion! {
    /// Packs the gradient's columns from `first` on, with the scale and the sum of codes of each.
    pub(super) fn pack_gradient(
        product: &Product<'_>,
        first: usize,
        panels: &mut [i32],
        stride: usize,
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        let count = GROUP.min(product.outputs - first);
        let rows = || product.dy.chunks_exact(product.outputs).map(|row| &row[first..][..count]);
        let mut largest = [0u32; GROUP];
        for (row, s) in rows().zip(product.scales) {
            for (largest, dy) in largest.iter_mut().zip(row) {
                // Without the sign bit, floats order like their bits, and infinity and NaN lie above all finite values.
                *largest = (*largest).max((dy * s).to_bits() & 0x7fff_ffff);
            }
        }
        let mut inverses = [0f32; GROUP];
        for (i, scale) in scales.iter_mut().enumerate().take(count) {
            (*scale, inverses[i]) = code_scale(largest[i]);
        }
        let mut totals = [0i32; GROUP];
        let terms = product.kernel.terms;
        let mut codes = [[0i8; GROUP]; 4];
        for (word, (scales, t)) in product.scales.chunks(terms).zip((0..).step_by(terms)).enumerate() {
            codes.fill([0; GROUP]);
            for (i, s) in scales.iter().enumerate() {
                let at = (t + i) * product.outputs + first;
                let number = product.first.wrapping_add(at as u32);
                let row = &product.dy[at..][..count];
                for (c, (code, dy)) in codes[i].iter_mut().zip(row).enumerate() {
                    // An output that is not finite, or is 0, has the inverse 0; NaN · 0 must not become a code.
                    let v = if inverses[c] == 0.0 { 0.0 } else { dy * s * inverses[c] };
                    *code = round_to_code(v, product.noise.bits(number.wrapping_add(c as u32)));
                    totals[c] += i32::from(*code);
                }
            }
            match product.kernel.rows {
                12 => interleave_bytes::<12>(&codes, word, panels, stride),
                width => interleave_pairs(&codes, width, word, panels, stride),
            }
        }
        sums.iter_mut().zip(totals).for_each(|(sum, total)| *sum = total);
    }
}

multiversion! {
    /// Packs the activations' columns from `first` on.
    pub(super) fn pack_activations(product: &Product<'_>, first: usize, panels: &mut [i32], stride: usize) {
        let count = GROUP.min(product.inputs - first);
        let terms = product.kernel.terms;
        let bytes = terms == 4;
        for (word, rows) in product.x.chunks(terms * product.inputs).enumerate() {
            let mut codes = [[0i8; GROUP]; 4];
            for (codes, row) in codes.iter_mut().zip(rows.chunks_exact(product.inputs)) {
                for (code, x) in codes.iter_mut().zip(&row[first..][..count]) {
                    // As a byte without sign, x + 128.
                    *code = if bytes { (*x as u8 ^ 0x80) as i8 } else { *x };
                }
            }
            if bytes {
                interleave_bytes::<32>(&codes, word, panels, stride);
            } else {
                interleave_pairs(&codes, product.kernel.columns, word, panels, stride);
            }
        }
    }
}

/// Word number `word` of every panel of `W` columns: a byte of each of 4 tokens.
#[inline(always)]
fn interleave_bytes<const W: usize>(
    codes: &[[i8; GROUP]; 4],
    word: usize,
    panels: &mut [i32],
    stride: usize,
) {
    let mut words = [0i32; GROUP];
    for (c, out) in words.iter_mut().enumerate() {
        let byte = |t: usize| i32::from(codes[t][c] as u8);
        *out = byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
    }
    for (panel, words) in panels.chunks_exact_mut(stride).zip(words.as_chunks::<W>().0) {
        panel[word * W..][..W].copy_from_slice(words);
    }
}

/// Word number `word` of every panel of `width` columns: 16 bits of each of 2 tokens.
#[inline(always)]
fn interleave_pairs(codes: &[[i8; GROUP]; 4], width: usize, word: usize, panels: &mut [i32], stride: usize) {
    let mut words = [0i32; GROUP];
    for (c, out) in words.iter_mut().enumerate() {
        *out = i32::from(codes[0][c]) & 0xffff | i32::from(codes[1][c]) << 16;
    }
    for (panel, words) in panels.chunks_exact_mut(stride).zip(words.chunks_exact(width)) {
        panel[word * width..][..width].copy_from_slice(words);
    }
}
