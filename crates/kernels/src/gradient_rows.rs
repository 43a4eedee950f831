//! Gradients for an integer product: every token's row as integers of one, two or three int8 digits.
//!
//! The other factor of a gradient's products is an integer already (a ternary weight, an int8 activation), so
//! a gradient that is rounded to an integer too is multiplied exactly. Written in base 254 with digits in
//! -127..=127, `n = d₀ · 254² + d₁ · 254 + d₂`, it takes one int8 product a digit. Three digits are steps of
//! 2⁻²³ of the largest element: as fine as f32 there, and the sums, unlike those in f32, do not round.
//! (Splitting a factor so that products of narrow numbers are exact is Ozaki's scheme, Numerical Algorithms
//! 59, 2012.)
//!
//! Few digits are rounded stochastically: to the nearest, the many small elements of a gradient would all
//! become 0. Unlike activations ([`crate::quantize_rows`]) gradients have no smallest magnitude: a row's
//! scale follows its largest element, however small.

use crate::counter_rng::{code_scale, nearest_code, round_to_code};
use crate::lanes::multiversion;
use crate::{Backend, CounterRng, QuantizedRows, pool};

/// From this many elements the rows are shared among threads.
const PARALLEL_ELEMENTS: usize = 1 << 16;

/// Elements that one parallel task takes at least.
const TASK_ELEMENTS: usize = 1 << 14;

/// Elements that are split into digits together.
const SPLIT: usize = 64;

/// What one digit is worth in terms of the next.
pub(crate) const BASE: f32 = 254.0;

/// How a gradient becomes integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rounding {
    digits: usize,
    noise: Option<CounterRng>,
}

impl Rounding {
    /// Most digits.
    pub const MAX_DIGITS: usize = 3;

    /// To the nearest integer of so many digits.
    ///
    /// # Panics
    /// If there are no digits, or more than [`Self::MAX_DIGITS`].
    pub fn nearest(digits: usize) -> Self {
        assert!((1..=Self::MAX_DIGITS).contains(&digits), "1 to {} digits, not {digits}", Self::MAX_DIGITS);
        Self { digits, noise: None }
    }

    /// To one of the two integers around a number, the nearer more probably, so that the mean is the number.
    ///
    /// # Panics
    /// As [`Self::nearest`].
    pub fn stochastic(digits: usize, noise: CounterRng) -> Self {
        Self { noise: Some(noise), ..Self::nearest(digits) }
    }

    /// Digits of an integer.
    pub fn digits(self) -> usize {
        self.digits
    }

    /// Splits numbers, at most 127 · (1 + 2⁻²³) in magnitude, of which the first is element `first`: hands
    /// out the codes of each digit.
    #[inline(always)]
    pub(crate) fn split<const N: usize>(
        self,
        mut values: [f32; N],
        first: u32,
        mut take: impl FnMut(usize, &[i8; N]),
    ) {
        for digit in 0..self.digits {
            let mut codes = [0i8; N];
            match self.noise.filter(|_| digit + 1 == self.digits) {
                Some(noise) => {
                    for (i, (code, v)) in codes.iter_mut().zip(&values).enumerate() {
                        *code = round_to_code(*v, noise.bits(first.wrapping_add(i as u32)));
                    }
                }
                None => {
                    for (code, v) in codes.iter_mut().zip(&mut values) {
                        let (nearest, number) = nearest_code(*v);
                        *code = nearest;
                        // Exact but for the last product: at most ½ is left, hence at most 127.
                        *v = (*v - number) * BASE;
                    }
                }
            }
            take(digit, &codes);
        }
    }
}

/// A gradient [tokens, cols] as integers, a row of codes a digit: row `token · digits + digit`, the scale of
/// a digit being a 254th of that of the digit before it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GradientRows {
    rows: QuantizedRows,
    digits: usize,
}

impl GradientRows {
    /// The digits as rows of int8.
    pub fn rows(&self) -> &QuantizedRows {
        &self.rows
    }

    /// Rows a token.
    pub fn digits(&self) -> usize {
        self.digits.max(1)
    }
}

