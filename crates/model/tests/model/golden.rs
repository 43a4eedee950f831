//! Logits, loss and gradients against `transformers` (files made by `tests/golden/make_transformers.py`).

use safetensors::SafeTensors;
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, ModelError, Workspace};

#[path = "../../../../tests/golden/transformers.rs"]
mod transformers;
use transformers::{Goldens, MODELS, config, golden};

fn model(dir: &str, config: &ModelConfig) -> Decoder {
    let bytes = std::fs::read(golden(dir).join("model.safetensors")).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    Decoder::load(config, |name, shape| {
        let fault = |message: String| ModelError::Tensor { name: name.to_string(), message };
        let view = parsed.tensor(name).map_err(|e| fault(e.to_string()))?;
        assert_eq!(view.shape(), shape, "{name}");
        Ok(match view.dtype() {
            safetensors::Dtype::BF16 => view
                .data()
                .as_chunks()
                .0
                .iter()
                .map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16))
                .collect(),
            _ => view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        })
    })
    .unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()))
}

fn check(dir: &str, mode: &str, weights: WeightQuant, activations: ActivationQuant) {
    let goldens = Goldens::read(dir);
    let config = config(dir, weights, activations);
    let model = model(dir, &config);
    let ids = &goldens.1;
    let sequences = goldens.0[&format!("{mode}.hidden.0")].0[0];

    let logits = model.logits(ids, sequences, None).unwrap();
    let difference = largest_difference(&logits, goldens.get(&format!("{mode}.logits")));
    assert!(difference <= 1e-5, "{dir} {mode}: logits differ by {difference}");

    // transformers' loss: the next token at every position but each sequence's last.
    let length = ids.len() / sequences;
    let targets: Vec<u32> =
        (0..ids.len()).map(|i| if (i + 1) % length == 0 { IGNORE_INDEX } else { ids[i + 1] }).collect();
    let batch = Batch { ids, targets: &targets, sequences, segments: &[] };
    let count = ids.len() - sequences;
    let golden_loss = goldens.get(&format!("{mode}.loss"))[0];
    let score = model.score(&batch).unwrap();
    assert_eq!(score.targets, count);
    assert!((score.mean() as f32 - golden_loss).abs() <= 1e-5 * golden_loss);

    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let mut workspace = Workspace::new(false);
    let loss = model.forward_backward(&mut workspace, &batch, count as f32, &mut gradients).unwrap();
    assert!((loss as f32 - golden_loss).abs() <= 1e-5 * golden_loss);
    for (i, parameter) in model.parameters().iter().enumerate() {
        let width = *parameter.tensor.dims().last().unwrap();
        let golden = goldens.get(&format!("{mode}.grad.{}", parameter.name));
        let size = golden.iter().fold(0f32, |m, g| m.max(g.abs()));
        let numbers = gradients.get(i).expect("every parameter has a gradient");
        // Matrices are stored by every n-th row.
        let ours: Vec<f32> = match parameter.tensor.dims() {
            [_] => numbers.to_vec(),
            _ => numbers.chunks_exact(width).step_by(goldens.2).flatten().copied().collect(),
        };
        let relative = largest_difference(&ours, golden) / size;
        assert!(relative <= 1e-4, "{dir} {mode}: gradient of {} differs by {relative}", parameter.name);
    }
}

#[test]
fn every_model_is_that_of_transformers() {
    for (dir, mode, weights, activations) in MODELS {
        check(dir, mode, weights, activations);
    }
}
