//! Every hand-written backward against central differences of its forward; where the forward rounds, against
//! those of the straight-through surrogate, in which rounding is a constant offset.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tritforge_kernels::{AttentionShape, Gate, RopeTable, TernaryWeights};
use tritforge_model::{IGNORE_INDEX, ops};
use tritforge_ternary::{absmax_quantize, absmean, weight_codes};

fn random(seed: u64, shape: &[usize]) -> Var {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let n: usize = shape.iter().product();
    let values: Vec<f32> = (0..n).map(|_| rng.random::<f32>() * 2.0 - 1.0).collect();
    Var::from_vec(values, shape, &Device::Cpu).unwrap()
}

/// Σ f · weights: a scalar whose gradient reaches every output.
fn weighted(output: &Tensor, weights: &Tensor) -> Result<Tensor> {
    (output * weights)?.sum_all()
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    ops::values(tensor).unwrap().to_vec()
}

/// Compares the gradients of Σ f(inputs) · weights with central differences at every element of every input.
fn check(name: &str, inputs: &[Var], f: impl Fn(&[Tensor]) -> Result<Tensor>) {
    check_against(name, inputs, &f, &f);
}

/// As [`check`], the differences taken of `surrogate`.
fn check_against(
    name: &str,
    inputs: &[Var],
    f: impl Fn(&[Tensor]) -> Result<Tensor>,
    surrogate: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let tracked: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let output = f(&tracked).unwrap();
    let weights = random(99, output.dims()).as_detached_tensor();
    let gradients = weighted(&output, &weights).unwrap().backward().unwrap();
    let evaluate = |which: usize, values: Vec<f32>| -> f64 {
        let mut moved: Vec<Tensor> = inputs.iter().map(Var::as_detached_tensor).collect();
        moved[which] = Tensor::from_vec(values, inputs[which].shape(), &Device::Cpu).unwrap();
        let output = numbers(&surrogate(&moved).unwrap());
        output.iter().zip(&numbers(&weights)).map(|(y, w)| f64::from(*y) * f64::from(*w)).sum()
    };
    let step = 1e-2f32;
    for (which, input) in inputs.iter().enumerate() {
        let gradient = numbers(gradients.get(input.as_tensor()).expect("a gradient for every input"));
        let values = numbers(input);
        let size = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
        assert!(size > 0.0, "{name}: the gradient of input {which} is zero");
        for i in 0..values.len() {
            let moved = |delta: f32| {
                let mut moved = values.clone();
                moved[i] += delta;
                let by = f64::from(moved[i]) - f64::from(values[i]);
                (evaluate(which, moved), by)
            };
            let ((up, by_up), (down, by_down)) = (moved(step), moved(-step));
            let numeric = ((up - down) / (by_up - by_down)) as f32;
            let error = (numeric - gradient[i]).abs() / size;
            // Central differences of step 1e-2 are off by step²/6 of the third derivative, and by f32
            // rounding / step.
            assert!(error < 3e-3, "{name}: input {which}[{i}]: {} against {numeric}", gradient[i]);
        }
    }
}

#[test]
fn embedding() {
    check("embedding", &[random(1, &[5, 4])], |i| ops::embedding(&i[0], &[3, 0, 3, 1, 2, 4]));
}

#[test]
fn rms_norm() {
    check("rms_norm", &[random(1, &[3, 10]), random(2, &[10])], |i| ops::rms_norm(&i[0], &i[1], 1e-5));
}

#[test]
fn rope() {
    let table = Arc::new(RopeTable::new(6, 100.0, 8));
    let positions: Arc<[u32]> = Arc::from([0, 1, 2, 0, 1, 2]);
    check("rope", &[random(1, &[6, 12])], |i| ops::rope(&i[0], 2, &table, &positions));
}

#[test]
fn glu() {
    for kind in [Gate::Silu, Gate::Relu2] {
        check("gated", &[random(1, &[3, 7]), random(2, &[3, 7])], |i| ops::glu(kind, &i[0], &i[1]));
    }
}

#[test]
fn attention() {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6 };
    let inputs = [random(1, &[10, 24]), random(2, &[10, 12]), random(3, &[10, 12])];
    check("attention", &inputs, |i| ops::attention(shape, &[3, 7], &i[0], &i[1], &i[2]));
}

#[test]
fn linear() {
    check("linear", &[random(1, &[4, 5]), random(2, &[3, 5])], |i| ops::linear(&i[0], &i[1]));
}

#[test]
fn linear_cross_entropy() {
    let targets = [2, IGNORE_INDEX, 0, 6];
    check("linear_cross_entropy", &[random(1, &[4, 5]), random(2, &[7, 5])], |i| {
        ops::linear_cross_entropy(&i[0], &i[1], &targets, 3.0)
    });
}

/// What rounding adds to a tensor, as a constant.
fn offset(tensor: &Tensor, quantized: &[f32]) -> Tensor {
    let offset = quantized.iter().zip(numbers(tensor)).map(|(q, x)| q - x).collect();
    Tensor::from_vec(offset, tensor.shape(), &Device::Cpu).unwrap()
}

fn ternary_values(weights: &[f32]) -> Vec<f32> {
    let scale = absmean(weights);
    let mut codes = vec![0i8; weights.len()];
    weight_codes(weights, scale, &mut codes);
    codes.into_iter().map(|c| f32::from(c) * scale).collect()
}

fn int8_values(x: &[f32], cols: usize) -> Vec<f32> {
    let mut values = Vec::new();
    for row in x.chunks_exact(cols) {
        let mut codes = vec![0i8; cols];
        let scale = absmax_quantize(row, &mut codes);
        values.extend(codes.into_iter().map(|c| f32::from(c) * scale));
    }
    values
}

#[test]
fn bit_linear_is_straight_through() {
    let (x, w) = (random(1, &[4, 9]), random(2, &[5, 9]));
    let latent = numbers(&w);
    let quantized = Arc::new(TernaryWeights::quantize(&latent, 5, 9, absmean(&latent)));
    let dx = offset(&x, &int8_values(&numbers(&x), 9));
    let dw = offset(&w, &ternary_values(&latent));
    check_against(
        "bit_linear",
        &[x, w],
        |i| ops::bit_linear(&i[0], &i[1], &quantized),
        |i| (&i[0] + &dx)?.matmul(&(&i[1] + &dw)?.t()?),
    );
}

#[test]
fn fake_quantizers_are_straight_through() {
    let x = random(1, &[4, 9]);
    let offset_w = offset(&x, &ternary_values(&numbers(&x)));
    let offset_x = offset(&x, &int8_values(&numbers(&x), 9));
    let (v, w) = (x.clone(), x);
    check_against("weights", &[v], |i| ops::fake_quantize_weights(&i[0]), |i| &i[0] + &offset_w);
    check_against("activations", &[w], |i| ops::fake_quantize_activations(&i[0]), |i| &i[0] + &offset_x);
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_its_input_does() {
    let (x, w) = (random(1, &[4, 9]), random(2, &[5, 9]));
    let latent = numbers(&w);
    let quantized = Arc::new(TernaryWeights::quantize(&latent, 5, 9, absmean(&latent)));
    let y = ops::bit_linear(x.as_tensor(), &w.as_detached_tensor(), &quantized).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(x.as_tensor()).is_some());
    assert!(gradients.get(w.as_tensor()).is_none());
}
