//! Every backend against the definition, element by element in i64.

use proptest::prelude::*;

use super::*;
use crate::CounterRng;
use crate::counter_rng::code_scale;
use crate::gradient_rows::digit_scales;

fn activations(tokens: usize, inputs: usize, seed: usize) -> QuantizedRows {
    let number = |i: usize| (i + 1).wrapping_mul(2 * seed + 0x9e37_79b9_7f4a_7c15) >> 40;
    let codes = (0..tokens * inputs).map(|i| (number(i) % 256) as u8 as i8).collect();
    QuantizedRows::from_codes(codes, (0..tokens).map(|t| 1e-3 + number(t) as f32 * 1e-7).collect(), inputs)
}

fn gradient(tokens: usize, outputs: usize, seed: usize) -> Vec<f32> {
    (0..tokens * outputs)
        .map(|i| (((i + seed) * 7919 % 10007) as f32 - 5003.0) * 1e-8 * (1 + i % outputs % 3) as f32)
        .collect()
}

/// `dW` of at most [`STRETCH`] tokens, of which the first has number `from`.
fn definition(dy: &[f32], x: &QuantizedRows, rounding: Rounding, from: usize, dw: &mut [f32], add: bool) {
    let outputs = dw.len() / x.cols;
    for (o, dw) in dw.chunks_exact_mut(x.cols).enumerate() {
        let g: Vec<f32> = x.scales.iter().enumerate().map(|(t, s)| dy[t * outputs + o] * s).collect();
        let largest = g.iter().fold(0f32, |a, g| if g.is_finite() { a.max(g.abs()) } else { f32::INFINITY });
        let (scale, inverse) = code_scale(largest.to_bits());
        // [digits, tokens]
        let mut codes = vec![vec![0i64; g.len()]; rounding.digits()];
        if inverse != 0.0 {
            for (t, g) in g.iter().enumerate() {
                let number = ((from + t) * outputs + o) as u32;
                rounding.split([g * inverse], number, |digit, code| codes[digit][t] = i64::from(code[0]));
            }
        }
        for (i, dw) in dw.iter_mut().enumerate() {
            for (digit, (codes, scale)) in codes.iter().zip(digit_scales(scale)).enumerate() {
                let sum: i64 =
                    codes.iter().enumerate().map(|(t, c)| c * i64::from(x.codes[t * x.cols + i])).sum();
                let value = sum as f32 * scale;
                *dw = if add || digit > 0 { *dw + value } else { value };
            }
        }
    }
}

/// One, two and three digits.
fn roundings(seed: u64) -> [Rounding; 3] {
    [
        Rounding::stochastic(1, CounterRng::new(seed, 1, 2)),
        Rounding::stochastic(2, CounterRng::new(seed, 1, 2)),
        Rounding::nearest(3),
    ]
}

fn check_all_backends(tokens: usize, outputs: usize, inputs: usize, seed: usize) {
    let (dy, x) = (gradient(tokens, outputs, seed), activations(tokens, inputs, seed));
    let before: Vec<f32> = (0..outputs * inputs).map(|i| i as f32 * 1e-6).collect();
    let writes = [WriteMode::Overwrite, WriteMode::Accumulate];
    for (rounding, write) in roundings(seed as u64).into_iter().flat_map(|r| writes.map(|write| (r, write))) {
        let mut expected = before.clone();
        definition(&dy, &x, rounding, 0, &mut expected, write == WriteMode::Accumulate);
        for backend in Backend::supported() {
            let mut dw = before.clone();
            weight_gradient_with(backend, &dy, &x, rounding, &mut dw, write);
            let same = dw.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "{backend}, {rounding:?}, {write:?}: {tokens} tokens, [{outputs}, {inputs}]");
        }
    }
}

