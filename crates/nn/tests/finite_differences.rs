//! Every hand-written backward against central differences of its forward; where the forward rounds, against
//! those of the straight-through surrogate, in which rounding is a constant offset.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor, Var};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tritforge_config::ModelConfig;
use tritforge_kernels::{AttentionShape, Gate};
use tritforge_nn::ops::{self, RotaryEmbedding, composed};
use tritforge_nn::{BitLinear, BitLinearConfig, IGNORE_INDEX};
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
    let ids = [3, 0, 3, 1, 2, 4];
    check("embedding", &[random(1, &[5, 4])], |i| ops::embedding(&i[0], &ids));
    agree(
        "embedding",
        &[random(1, &[5, 4])],
        |i| ops::embedding(&i[0], &ids),
        |i| composed::embedding(&i[0], &ids),
    );
}

#[test]
fn rms_norm() {
    let inputs = [random(1, &[3, 10]), random(2, &[10])];
    check("rms_norm", &inputs, |i| ops::rms_norm(&i[0], &i[1], 1e-5));
    agree(
        "rms_norm",
        &inputs,
        |i| ops::rms_norm(&i[0], &i[1], 1e-5),
        |i| composed::rms_norm(&i[0], &i[1], 1e-5),
    );
}

#[test]
fn rope() {
    let config =
        ModelConfig { head_dim: 6, rope_theta: 100.0, max_position_embeddings: 8, ..ModelConfig::default() };
    let table = RotaryEmbedding::new(&config, &Device::Cpu).unwrap();
    let positions: Arc<[u32]> = Arc::from([0, 1, 2, 0, 1, 2]);
    check("rope", &[random(1, &[6, 12])], |i| ops::rope(&i[0], 2, &table, &positions));
    agree(
        "rope",
        &[random(1, &[6, 12])],
        |i| ops::rope(&i[0], 2, &table, &positions),
        |i| composed::rope(&i[0], 2, &table, &positions),
    );
}

#[test]
fn glu() {
    for kind in Gate::ALL {
        let inputs = [random(1, &[3, 7]), random(2, &[3, 7])];
        check("gated", &inputs, |i| ops::glu(kind, &i[0], &i[1]));
        agree("gated", &inputs, |i| ops::glu(kind, &i[0], &i[1]), |i| composed::glu(kind, &i[0], &i[1]));
    }
}

#[test]
fn attention() {
    let shape = AttentionShape { heads: 4, kv_heads: 2, head_dim: 6 };
    let inputs = [random(1, &[10, 24]), random(2, &[10, 12]), random(3, &[10, 12])];
    check("attention", &inputs, |i| ops::attention(shape, &[3, 7], &i[0], &i[1], &i[2]));
    agree(
        "attention",
        &inputs,
        |i| ops::attention(shape, &[3, 7], &i[0], &i[1], &i[2]),
        |i| composed::attention(shape, &[3, 7], &i[0], &i[1], &i[2]),
    );
}

#[test]
fn linear() {
    let inputs = [random(1, &[2, 2, 5]), random(2, &[3, 5])];
    check("linear", &inputs, |i| ops::linear(&i[0], &i[1]));
    agree("linear", &inputs, |i| ops::linear(&i[0], &i[1]), |i| composed::linear(&i[0], &i[1]));
}

