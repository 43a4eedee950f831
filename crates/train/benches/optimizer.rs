//! Nanoseconds a parameter of an optimizer's step: `cargo bench -p tritforge-train`.
//!
//! The matrices of shape L of the training benchmarks, 100 M parameters; for Muon, whose cost grows with the
//! width, four of its twelve layers.

use std::time::Instant;

use tritforge_model::{DecayGroup, Parameter, Tensor};
use tritforge_train::{AdamW, Lion, Muon, Optimizer, OptimizerConfig, Rule, Step, StoredType};

const STEPS: usize = 7;

fn main() -> candle_core::Result<()> {
    // SAFETY: no thread has been started yet.
    unsafe { tritforge_machine::configure_threads(None) };
    tritforge_machine::keep_pages();
    let adamw = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
    let (f32, bf16) = (StoredType::F32, StoredType::Bf16);
    for (name, rule, state, master, layers) in [
        ("adamw", Rule::AdamW(adamw), f32, f32, 12),
        ("adamw, bf16 state", Rule::AdamW(adamw), bf16, f32, 12),
        ("adamw, bf16 state and weights", Rule::AdamW(adamw), bf16, bf16, 12),
        ("lion", Rule::Lion(Lion { betas: (0.9, 0.99) }), f32, f32, 12),
        ("muon", Rule::Muon(Muon { adamw, momentum: 0.95 }), f32, f32, 4),
    ] {
        let parameters = parameters(layers);
        let total: usize = parameters.iter().map(|p| p.tensor.len()).sum();
        let gradient = |p: &Parameter| (0..p.tensor.len()).map(|i| (i % 7) as f32 - 3.0).collect();
        let gradients: Vec<Vec<f32>> = parameters.iter().map(gradient).collect();
        let gradients: Vec<Option<&[f32]>> = gradients.iter().map(|g| Some(&g[..])).collect();
        let mut optimizer = Optimizer::new(OptimizerConfig { rule, state, master, seed: 1 }, &parameters);
        let step = Step { lr: 1e-3, weight_decay: 0.1, gradient_scale: 0.5, decays: true };
        let mut times = Vec::new();
        for _ in 0..STEPS {
            let begin = Instant::now();
            optimizer.step(&parameters, &gradients, step)?;
            times.push(begin.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        println!("{name:30} {:.3} ns a parameter", times[STEPS / 2] * 1e9 / total as f64);
    }
    Ok(())
}

/// Embedding and projections of so many layers of shape L.
fn parameters(layers: usize) -> Vec<Parameter> {
    let (d, kv, ffn) = (768, 256, 2048);
    let layer = [(d, d), (kv, d), (kv, d), (d, d), (ffn, d), (ffn, d), (d, ffn)];
    let shapes = [(32000, d)].into_iter().chain((0..layers).flat_map(|_| layer));
    let parameter = |(i, shape): (usize, (usize, usize))| {
        let group = if i == 0 { DecayGroup::NoDecay } else { DecayGroup::Decay };
        let tensor =
            Tensor::new(vec![0.0; shape.0 * shape.1], &[shape.0, shape.1]).expect("a value an element");
        Parameter { name: format!("w{i}"), tensor, group, frozen: false }
    };
    shapes.enumerate().map(parameter).collect()
}
