//! AdamW against `torch.optim.AdamW` (`tests/golden/adamw.json`, made by `tests/golden/make_transformers.py`).

use candle_core::{Device, Var};
use serde::Deserialize;
use tritforge_nn::{DecayGroup, Parameter};
use tritforge_train::{AdamW, AdamWConfig};

#[derive(Deserialize)]
struct Golden {
    lr: f64,
    beta1: f64,
    beta2: f64,
    eps: f64,
    weight_decay: f64,
    initial: Vec<f32>,
    gradients: Vec<Vec<f32>>,
    parameters: Vec<Vec<f32>>,
}

fn parameter(values: &[f32], group: DecayGroup) -> Parameter {
    let var = Var::from_slice(values, values.len(), &Device::Cpu).unwrap();
    Parameter { name: "w".to_string(), var, group }
}

#[test]
fn every_step_is_torchs() {
    let golden: Golden = serde_json::from_str(include_str!("../../../tests/golden/adamw.json")).unwrap();
    let config = AdamWConfig {
        betas: (golden.beta1, golden.beta2),
        eps: golden.eps,
        weight_decay: golden.weight_decay,
    };
    let parameters = [parameter(&golden.initial, DecayGroup::Decay)];
    let mut optimizer = AdamW::new(config, &parameters);
    for (step, (gradient, expected)) in golden.gradients.iter().zip(&golden.parameters).enumerate() {
        if step == 2 {
            // What a checkpoint does: the state goes out and comes back.
            optimizer = AdamW::restore(config, optimizer.moments().to_vec(), optimizer.steps());
        }
        optimizer.step(&parameters, &[Some(gradient)], golden.lr, 1.0).unwrap();
        let found = parameters[0].var.to_vec1::<f32>().unwrap();
        for (f, e) in found.iter().zip(expected) {
            assert!((f - e).abs() <= 1e-6, "step {step}: {f} against {e}");
        }
    }
}

#[test]
fn norms_and_embeddings_do_not_decay() {
    let config = AdamWConfig { betas: (0.9, 0.95), eps: 1e-8, weight_decay: 0.5 };
    let parameters = [parameter(&[2.0], DecayGroup::Decay), parameter(&[2.0], DecayGroup::NoDecay)];
    let zero = Some(&[0f32][..]);
    AdamW::new(config, &parameters).step(&parameters, &[zero, zero], 0.1, 1.0).unwrap();
    assert_eq!(parameters[0].var.to_vec1::<f32>().unwrap(), [1.9]);
    assert_eq!(parameters[1].var.to_vec1::<f32>().unwrap(), [2.0]);
}
