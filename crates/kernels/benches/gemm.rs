//! Speed of the f32 product at the shapes of training, in GFLOP/s: `cargo bench -p tritforge-kernels --bench
//! gemm`.

use std::time::Instant;

use tritforge_kernels::{Matrix, WriteMode, gemm};

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| (i * 7919 % 2003) as f32 / 1001.0 - 1.0).collect()
}

/// GFLOP/s of the fastest of 25 calls.
fn speed(m: usize, n: usize, k: usize, mut call: impl FnMut()) -> f64 {
    call();
    let mut best = f64::INFINITY;
    for _ in 0..25 {
        let start = Instant::now();
        call();
        best = best.min(start.elapsed().as_secs_f64());
    }
    2.0 * (m * n * k) as f64 / best / 1e9
}

fn main() {
    tritforge_machine::keep_pages();
    // Tokens, width of the input, width of the output.
    for (t, i, o) in [
        (2048, 256, 256),
        (2048, 256, 768),
        (2048, 768, 256),
        (2048, 256, 128),
        (1024, 768, 768),
        (1024, 768, 2048),
        (512, 768, 32000),
    ] {
        let (dy, w, x) = (numbers(t * o), numbers(o * i), numbers(t * i));
        let (mut dx, mut dw, mut y) = (vec![0f32; t * i], vec![0f32; o * i], vec![0f32; t * o]);
        let (dy, w, x) = (Matrix::f32(&dy, t, o), Matrix::f32(&w, o, i), Matrix::f32(&x, t, i));
        let forward = speed(t, o, i, || gemm(x, w.transposed(), &mut y, WriteMode::Overwrite));
        let input = speed(t, i, o, || gemm(dy, w, &mut dx, WriteMode::Overwrite));
        let weight = speed(o, i, t, || gemm(dy.transposed(), x, &mut dw, WriteMode::Accumulate));
        println!("{t} tokens, [{o}, {i}]: x·Wᵀ {forward:.0}, dY·W {input:.0}, dYᵀ·x {weight:.0} GFLOP/s");
    }
}