/// Rounds gradients `dy`, [tokens, cols] row-major, into rows whose memory is used again: with `a` the row's
/// largest magnitude, the first digits are the integer nearest to `dy · (127 / a)`, with the scale `a / 127`,
/// the next ones those of 254 times what is left; the last digit may be rounded by the noise of element
/// `token · cols + column` (modulo 2³²). A row of zeros has the scale 0; one with a NaN or an infinity has
/// codes 0 and the scale NaN.
///
/// # Panics
/// If `cols` is 0 or does not divide the length of `dy`.
pub fn quantize_gradient_rows(dy: &[f32], cols: usize, rounding: Rounding, out: &mut GradientRows) {
    assert!(cols > 0 && dy.len().is_multiple_of(cols), "{} gradients are no whole rows of {cols}", dy.len());
    let (tokens, digits) = (dy.len() / cols, rounding.digits);
    out.digits = digits;
    let out = &mut out.rows;
    out.cols = cols;
    // Only growth writes here: every element is overwritten below.
    out.codes.reserve_exact((dy.len() * digits).saturating_sub(out.codes.len()));
    out.codes.resize(dy.len() * digits, 0);
    out.scales.resize(tokens * digits, 0.0);
    out.sums.resize(tokens * digits, 0);
    let backend = Backend::active();
    let tokens_a_task =
        if dy.len() < PARALLEL_ELEMENTS { tokens.max(1) } else { TASK_ELEMENTS.div_ceil(cols) };
    let rows_a_task = tokens_a_task * digits;
    let tasks = (dy.chunks(tokens_a_task * cols).zip(out.codes.chunks_mut(rows_a_task * cols)))
        .zip(out.scales.chunks_mut(rows_a_task).zip(out.sums.chunks_mut(rows_a_task)))
        .enumerate();
    pool::for_each(tasks, |(task, ((dy, codes), (scales, sums)))| {
        let rows = dy.chunks_exact(cols).zip(codes.chunks_exact_mut(cols * digits));
        let numbers = scales.chunks_exact_mut(digits).zip(sums.chunks_exact_mut(digits));
        for (i, ((dy, codes), (scales, sums))) in rows.zip(numbers).enumerate() {
            let first = ((task * tokens_a_task + i) * cols) as u32;
            quantize_row(backend, dy, rounding, first, codes, scales, sums);
        }
    });
}

/// The scales of digits, from that of the first.
pub(crate) fn digit_scales(first: f32) -> [f32; Rounding::MAX_DIGITS] {
    [first, first / BASE, first / (BASE * BASE)]
}

