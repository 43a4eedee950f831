//! Every backend against a product written as its definition, on odd shapes and extreme values.

use proptest::prelude::*;

use super::*;
use crate::TernaryLayout;

/// Sizes around every unit of the layout: words, steps, vectors, blocks, pieces.
const SIZES: [usize; 21] =
    [1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 300];

fn pseudo_random(n: usize, seed: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| (i + 1).wrapping_mul(seed.wrapping_mul(2).wrapping_add(0x9e37_79b9_7f4a_7c15)) >> 40)
}

pub(super) fn activations(m: usize, cols: usize, seed: usize) -> QuantizedRows {
    let codes = pseudo_random(m * cols, seed).map(|r| (r % 256) as u8 as i8).collect();
    QuantizedRows::from_codes(codes, pseudo_random(m, seed).map(|r| r as f32 * 1e-7).collect(), cols)
}

pub(super) fn ternary(n: usize, seed: usize) -> Vec<i8> {
    pseudo_random(n, seed).map(|r| (r % 3) as i8 - 1).collect()
}

/// The definition, in i64.
pub(super) fn definition(x: &QuantizedRows, codes: &[i8]) -> Vec<i64> {
    let mut sums = Vec::new();
    for row in x.codes.chunks_exact(x.cols) {
        for codes in codes.chunks_exact(x.cols) {
            sums.push(row.iter().zip(codes).map(|(x, w)| i64::from(*x) * i64::from(*w)).sum());
        }
    }
    sums
}

fn check_all_backends(x: &QuantizedRows, codes: &[i8]) {
    let rows = codes.len() / x.cols;
    let shape = format!("m {}, rows {rows}, cols {}", x.rows(), x.cols);
    let expected = definition(x, codes);
    for layout in [TernaryLayout::TwoBits, TernaryLayout::FiveTrits] {
        let w = TernaryWeights::with_layout(codes, rows, x.cols, 0.0371, layout);
        for backend in Backend::supported() {
            let shape = format!("{backend}, {layout:?}, {shape}");
            let mut acc = vec![i32::MIN; x.rows() * rows];
            ternary_matmul_i32_with(backend, x, &w, &mut acc);
            assert!(acc.iter().map(|a| i64::from(*a)).eq(expected.iter().copied()), "{shape}");
            let mut y = vec![f32::NAN; x.rows() * rows];
            ternary_matmul_with(backend, x, &w, &mut y);
            for (i, y) in y.iter().enumerate() {
                let scaled = expected[i] as f32 * (0.0371 * x.scales[i / rows]);
                assert_eq!(y.to_bits(), scaled.to_bits(), "{shape}, element {i}");
            }
            let mut sum: Vec<f32> = (0..y.len()).map(|i| i as f32).collect();
            product(backend, x, &w, &mut sum, WriteMode::Accumulate);
            assert!(sum.iter().zip(&y).enumerate().all(|(i, (s, y))| *s == i as f32 + y), "{shape}");
        }
    }
}

#[test]
fn odd_shapes() {
    for (i, &a) in SIZES.iter().enumerate() {
        for (j, &b) in SIZES.iter().enumerate() {
            // A Latin square: every pair of (m, rows), (rows, cols) and (m, cols) occurs.
            let c = SIZES[(i + j) % SIZES.len()];
            check_all_backends(&activations(a, c, i), &ternary(b * c, j));
        }
    }
}

#[test]
fn every_number_of_tokens_up_to_two_tiles() {
    for m in 1..=25 {
        check_all_backends(&activations(m, 70, m), &ternary(40 * 70, m));
    }
}

#[test]
fn no_tokens() {
    check_all_backends(&activations(0, 19, 0), &ternary(3 * 19, 0));
}

#[test]
fn extreme_values_do_not_overflow() {
    // Long rows of the largest magnitudes: 16-bit lanes at their bound in every chunk, i32 lanes at theirs.
    for cols in [63, 64, 255, 256, 257, 272, 20_000] {
        for x in [-128i8, 127] {
            for m in [1, 3, 8, 13] {
                let rows = QuantizedRows::from_codes(vec![x; m * cols], vec![1.0; m], cols);
                for codes in [[1, 1], [-1, -1], [1, -1], [0, 1]] {
                    let codes: Vec<i8> = codes.iter().flat_map(|code| vec![*code; cols]).collect();
                    check_all_backends(&rows, &codes);
                }
            }
        }
    }
}

