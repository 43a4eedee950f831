//! The two products of a projection's backward, in f32 and by integers of one to three digits:
//! `cargo bench -p tritforge-kernels --bench backward_products`.

mod training;

use training::{SHAPES, fastest, numbers};
use tritforge_kernels::{
    CounterRng, GradientRows, Matrix, Rounding, TernaryWeights, WriteMode, gemm, gradient_matmul,
    quantize_gradient_rows, quantize_rows, weight_gradient,
};

/// Milliseconds of the fastest of 15 calls.
fn milliseconds(call: impl FnMut()) -> f64 {
    1e3 * fastest(15, call)
}

fn main() {
    tritforge_machine::keep_pages();
    for (t, i, o) in SHAPES {
        let (dy, w, x) = (numbers(t * o), numbers(o * i), quantize_rows(&numbers(t * i), i));
        let (mut dx, mut dw) = (vec![0f32; t * i], vec![0f32; o * i]);
        let fitted = 0.5.into();
        let (matrix, weight) = (Matrix::f32(&dy, t, o), Matrix::ternary(&w, o, i, &fitted));
        let input = milliseconds(|| gemm(matrix, weight, &mut dx, WriteMode::Overwrite));
        let codes = Matrix::int8(&x.codes, &x.scales, i);
        let parameters = milliseconds(|| gemm(matrix.transposed(), codes, &mut dw, WriteMode::Accumulate));
        println!("{t} tokens, [{o}, {i}], ms: f32 dX {input:.2}, dW {parameters:.2}");
        let turned = TernaryWeights::quantize_transposed(&w, o, i, 0.5);
        let mut rows = GradientRows::default();
        let noise = CounterRng::new(1, 2, 3);
        for rounding in [Rounding::nearest(3), Rounding::stochastic(2, noise), Rounding::stochastic(1, noise)]
        {
            let round = milliseconds(|| quantize_gradient_rows(&dy, o, rounding, &mut rows));
            let input = milliseconds(|| gradient_matmul(&rows, &turned, &mut dx, WriteMode::Overwrite));
            let parameters =
                milliseconds(|| weight_gradient(&dy, &x, rounding, &mut dw, WriteMode::Accumulate));
            let digits = rounding.digits();
            println!("    {digits} digits: rounding {round:.2} and dX {input:.2}, dW {parameters:.2}");
        }
    }
}
