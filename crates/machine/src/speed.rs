//! Measured speed of the kernels' products.

use std::time::{Duration, Instant};

use tritforge_kernels::{Matrix, TernaryWeights, WriteMode, gemm, quantize_rows, ternary_matmul};

/// Side of the square matrices that are multiplied.
const SIDE: usize = 1024;
/// Time that one measurement takes, about.
const BUDGET: Duration = Duration::from_millis(80);
/// Products of which the fastest counts, at least; the first also allocates.
const REPEATS: usize = 4;

/// f32 operations a second (a multiplication and an addition count as two) that [`gemm`] reaches on all
/// threads: the fastest of a few products [1024, 1024] · [1024, 1024]. This is the peak that MFU is measured
/// by; it takes a tenth of a second.
pub fn f32_flops() -> f64 {
    let (a, b) = (vec![0.5f32; SIDE * SIDE], vec![0.25f32; SIDE * SIDE]);
    let mut c = vec![0f32; SIDE * SIDE];
    let (a, b) = (Matrix::f32(&a, SIDE, SIDE), Matrix::f32(&b, SIDE, SIDE));
    fastest(|| gemm(a, b, &mut c, WriteMode::Overwrite))
}

/// Integer operations a second of int8 activations by ternary weights, as [`f32_flops`]: the forward of
/// quantized projections.
pub fn ternary_ops() -> f64 {
    let x: Vec<f32> = (0..SIDE * SIDE).map(|i| (i % 251) as f32 - 125.0).collect();
    let codes: Vec<i8> = (0..SIDE * SIDE).map(|i| (i % 3) as i8 - 1).collect();
    let (x, weights) = (quantize_rows(&x, SIDE), TernaryWeights::new(&codes, SIDE, SIDE, 0.5));
    let mut y = vec![0f32; SIDE * SIDE];
    fastest(|| ternary_matmul(&x, &weights, &mut y))
}

/// Operations a second of the fastest of several products of [`SIDE`]³.
fn fastest(mut product: impl FnMut()) -> f64 {
    let begin = Instant::now();
    let mut best = f64::INFINITY;
    let mut repeats = 0;
    while repeats < REPEATS || begin.elapsed() < BUDGET {
        let start = Instant::now();
        product();
        best = best.min(start.elapsed().as_secs_f64());
        repeats += 1;
    }
    2.0 * (SIDE * SIDE * SIDE) as f64 / best
}