#[test]
fn the_widest_matrix() {
    let cols = 1 << 17;
    for x in [-128i8, 127] {
        for m in [1, 4] {
            let rows = QuantizedRows::from_codes(vec![x; m * cols], vec![1.0; m], cols);
            check_all_backends(&rows, &[vec![1; cols], vec![-1; cols]].concat());
        }
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (m, rows, cols) = (77, 300, 517); // large enough to be cut into tasks
    let (x, codes) = (activations(m, cols, 5), ternary(rows * cols, 6));
    let w = TernaryWeights::new(&codes, rows, cols, 1.5);
    for backend in Backend::supported() {
        let results: Vec<Vec<f32>> = [1, 2, 3, 8]
            .into_iter()
            .map(|threads| {
                crate::set_threads(threads);
                let mut y = vec![0.0; m * rows];
                ternary_matmul_with(backend, &x, &w, &mut y);
                y
            })
            .collect();
        assert!(results.iter().all(|y| *y == results[0]), "{backend}");
        let sums = definition(&x, &codes);
        assert_eq!(results[0][m * rows - 1], sums[m * rows - 1] as f32 * (1.5 * x.scales[m - 1]));
    }
}

#[test]
fn matrices_multiplied_together_give_what_each_gives_alone() {
    for (m, cols) in [(1, 2560), (2, 80), (3, 81), (5, 300), (40, 517)] {
        let x = activations(m, cols, 3);
        for layout in [TernaryLayout::TwoBits, TernaryLayout::FiveTrits] {
            let weights = [300, 1, 64, 129].map(|rows| {
                TernaryWeights::with_layout(
                    &ternary(rows * cols, rows),
                    rows,
                    cols,
                    0.1 * rows as f32,
                    layout,
                )
            });
            for backend in Backend::supported() {
                let mut alone = weights.each_ref().map(|w| vec![0f32; m * w.rows()]);
                let mut together = alone.clone();
                for (w, y) in weights.iter().zip(&mut alone) {
                    ternary_matmul_with(backend, &x, w, y);
                }
                let results = together.each_mut().map(Vec::as_mut_slice);
                products(
                    backend,
                    &x,
                    1,
                    &weights.each_ref(),
                    results.into_iter(),
                    WriteMode::Overwrite,
                    None,
                );
                assert_eq!(alone, together, "{backend}, {layout:?}, m {m}, cols {cols}");
            }
        }
    }
}

#[test]
fn a_row_that_is_not_finite_gives_nan_and_leaves_the_others() {
    let x = crate::quantize_rows(&[1.0, 2.0, f32::NAN, 4.0, 5.0, 6.0], 2);
    let w = TernaryWeights::new(&[1, -1, 0, 1], 2, 2, 1.0);
    for backend in Backend::supported() {
        let mut y = [0.0; 6];
        ternary_matmul_with(backend, &x, &w, &mut y);
        assert!(y[2].is_nan() && y[3].is_nan());
        assert!([y[0], y[1], y[4], y[5]].iter().all(|v| v.is_finite()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_shape(m in 0usize..40, rows in 1usize..100, cols in 1usize..400, seed in any::<u32>()) {
        let seed = seed as usize;
        check_all_backends(&activations(m, cols, seed), &ternary(rows * cols, seed + 1));
    }
}

#[test]
#[should_panic(expected = "activations have 3 columns, weights 4")]
fn columns_that_differ_are_refused() {
    ternary_matmul(&activations(1, 3, 0), &TernaryWeights::new(&[1; 4], 1, 4, 1.0), &mut [0.0]);
}

#[test]
#[should_panic(expected = "the result must be [2, 1]")]
fn a_result_of_the_wrong_length_is_refused() {
    ternary_matmul(&activations(2, 4, 0), &TernaryWeights::new(&[1; 4], 1, 4, 1.0), &mut [0.0]);
}

#[test]
fn digits_of_a_gradient_are_added_up_on_every_backend_and_number_of_threads() {
    for (tokens, rows, cols) in [(1, 1, 1), (2, 33, 17), (5, 40, 65), (13, 129, 300), (301, 96, 70)] {
        let dy: Vec<f32> = pseudo_random(tokens * cols, rows).map(|r| (r as f32 - 8e6) * 1e-9).collect();
        let codes = ternary(rows * cols, tokens);
        let w = TernaryWeights::new(&codes, rows, cols, 0.0371);
        for (digits, write) in [
            (1, WriteMode::Overwrite),
            (2, WriteMode::Accumulate),
            (3, WriteMode::Overwrite),
            (3, WriteMode::Accumulate),
        ] {
            let mut gradient = GradientRows::default();
            crate::quantize_gradient_rows(&dy, cols, crate::Rounding::nearest(digits), &mut gradient);
            let sums = definition(gradient.rows(), &codes);
            let before: Vec<f32> = (0..tokens * rows).map(|i| i as f32 * 1e-5).collect();
            let mut expected = before.clone();
            for (i, y) in expected.iter_mut().enumerate() {
                let (token, row) = (i / rows, i % rows);
                for at in token * digits..(token + 1) * digits {
                    let value = sums[at * rows + row] as f32
                        * (w.scales().of_tensor().unwrap() * gradient.rows().scales[at]);
                    let first = write == WriteMode::Overwrite && at == token * digits;
                    *y = if first { value } else { *y + value };
                }
            }
            for backend in Backend::supported() {
                for threads in [1, 3] {
                    crate::set_threads(threads);
                    let mut dx = before.clone();
                    gradient_matmul_with(backend, &gradient, &w, &mut dx, write);
                    let same = dx.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits());
                    assert!(same, "{backend}: {tokens} tokens, [{rows}, {cols}], {digits} digits, {write:?}");
                }
            }
        }
    }
}
