//! Speed of the f32 product at the shapes of training, in GFLOP/s: `cargo bench -p tritforge-kernels --bench
//! gemm`.

mod training;

use training::{SHAPES, fastest, numbers};
use tritforge_kernels::{Matrix, WriteMode, gemm};

/// GFLOP/s of the fastest of 25 calls.
fn speed(m: usize, n: usize, k: usize, call: impl FnMut()) -> f64 {
    2.0 * (m * n * k) as f64 / fastest(25, call) / 1e9
}

fn main() {
    tritforge_machine::keep_pages();
    for (t, i, o) in SHAPES {
        let (dy, w, x) = (numbers(t * o), numbers(o * i), numbers(t * i));
        let (mut dx, mut dw, mut y) = (vec![0f32; t * i], vec![0f32; o * i], vec![0f32; t * o]);
        let (dy, w, x) = (Matrix::f32(&dy, t, o), Matrix::f32(&w, o, i), Matrix::f32(&x, t, i));
        let forward = speed(t, o, i, || gemm(x, w.transposed(), &mut y, WriteMode::Overwrite));
        let input = speed(t, i, o, || gemm(dy, w, &mut dx, WriteMode::Overwrite));
        let weight = speed(o, i, t, || gemm(dy.transposed(), x, &mut dw, WriteMode::Accumulate));
        println!("{t} tokens, [{o}, {i}]: x·Wᵀ {forward:.0}, dY·W {input:.0}, dYᵀ·x {weight:.0} GFLOP/s");
    }
}