#[test]
fn odd_shapes() {
    const SIZES: [usize; 12] = [1, 2, 3, 5, 11, 12, 13, 31, 32, 33, 97, 130];
    for (i, &tokens) in SIZES.iter().enumerate() {
        for (j, &outputs) in SIZES.iter().enumerate() {
            // A Latin square: every pair of sizes occurs.
            check_all_backends(tokens, outputs, SIZES[(i + j) % SIZES.len()], i);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_shape(tokens in 1usize..70, outputs in 1usize..120, inputs in 1usize..120, seed in 0usize..1000) {
        check_all_backends(tokens, outputs, inputs, seed);
    }
}

#[test]
fn stretches_are_added_and_the_largest_codes_do_not_overflow() {
    let (tokens, outputs, inputs) = (2 * STRETCH + 5, 3, 2);
    for (rounding, code) in roundings(5).into_iter().flat_map(|r| [-128, 127].map(|code| (r, code))) {
        let x = QuantizedRows::from_codes(vec![code; tokens * inputs], vec![0.5; tokens], inputs);
        let dy = vec![-1e-3; tokens * outputs];
        let mut expected = vec![0.0; outputs * inputs];
        for first in (0..tokens).step_by(STRETCH) {
            let part = first..tokens.min(first + STRETCH);
            let codes = x.codes[part.start * inputs..part.end * inputs].to_vec();
            let rows = QuantizedRows::from_codes(codes, x.scales[part.clone()].to_vec(), inputs);
            let dy = &dy[part.start * outputs..part.end * outputs];
            definition(dy, &rows, rounding, first, &mut expected, first > 0);
        }
        for backend in Backend::supported() {
            let mut dw = vec![f32::NAN; outputs * inputs];
            weight_gradient_with(backend, &dy, &x, rounding, &mut dw, WriteMode::Overwrite);
            assert_eq!(dw, expected, "{backend}");
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (tokens, outputs, inputs) = (133, 300, 217);
    let (dy, x) = (gradient(tokens, outputs, 1), activations(tokens, inputs, 2));
    for backend in Backend::supported() {
        let on = |threads| {
            crate::set_threads(threads);
            let mut dw = vec![0.0; outputs * inputs];
            weight_gradient_with(backend, &dy, &x, Rounding::nearest(3), &mut dw, WriteMode::Overwrite);
            dw
        };
        assert_eq!(on(1), on(crate::max_threads().max(2)), "{backend}");
    }
}

#[test]
fn the_mean_over_seeds_is_the_exact_gradient() {
    let (tokens, outputs, inputs) = (40, 5, 7);
    let (dy, x) = (gradient(tokens, outputs, 3), activations(tokens, inputs, 4));
    let mut exact = vec![0f64; outputs * inputs];
    for t in 0..tokens {
        for (o, exact) in exact.chunks_exact_mut(inputs).enumerate() {
            for (i, exact) in exact.iter_mut().enumerate() {
                let value = f64::from(x.codes[t * inputs + i]) * f64::from(x.scales[t]);
                *exact += f64::from(dy[t * outputs + o]) * value;
            }
        }
    }
    const SEEDS: u64 = 2000;
    let mut mean = vec![0f64; exact.len()];
    for seed in 0..SEEDS {
        let mut dw = vec![0.0; exact.len()];
        weight_gradient(
            &dy,
            &x,
            Rounding::stochastic(1, CounterRng::new(seed, 0, 0)),
            &mut dw,
            WriteMode::Overwrite,
        );
        mean.iter_mut().zip(&dw).for_each(|(mean, d)| *mean += f64::from(*d) / SEEDS as f64);
    }
    for (o, (mean, exact)) in mean.chunks_exact(inputs).zip(exact.chunks_exact(inputs)).enumerate() {
        // A code's rounding has a deviation of at most ½ of its scale; activations are at most 128.
        let largest = (0..tokens).map(|t| (dy[t * outputs + o] * x.scales[t]).abs()).fold(0f32, f32::max);
        let deviation = f64::from(largest) / 127.0 * 0.5 * 128.0 * (tokens as f64 / SEEDS as f64).sqrt();
        for (mean, exact) in mean.iter().zip(exact) {
            assert!((mean - exact).abs() < 4.0 * deviation, "{mean} against {exact}");
        }
    }
}

#[test]
fn an_output_that_is_not_finite_gives_nan_and_leaves_the_others() {
    let x = QuantizedRows::from_codes(vec![1, 2, 3, 4], vec![1.0, 1.0], 2);
    for backend in Backend::supported() {
        let mut dw = [0.0; 6];
        let dy = [1.0, f32::NAN, 0.0, 127.0, 1.0, 0.0];
        weight_gradient_with(backend, &dy, &x, Rounding::nearest(1), &mut dw, WriteMode::Overwrite);
        assert_eq!((dw[0], dw[1]), (1.0 + 3.0 * 127.0, 2.0 + 4.0 * 127.0), "{backend}");
        assert!(dw[2].is_nan() && dw[3].is_nan());
        assert_eq!(dw[4..], [0.0, 0.0]);
    }
}

#[test]
fn no_tokens_give_nothing() {
    let (mut dw, x) = ([1.0f32; 4], QuantizedRows { cols: 2, ..QuantizedRows::default() });
    weight_gradient(&[], &x, Rounding::nearest(1), &mut dw, WriteMode::Accumulate);
    assert_eq!(dw, [1.0; 4]);
    weight_gradient(&[], &x, Rounding::nearest(1), &mut dw, WriteMode::Overwrite);
    assert_eq!(dw, [0.0; 4]);
}

#[test]
#[should_panic(expected = "dy must be [2, 3]")]
fn a_gradient_of_the_wrong_length_is_refused() {
    let x = QuantizedRows::from_codes(vec![1, 2, 3, 4], vec![1.0, 1.0], 2);
    weight_gradient(&[0.0; 5], &x, Rounding::nearest(1), &mut [0.0; 6], WriteMode::Overwrite);
}
