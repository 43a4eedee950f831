//! Operands in panels of a few columns, a word of consecutive tokens after the other; the gradient is
//! quantized on the way.
//!
//! A word holds 4 tokens' int8 (AVX-512; activations plus 128, without sign) or 2 tokens' int16. Missing
//! tokens and columns are 0 in the gradient, so that it does not matter what they meet.

use super::Product;
use super::micro::Kernel;
use crate::Rounding;
use crate::counter_rng::code_scale;
use crate::gradient_rows::digit_scales;
use crate::lanes::multiversion;

/// Columns that one task packs, at most; a multiple of every panel's width.
pub(super) const GROUP: usize = 96;

multiversion! {
    /// Packs the gradient's columns from `first` on, all digits of some columns a panel, with the scale and
    /// the sum of codes of each row of each panel.
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
                // Without the sign bit, floats order like their bits, and infinity and NaN lie above all
                // finite values.
                *largest = (*largest).max((dy * s).to_bits() & 0x7fff_ffff);
            }
        }
        let Kernel { rows: width, terms, .. } = product.kernel;
        let digits = product.rounding.digits();
        let part = width / digits;
        let mut inverses = [0f32; GROUP];
        for (c, inverse) in inverses.iter_mut().enumerate().take(count) {
            let (scale, one) = code_scale(largest[c]);
            *inverse = one;
            for (digit, scale) in digit_scales(scale).into_iter().enumerate().take(digits) {
                scales[c / part * width + digit * part + c % part] = scale;
            }
        }
        let mut totals = [[0i32; GROUP]; Rounding::MAX_DIGITS];
        let mut codes = [[[0i8; GROUP]; 4]; Rounding::MAX_DIGITS];
        for (word, (scales, t)) in product.scales.chunks(terms).zip((0..).step_by(terms)).enumerate() {
            codes[..digits].fill([[0; GROUP]; 4]);
            for (i, s) in scales.iter().enumerate() {
                let at = (t + i) * product.outputs + first;
                let row = &product.dy[at..][..count];
                let mut values = [0f32; GROUP];
                for ((v, dy), inverse) in values.iter_mut().zip(row).zip(&inverses) {
                    // An output that is not finite, or is 0, has the inverse 0; NaN · 0 must not become a
                    // code.
                    *v = if *inverse == 0.0 { 0.0 } else { dy * s * inverse };
                }
                product.rounding.split(values, product.first.wrapping_add(at as u32), |digit, split| {
                    codes[digit][i] = *split;
                    for (total, code) in totals[digit].iter_mut().zip(split) {
                        *total += i32::from(*code);
                    }
                });
            }
            for (digit, codes) in codes.iter().enumerate().take(digits) {
                let words = if terms == 4 { bytes_of_four(codes) } else { pairs_of_two(codes) };
                let at = word * width + digit * part;
                match part {
                    12 => spread::<12>(&words, at, panels, stride),
                    6 => spread::<6>(&words, at, panels, stride),
                    4 => spread::<4>(&words, at, panels, stride),
                    3 => spread::<3>(&words, at, panels, stride),
                    _ => spread::<2>(&words, at, panels, stride),
                }
            }
        }
        for (digit, totals) in totals.iter().enumerate().take(digits) {
            for (c, total) in totals.iter().enumerate().take(count) {
                sums[c / part * width + digit * part + c % part] = *total;
            }
        }
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
            let words = if bytes { bytes_of_four(&codes) } else { pairs_of_two(&codes) };
            match product.kernel.columns {
                32 => spread::<32>(&words, word * 32, panels, stride),
                _ => spread::<16>(&words, word * 16, panels, stride),
            }
        }
    }
}

/// A word of every column: a byte of each of 4 tokens.
#[inline(always)]
fn bytes_of_four(codes: &[[i8; GROUP]; 4]) -> [i32; GROUP] {
    let mut words = [0i32; GROUP];
    for (c, out) in words.iter_mut().enumerate() {
        let byte = |t: usize| i32::from(codes[t][c] as u8);
        *out = byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24;
    }
    words
}

/// A word of every column: 16 bits of each of 2 tokens.
#[inline(always)]
fn pairs_of_two(codes: &[[i8; GROUP]; 4]) -> [i32; GROUP] {
    let mut words = [0i32; GROUP];
    for (c, out) in words.iter_mut().enumerate() {
        *out = i32::from(codes[0][c]) & 0xffff | i32::from(codes[1][c]) << 16;
    }
    words
}

/// Puts words of consecutive columns, `N` a panel, at the place `at` of every panel.
#[inline(always)]
fn spread<const N: usize>(words: &[i32; GROUP], at: usize, panels: &mut [i32], stride: usize) {
    for (panel, words) in panels.chunks_exact_mut(stride).zip(words.as_chunks::<N>().0) {
        panel[at..][..N].copy_from_slice(words);
    }
}
