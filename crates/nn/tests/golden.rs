//! Logits, loss and gradients against `transformers` (files made by `tests/golden/make_transformers.py`).

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Module, VarBuilder};
use tritforge_config::{ActivationQuant, WeightQuant};
use tritforge_nn::{Decoder, IGNORE_INDEX};

#[path = "../../../tests/golden/transformers.rs"]
mod transformers;
use transformers::{Goldens, MODELS, config, golden};

fn variables(dir: &str) -> HashMap<String, Var> {
    let tensors =
        candle_core::safetensors::load(golden(dir).join("model.safetensors"), &Device::Cpu).unwrap();
    let var = |t: Tensor| Var::from_tensor(&t.to_dtype(DType::F32).unwrap()).unwrap();
    tensors.into_iter().map(|(name, t)| (name, var(t))).collect()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()))
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.contiguous().unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn check(dir: &str, mode: &str, weights: WeightQuant, activations: ActivationQuant) {
    let goldens = Goldens::read(dir);
    let config = config(dir, weights, activations);
    let variables = variables(dir);
    let tensors = variables.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
    let model = Decoder::new(&config, VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)).unwrap();
    let ids = &goldens.1;
    let sequences = goldens.0[&format!("{mode}.hidden.0")].0[0];
    let length = ids.len() / sequences;
    let tensor = |ids: &[u32]| Tensor::from_slice(ids, (sequences, length), &Device::Cpu).unwrap();

    let logits = flat(&model.forward(&tensor(ids)).unwrap());
    let difference = largest_difference(&logits, goldens.get(&format!("{mode}.logits")));
    assert!(difference <= 1e-5, "{dir} {mode}: logits differ by {difference}");

    // transformers' loss: the next token at every position but each sequence's last.
    let targets: Vec<u32> =
        (0..ids.len()).map(|i| if (i + 1) % length == 0 { IGNORE_INDEX } else { ids[i + 1] }).collect();
    let loss = model.loss(&tensor(ids), &tensor(&targets)).unwrap();
    let golden_loss = goldens.get(&format!("{mode}.loss"))[0];
    assert!((loss.to_scalar::<f32>().unwrap() - golden_loss).abs() <= 1e-5 * golden_loss);

    let gradients = loss.backward().unwrap();
    for (name, var) in &variables {
        let gradient = gradients.get(var.as_tensor()).expect("every parameter has a gradient");
        let golden = goldens.get(&format!("{mode}.grad.{name}"));
        let size = golden.iter().fold(0f32, |m, g| m.max(g.abs()));
        let width = *var.dims().last().unwrap();
        let numbers = flat(gradient);
        // Matrices are stored by every n-th row.
        let ours: Vec<f32> = match var.rank() {
            1 => numbers,
            _ => numbers.chunks_exact(width).step_by(goldens.2).flatten().copied().collect(),
        };
        let relative = largest_difference(&ours, golden) / size;
        assert!(relative <= 1e-4, "{dir} {mode}: gradient of {name} differs by {relative}");
    }
}

#[test]
fn every_model_is_that_of_transformers() {
    for (dir, mode, weights, activations) in MODELS {
        check(dir, mode, weights, activations);
    }
}
