//! The product against one in f64, on every backend.

use super::*;
use crate::scattered::numbers;

/// Element (row, column) of a matrix, slowly.
fn at(m: Matrix<'_>, row: usize, column: usize) -> f32 {
    let mut panel = [0f32; 1 + pack::PADDING];
    pack_panels(Backend::Scalar, m, row..row + 1, column..column + 1, 1, &mut panel, 1 + pack::PADDING);
    panel[0]
}

fn check(a: Matrix<'_>, b: Matrix<'_>) {
    let (m, n, k) = (a.rows(), b.cols(), a.cols());
    let begin = numbers(m * n, 77);
    let mut exact = vec![0f64; m * n];
    for (i, exact) in exact.iter_mut().enumerate() {
        *exact = (0..k).map(|j| f64::from(at(a, i / n, j)) * f64::from(at(b, j, i % n))).sum();
    }
    let largest = exact.iter().fold(1f64, |m, e| m.max(e.abs()));
    let mut first: Option<Vec<f32>> = None;
    for backend in Backend::supported() {
        let mut c = begin.clone();
        gemm_with(backend, a, b, &mut c, WriteMode::Overwrite);
        for (c, e) in c.iter().zip(&exact) {
            assert!(
                (f64::from(*c) - e).abs() < 1e-6 * (largest + k as f64),
                "{backend} [{m}, {k}, {n}]: {c} against {e}"
            );
        }
        let mut sum = begin.clone();
        gemm_with(backend, a, b, &mut sum, WriteMode::Accumulate);
        for ((s, c), b) in sum.iter().zip(&c).zip(&begin) {
            assert!(
                f64::from(s - (c + b)).abs() < 1e-6 * (largest + k as f64),
                "{backend}: {s} against {c} + {b}"
            );
        }
        let bits = first.get_or_insert_with(|| c.clone());
        assert!(bits.iter().zip(&c).all(|(a, b)| a.to_bits() == b.to_bits()), "{backend}: other bits");
    }
}

#[test]
fn any_shape_and_either_layout() {
    for (m, k, n) in [(1, 1, 1), (12, 16, 32), (13, 17, 33), (5, 300, 7), (70, 31, 100), (200, 513, 65)] {
        let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
        check(Matrix::f32(&a, m, k), Matrix::f32(&b, k, n));
        check(Matrix::f32(&a, k, m).transposed(), Matrix::f32(&b, k, n));
        check(Matrix::f32(&a, m, k), Matrix::f32(&b, n, k).transposed());
    }
}

#[test]
fn blocks_and_threads_change_nothing() {
    // More than a block of rows, and of terms; enough work for several threads.
    let (m, k, n) = (BLOCK + 5, 2 * DEPTH + 3, 20);
    let (a, b) = (numbers(m * k, 1), numbers(k * n, 2));
    let product = |threads: usize| {
        pool::set_threads(threads);
        let mut c = vec![0f32; m * n];
        gemm(Matrix::f32(&a, m, k), Matrix::f32(&b, k, n), &mut c, WriteMode::Overwrite);
        c
    };
    let one = product(1);
    assert_eq!(one, product(pool::max_threads()));
    let row: Vec<f32> = a[(m - 1) * k..].to_vec();
    let mut alone = vec![0f32; n];
    gemm(Matrix::f32(&row, 1, k), Matrix::f32(&b, k, n), &mut alone, WriteMode::Overwrite);
    assert_eq!(alone, one[(m - 1) * n..]);
}

#[test]
fn quantized_operands_are_their_values() {
    let (t, d, rows) = (37, 50, 21);
    let codes: Vec<i8> = (0..t * d).map(|i| (i * 37 % 255) as i8).collect();
    let (scales, latent) = (numbers(t, 3), numbers(rows * d, 4));
    let x = Matrix::int8(&codes, &scales, d);
    assert_eq!(at(x, 2, 7), f32::from(codes[2 * d + 7]) * scales[2]);
    let fitted = 0.5.into();
    let w = Matrix::ternary(&latent, rows, d, &fitted);
    let mut ternary = vec![0i8; latent.len()];
    tritforge_ternary::weight_codes(&latent, 0.5, &mut ternary);
    assert!((0..rows * d).all(|i| at(w, i / d, i % d) == f32::from(ternary[i]) * 0.5));
    check(x, w.transposed());
    let dy = numbers(t * rows, 5);
    check(Matrix::f32(&dy, t, rows).transposed(), x);
    check(Matrix::f32(&dy, t, rows), w);
}

#[test]
fn an_empty_sum_is_zero() {
    let mut c = [1.0; 6];
    gemm(Matrix::f32(&[], 2, 0), Matrix::f32(&[], 0, 3), &mut c, WriteMode::Accumulate);
    assert_eq!(c, [1.0; 6]);
    gemm(Matrix::f32(&[], 2, 0), Matrix::f32(&[], 0, 3), &mut c, WriteMode::Overwrite);
    assert_eq!(c, [0.0; 6]);
}

#[test]
fn scales_of_rows_and_groups_are_decoded() {
    use tritforge_ternary::{Granularity, WeightQuantizer};

    let (t, rows, cols) = (9, 37, 512);
    let latent = numbers(rows * cols, 4);
    for granularity in [Granularity::Row, Granularity::Group(32), Granularity::Group(128)] {
        let fitted = WeightQuantizer::default().fit(granularity, &latent, [rows, cols]).unwrap();
        let (mut codes, mut values) = (vec![0i8; latent.len()], vec![0f32; latent.len()]);
        fitted.codes(0, cols, &latent, &mut codes);
        fitted.scales().apply(&codes, cols, &mut values);
        let expected = Matrix::f32(&values, rows, cols);
        let (x, dy) = (numbers(t * cols, 5), numbers(t * rows, 6));
        for weight in [
            Matrix::ternary(&latent, rows, cols, &fitted),
            Matrix::codes(&codes, rows, cols, fitted.scales()),
        ] {
            // The same numbers in the same order: the same bits, read along rows and along columns.
            for (a, b, plain) in [
                (Matrix::f32(&x, t, cols), weight.transposed(), expected.transposed()),
                (Matrix::f32(&dy, t, rows), weight, expected),
            ] {
                let (mut c, mut same) = (vec![0.0; t * b.cols()], vec![0.0; t * b.cols()]);
                gemm(a, b, &mut c, WriteMode::Overwrite);
                gemm(a, plain, &mut same, WriteMode::Overwrite);
                assert_eq!(c, same, "{granularity}");
            }
        }
    }
}