multiversion! {
    /// One row, whose first element has number `first`: the codes [digits, cols], scales and sums of codes of
    /// its digits.
    fn quantize_row(
        row: &[f32],
        rounding: Rounding,
        first: u32,
        codes: &mut [i8],
        scales: &mut [f32],
        sums: &mut [i32],
    ) {
        // Without the sign bit, floats order like their bits, and infinity and NaN lie above all finite
        // values.
        let largest = row.iter().fold(0, |max: u32, x| max.max(x.to_bits() & 0x7fff_ffff));
        let (scale, inverse) = code_scale(largest);
        scales.copy_from_slice(&digit_scales(scale)[..scales.len()]);
        sums.fill(0);
        if inverse == 0.0 {
            codes.fill(0);
            return;
        }
        let (whole, rest) = row.as_chunks::<SPLIT>();
        for (i, block) in whole.iter().enumerate() {
            let at = i * SPLIT;
            rounding.split(block.map(|x| x * inverse), first.wrapping_add(at as u32), |digit, split| {
                codes[digit * row.len() + at..][..SPLIT].copy_from_slice(split);
                sums[digit] += split.iter().map(|code| i32::from(*code)).sum::<i32>();
            });
        }
        if !rest.is_empty() {
            let at = row.len() - rest.len();
            let mut block = [0f32; SPLIT];
            block.iter_mut().zip(rest).for_each(|(v, x)| *v = x * inverse);
            rounding.split(block, first.wrapping_add(at as u32), |digit, split| {
                codes[digit * row.len() + at..][..rest.len()].copy_from_slice(&split[..rest.len()]);
                sums[digit] += split[..rest.len()].iter().map(|code| i32::from(*code)).sum::<i32>();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, element by element.
    fn definition(dy: &[f32], cols: usize, rounding: Rounding) -> QuantizedRows {
        let (mut codes, mut scales) = (Vec::new(), Vec::new());
        for (t, row) in dy.chunks_exact(cols).enumerate() {
            let largest = row.iter().fold(0f32, |a, x| a.max(x.abs()));
            let whole = row.iter().all(|x| x.is_finite());
            let mut left: Vec<f32> = row.iter().map(|x| x * (127.0 / largest)).collect();
            for digit in 0..rounding.digits {
                let scale = if whole { largest / 127.0 } else { f32::NAN };
                scales.push([scale, scale / 254.0, scale / 64516.0][digit]);
                for (i, v) in left.iter_mut().enumerate() {
                    if !(whole && largest > 0.0) {
                        codes.push(0);
                        continue;
                    }
                    let code = match rounding.noise {
                        Some(noise) if digit + 1 == rounding.digits => {
                            round_to_code(*v, noise.bits((t * cols + i) as u32))
                        }
                        _ => v.round_ties_even() as i8,
                    };
                    codes.push(code);
                    *v = (*v - f32::from(code)) * 254.0;
                }
            }
        }
        QuantizedRows::from_codes(codes, scales, cols)
    }

    fn gradient(tokens: usize, cols: usize) -> Vec<f32> {
        (0..tokens * cols)
            .map(|i| ((i * 7919 % 10007) as f32 - 5003.0) * if i / cols == 2 { 0.0 } else { 1e-9 })
            .collect()
    }

    fn roundings() -> [Rounding; 4] {
        let noise = CounterRng::new(3, 1, 4);
        [
            Rounding::stochastic(1, noise),
            Rounding::stochastic(2, noise),
            Rounding::nearest(2),
            Rounding::nearest(3),
        ]
    }

    #[test]
    fn every_backend_and_number_of_threads_gives_the_definition() {
        for rounding in roundings() {
            for (tokens, cols) in [(0, 5), (1, 1), (3, 17), (5, 64), (9, 100), (700, 131)] {
                let dy = gradient(tokens, cols);
                let expected = definition(&dy, cols, rounding);
                for threads in [1, 3] {
                    crate::set_threads(threads);
                    let mut out = GradientRows::default();
                    quantize_gradient_rows(&dy, cols, rounding, &mut out);
                    assert_eq!(out.rows, expected, "[{tokens}, {cols}], {rounding:?}");
                }
                let digits = rounding.digits;
                for backend in Backend::supported() {
                    for (t, row) in dy.chunks_exact(cols).enumerate() {
                        let (mut codes, first) = (vec![0; digits * cols], (t * cols) as u32);
                        let (mut scales, mut sums) = (vec![0.0; digits], vec![0; digits]);
                        quantize_row(backend, row, rounding, first, &mut codes, &mut scales, &mut sums);
                        assert_eq!(codes, expected.codes[t * digits * cols..][..digits * cols], "{backend}");
                        assert_eq!(scales, expected.scales[t * digits..][..digits], "{backend}");
                        assert_eq!(sums, expected.sums[t * digits..][..digits], "{backend}");
                    }
                }
            }
        }
    }

    #[test]
    fn digits_add_up_to_the_gradient() {
        let (tokens, cols) = (7, 1003);
        let dy: Vec<f32> = (gradient(tokens, cols).iter().enumerate())
            // Of all magnitudes, as gradients are.
            .map(|(i, x)| x * (-((i * 31 % 24) as f32)).exp2())
            .collect();
        for digits in 1..=3 {
            let mut out = GradientRows::default();
            quantize_gradient_rows(&dy, cols, Rounding::nearest(digits), &mut out);
            for (t, row) in dy.chunks_exact(cols).enumerate() {
                let largest = f64::from(row.iter().fold(0f32, |a, x| a.max(x.abs())));
                // Half a step, and what f32 loses of the product with the inverse and of the scales.
                let bound = largest * (0.5 / 127.0 / 254f64.powi(digits as i32 - 1) + 2f64.powi(-23));
                for (i, x) in row.iter().enumerate() {
                    let part = |digit: usize| {
                        let row = t * digits + digit;
                        f64::from(out.rows.codes[row * cols + i]) * f64::from(out.rows.scales[row])
                    };
                    let sum: f64 = (0..digits).map(part).sum();
                    assert!((sum - f64::from(*x)).abs() <= bound, "{digits} digits: {sum} for {x}");
                }
            }
        }
    }

    #[test]
    fn a_row_that_is_not_finite_has_no_scale() {
        let dy = [1.0, -2.0, f32::NAN, 1.0, f32::INFINITY, 0.0, 0.0, -0.0];
        for rounding in roundings() {
            let mut out = GradientRows::default();
            quantize_gradient_rows(&dy, 2, rounding, &mut out);
            let digits = rounding.digits;
            let scale = |row: usize| out.rows.scales[row * digits];
            assert!(out.rows.scales[digits..3 * digits].iter().all(|scale| scale.is_nan()));
            assert_eq!((scale(0), scale(3)), (2.0 / 127.0, 0.0));
            assert_eq!(out.rows.codes[1], -127);
            assert!(out.rows.codes[2 * digits..].iter().all(|code| *code == 0));
        }
    }
}
