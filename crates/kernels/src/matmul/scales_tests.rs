//! Scales of rows and of groups: every backend against the definition, written as it stands.

use tritforge_ternary::{Granularity, Scales};

use super::tests::{activations, definition, ternary};
use super::*;
use crate::{Rounding, TernaryLayout, quantize_gradient_rows};

/// Positive f16 numbers of several magnitudes.
fn scales(granularity: Granularity, rows: usize, cols: usize) -> Scales {
    let number = |i: usize| half::f16::from_f32(((i * 7919 % 1013) as f32 + 1.0) * 1e-3).to_f32();
    Scales::new(granularity, [rows, cols], (0..granularity.count(rows, cols)).map(number).collect()).unwrap()
}

/// `s_x · Σ_g s_g · acc_g` by ascending g.
fn by_groups(x: &QuantizedRows, codes: &[i8], scales: &Scales, group: usize) -> Vec<f32> {
    let mut y = Vec::new();
    for (row, s_x) in x.codes.chunks_exact(x.cols).zip(&x.scales) {
        for (r, codes) in codes.chunks_exact(x.cols).enumerate() {
            let mut value = 0f32;
            for ((x, codes), s_g) in row.chunks(group).zip(codes.chunks(group)).zip(scales.row(r)) {
                let acc: i32 = x.iter().zip(codes).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum();
                value += s_g * acc as f32;
            }
            y.push(value * s_x);
        }
    }
    y
}

fn check(m: usize, rows: usize, cols: usize, granularity: Granularity) {
    let (x, codes) = (activations(m, cols, m + cols), ternary(rows * cols, rows));
    let scales = scales(granularity, rows, cols);
    let expected: Vec<f32> = match granularity {
        Granularity::Group(group) => by_groups(&x, &codes, &scales, group),
        _ => (definition(&x, &codes).iter().enumerate())
            .map(|(i, acc)| *acc as f32 * (scales.row(i % rows)[0] * x.scales[i / rows]))
            .collect(),
    };
    for layout in [TernaryLayout::TwoBits, TernaryLayout::FiveTrits] {
        let w = TernaryWeights::with_layout(&codes, rows, cols, scales.clone(), layout);
        assert_eq!((w.scales(), w.codes()), (scales.clone(), codes.clone()));
        for backend in Backend::supported() {
            let shape = format!("{backend}, {layout:?}, [{m}, {rows}, {cols}], {granularity}");
            let mut y = vec![f32::NAN; m * rows];
            ternary_matmul_with(backend, &x, &w, &mut y);
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&y), bits(&expected), "{shape}");
            let mut sum: Vec<f32> = (0..y.len()).map(|i| i as f32).collect();
            product(backend, &x, &w, &mut sum, WriteMode::Accumulate);
            assert!(sum.iter().zip(&y).enumerate().all(|(i, (s, y))| *s == i as f32 + y), "{shape}");
            let mut acc = vec![i32::MIN; m * rows];
            ternary_matmul_i32_with(backend, &x, &w, &mut acc);
            assert!(acc.iter().map(|a| i64::from(*a)).eq(definition(&x, &codes)), "{shape}");
        }
    }
}

#[test]
fn scales_of_rows() {
    for (m, rows, cols) in [(1, 1, 1), (1, 33, 80), (2, 64, 7), (5, 31, 300), (13, 100, 129), (25, 40, 70)] {
        check(m, rows, cols, Granularity::Row);
    }
}

#[test]
fn scales_of_groups() {
    for group in Granularity::GROUPS {
        for m in 1..=14 {
            check(m, 33 + m, 3 * group, Granularity::Group(group));
        }
        check(30, 96, 4 * group, Granularity::Group(group));
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let (m, rows, cols) = (70, 1056, 512);
    let (x, codes) = (activations(m, cols, 5), ternary(rows * cols, 6));
    for granularity in [Granularity::Row, Granularity::Group(64)] {
        let w = TernaryWeights::new(&codes, rows, cols, scales(granularity, rows, cols));
        let mut expected = vec![0.0; m * rows];
        crate::set_threads(1);
        ternary_matmul(&x, &w, &mut expected);
        for threads in [2, 5] {
            crate::set_threads(threads);
            let mut y = vec![0.0; m * rows];
            ternary_matmul(&x, &w, &mut y);
            assert_eq!(y, expected, "{granularity}, {threads} threads");
        }
    }
}

#[test]
fn matrices_of_different_scales_are_multiplied_together() {
    let x = activations(3, 256, 1);
    let granularities =
        [Granularity::Tensor, Granularity::Row, Granularity::Group(64), Granularity::Group(128)];
    let weights = granularities.map(|granularity| {
        let scales = scales(granularity, 40, 256);
        TernaryWeights::with_layout(&ternary(40 * 256, 2), 40, 256, scales, TernaryLayout::FiveTrits)
    });
    let mut results = [const { [0f32; 120] }; 4];
    let mut slices = results.each_mut().map(|result| &mut result[..]);
    ternary_matmul_many(&x, &weights.each_ref(), &mut slices);
    for (w, result) in weights.iter().zip(results) {
        let mut alone = [0.0; 120];
        ternary_matmul(&x, w, &mut alone);
        assert_eq!(alone, result);
    }
}

#[test]
fn a_row_that_is_not_finite_gives_nan() {
    let w = TernaryWeights::new(&ternary(40 * 64, 3), 40, 64, scales(Granularity::Group(32), 40, 64));
    let mut x = activations(2, 64, 1);
    x.scales[0] = f32::NAN;
    let mut y = [0.0; 80];
    ternary_matmul(&x, &w, &mut y);
    assert!(y[..40].iter().all(|y| y.is_nan()) && y[40..].iter().all(|y| y.is_finite()));
}

#[test]
fn a_part_of_the_rows_is_that_part_of_the_whole() {
    let (tokens, rows, cols) = (9, 100, 130);
    let dy: Vec<f32> = (0..tokens * cols).map(|i| ((i * 7919 % 1009) as f32 - 500.0) * 1e-4).collect();
    let mut rounded = GradientRows::default();
    quantize_gradient_rows(&dy, cols, Rounding::nearest(3), &mut rounded);
    let w = TernaryWeights::new(&ternary(rows * cols, 4), rows, cols, 1.0);
    let mut whole = vec![0.0; tokens * rows];
    gradient_matmul(&rounded, &w, &mut whole, WriteMode::Overwrite);
    let mut parts = vec![f32::NAN; tokens * rows];
    for part in [0..32, 64..100, 32..64] {
        gradient_matmul_rows(&rounded, &w, part, &mut parts, WriteMode::Overwrite);
    }
    assert_eq!(parts, whole);
}
