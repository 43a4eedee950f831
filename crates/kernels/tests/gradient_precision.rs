//! Products of gradients by integers of three digits and in f32, both against f64, on gradients of all
//! magnitudes.

use tritforge_kernels::{
    GradientRows, Matrix, QuantizedRows, Rounding, TernaryWeights, WriteMode, gemm, gradient_matmul,
    quantize_gradient_rows, weight_gradient,
};

const TOKENS: usize = 96;
const OUTPUTS: usize = 257;
const INPUTS: usize = 130;

/// Uniform in (-1, 1).
fn uniform(seed: &mut u64) -> f64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    ((*seed >> 11) as f64 / 9_007_199_254_740_992.0).mul_add(2.0, -1.0)
}

/// Gradients: heavy tails, and tokens of very different size.
fn gradient() -> Vec<f32> {
    let mut seed = 7;
    (0..TOKENS * OUTPUTS)
        .map(|i| (uniform(&mut seed).powi(5) * 10f64.powi(-((i / OUTPUTS % 5) as i32) - 3)) as f32)
        .collect()
}

/// The root of the mean square of the differences from `exact`, in terms of that of `exact`.
fn error(found: &[f32], exact: &[f64]) -> f64 {
    let difference: f64 = found.iter().zip(exact).map(|(f, e)| (f64::from(*f) - e).powi(2)).sum();
    (difference / exact.iter().map(|e| e * e).sum::<f64>()).sqrt()
}

#[test]
fn three_digits_lose_no_more_than_twice_what_f32_loses() {
    let mut seed = 3;
    let dy = gradient();
    let codes: Vec<i8> = (0..OUTPUTS * INPUTS).map(|_| (uniform(&mut seed) * 1.5).round() as i8).collect();
    let x: Vec<i8> = (0..TOKENS * INPUTS).map(|_| (uniform(&mut seed) * 127.0).round() as i8).collect();
    let scales: Vec<f32> = (0..TOKENS).map(|t| 0.01 + t as f32 * 1e-4).collect();
    let (mut dx, mut dw) = (vec![0f64; TOKENS * INPUTS], vec![0f64; OUTPUTS * INPUTS]);
    for t in 0..TOKENS {
        for o in 0..OUTPUTS {
            let dy = f64::from(dy[t * OUTPUTS + o]);
            for i in 0..INPUTS {
                dx[t * INPUTS + i] += dy * f64::from(codes[o * INPUTS + i]) * f64::from(0.037f32);
                dw[o * INPUTS + i] += dy * f64::from(x[t * INPUTS + i]) * f64::from(scales[t]);
            }
        }
    }

    let scaled: Vec<f32> = codes.iter().map(|code| f32::from(*code) * 0.037).collect();
    let turned = TernaryWeights::quantize_transposed(&scaled, OUTPUTS, INPUTS, 0.037);
    let mut rows = GradientRows::default();
    quantize_gradient_rows(&dy, OUTPUTS, Rounding::nearest(3), &mut rows);
    let mut found = vec![0f32; dx.len()];
    gradient_matmul(&rows, &turned, &mut found, WriteMode::Overwrite);
    let by_integers = error(&found, &dx);
    let row_scales = vec![0.037; OUTPUTS];
    let (matrix, weight) = (Matrix::f32(&dy, TOKENS, OUTPUTS), Matrix::int8(&codes, &row_scales, INPUTS));
    gemm(matrix, weight, &mut found, WriteMode::Overwrite);
    let in_f32 = error(&found, &dx);
    println!("dX: {by_integers:.2e} by integers, {in_f32:.2e} in f32");
    assert!(
        by_integers < 2.0 * in_f32 && in_f32 < 1e-6,
        "dX: {by_integers:e} by integers, {in_f32:e} in f32"
    );

    let x = QuantizedRows::from_codes(x, scales, INPUTS);
    let mut found = vec![0f32; dw.len()];
    weight_gradient(&dy, &x, Rounding::nearest(3), &mut found, WriteMode::Overwrite);
    let by_integers = error(&found, &dw);
    gemm(matrix.transposed(), Matrix::int8(&x.codes, &x.scales, INPUTS), &mut found, WriteMode::Overwrite);
    let in_f32 = error(&found, &dw);
    println!("dW: {by_integers:.2e} by integers, {in_f32:.2e} in f32");
    assert!(
        by_integers < 2.0 * in_f32 && in_f32 < 1e-6,
        "dW: {by_integers:e} by integers, {in_f32:e} in f32"
    );
}