#[test]
fn linear_cross_entropy() {
    let targets = [2, IGNORE_INDEX, 0, 6];
    let inputs = [random(1, &[4, 5]), random(2, &[7, 5])];
    let fused = |i: &[Tensor]| ops::linear_cross_entropy(&i[0], &i[1], &targets, 3.0);
    check("linear_cross_entropy", &inputs, fused);
    agree("linear_cross_entropy", &inputs, fused, |i| {
        composed::linear_cross_entropy(&i[0], &i[1], &targets, 3.0)
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
    let dx = offset(&x, &int8_values(&numbers(&x), 9));
    let dw = offset(&w, &ternary_values(&numbers(&w)));
    let inputs = [x, w];
    for op in [ops::bit_linear, composed::bit_linear] {
        check_against(
            "bit_linear",
            &inputs,
            |i| op(&i[0], &i[1]),
            |i| (&i[0] + &dx)?.matmul(&(&i[1] + &dw)?.t()?),
        );
    }
    agree("bit_linear", &inputs, |i| ops::bit_linear(&i[0], &i[1]), |i| composed::bit_linear(&i[0], &i[1]));
    // The sums are of integers and exact on both ways; only the two scales are rounded differently, so that
    // every element, also a small one, agrees to a few units in the last place.
    let (x, w) = (inputs[0].as_tensor(), inputs[1].as_tensor());
    let (fused, composed) = (ops::bit_linear(x, w).unwrap(), composed::bit_linear(x, w).unwrap());
    for (a, b) in numbers(&fused).iter().zip(numbers(&composed.contiguous().unwrap())) {
        assert!((a - b).abs() <= 6e-7 * a.abs(), "bit_linear: {a} against {b}");
    }
}

#[test]
fn fake_quantizers_are_straight_through() {
    let x = random(1, &[4, 9]);
    let offset_w = offset(&x, &ternary_values(&numbers(&x)));
    let offset_x = offset(&x, &int8_values(&numbers(&x), 9));
    let inputs = [x];
    for op in [ops::fake_quantize_weights, composed::fake_quantize_weights] {
        check_against("weights", &inputs, |i| op(&i[0]), |i| &i[0] + &offset_w);
    }
    for op in [ops::fake_quantize_activations, composed::fake_quantize_activations] {
        check_against("activations", &inputs, |i| op(&i[0]), |i| &i[0] + &offset_x);
    }
}

#[test]
fn a_frozen_weight_gets_no_gradient_and_its_input_does() {
    let (x, w) = (random(1, &[4, 9]), random(2, &[5, 9]));
    let y = ops::bit_linear(x.as_tensor(), &w.as_detached_tensor()).unwrap();
    let gradients = y.sum_all().unwrap().backward().unwrap();
    assert!(gradients.get(x.as_tensor()).is_some());
    assert!(gradients.get(w.as_tensor()).is_none());
}

/// The fused and the composed form give the same values and gradients but for rounding: within 1e-5 of the
/// largest.
fn agree(
    name: &str,
    inputs: &[Var],
    fused: impl Fn(&[Tensor]) -> Result<Tensor>,
    composed: impl Fn(&[Tensor]) -> Result<Tensor>,
) {
    let tracked: Vec<Tensor> = inputs.iter().map(|v| v.as_tensor().clone()).collect();
    let (a, b) = (fused(&tracked).unwrap(), composed(&tracked).unwrap());
    assert_eq!(a.dims(), b.dims(), "{name}");
    close(name, &a, &b);
    let weights = random(99, a.dims()).as_detached_tensor();
    let a = weighted(&a, &weights).unwrap().backward().unwrap();
    let b = weighted(&b, &weights).unwrap().backward().unwrap();
    for input in inputs {
        close(name, a.get(input.as_tensor()).unwrap(), b.get(input.as_tensor()).unwrap());
    }
}

fn close(name: &str, a: &Tensor, b: &Tensor) {
    let (a, b) = (numbers(&a.contiguous().unwrap()), numbers(&b.contiguous().unwrap()));
    let size = a.iter().fold(0f32, |m, x| m.max(x.abs()));
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() <= 1e-5 * size, "{name}: {a} against {b}");
    }
}

#[test]
fn a_layer_takes_any_rank_stride_and_float_type() {
    let vb =
        candle_nn::VarBuilder::from_varmap(&candle_nn::VarMap::new(), candle_core::DType::F32, &Device::Cpu);
    let config = BitLinearConfig { bias: true, ..BitLinearConfig::default() };
    let layer = BitLinear::new(6, 4, config, vb).unwrap();
    let forward = |x: &Tensor| candle_nn::Module::forward(&layer, x).unwrap();
    let x = random(5, &[3, 6, 2]).as_detached_tensor().transpose(1, 2).unwrap();
    let y = forward(&x);
    assert_eq!(y.dims(), [3, 2, 4]);
    assert_eq!(numbers(&y), numbers(&forward(&x.contiguous().unwrap())));
    let row = x.get(1).unwrap().get(1).unwrap();
    assert_eq!(numbers(&forward(&row)), numbers(&y.get(1).unwrap().get(1).unwrap()));

    // f64 has no kernel: it takes the composed way.
    let wide = |t: &Tensor| t.to_dtype(candle_core::DType::F64).unwrap();
    let linear = candle_nn::Linear::new(wide(layer.weight()), layer.bias().map(wide));
    let composed = BitLinear::from_linear(&linear, config).unwrap();
    let y64 = candle_nn::Module::forward(&composed, &wide(&x)).unwrap();
    close("f64", &y, &y64.to_dtype(candle_core::DType::F32).unwrap());
}

#[test]
fn weights_without_a_latent_form_are_refused() {
    let linear = candle_nn::Linear::new(random(1, &[2, 3]).as_detached_tensor(), None);
    let weights = tritforge_config::WeightQuant::Ternary;
    let config = BitLinearConfig { weights, ..BitLinearConfig::default() };
    assert!(BitLinear::from_linear(&linear, config).unwrap_err().to_string().contains("Absmean or None"));
}

#[test]
fn an_adapter_begins_as_its_base_and_alone_is_trained() {
    let variables = candle_nn::VarMap::new();
    let vb = candle_nn::VarBuilder::from_varmap(&variables, candle_core::DType::F32, &Device::Cpu);
    let base = BitLinear::new(6, 4, BitLinearConfig::default(), vb.clone()).unwrap();
    let adapted = base.with_lora(2, 4.0, vb).unwrap();
    let x = random(1, &[3, 6]);
    let forward = |layer: &dyn Fn(&Tensor) -> Result<Tensor>| layer(x.as_tensor()).unwrap();
    let y = forward(&|x| candle_nn::Module::forward(&adapted, x));
    assert_eq!(numbers(&y), numbers(&forward(&|x| candle_nn::Module::forward(&base, x))));
    let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let data = variables.data().lock().unwrap();
    assert!(gradients.get(&data["weight"]).is_none());
    let b = numbers(gradients.get(&data["lora_B.weight"]).unwrap());
    assert!(b.iter().any(|g| *g != 0.0));
    assert!(gradients.get(x.as_tensor()).is_some());
}
