//! Blocks alone: the same states as in the whole model, gradients against central differences of a loss of the states.

use tritforge_config::{ActivationQuant, Granularity, ModelConfig, WeightQuant};
use tritforge_model::{BlockStack, Decoder, Gradients, ModelError, Workspace};

fn config(ternary: bool) -> ModelConfig {
    let (weights, activations) = match ternary {
        true => (WeightQuant::Absmean, ActivationQuant::Absmax),
        false => (WeightQuant::None, ActivationQuant::None),
    };
    ModelConfig {
        vocab_size: 23,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 16,
        initializer_range: 0.2,
        granularity: if ternary { Granularity::Group(32) } else { Granularity::Tensor },
        weights,
        activations,
        ..ModelConfig::default()
    }
}

fn stack(model: &Decoder, layers: std::ops::Range<usize>) -> BlockStack {
    BlockStack::load(model.config(), layers, |name, _| Ok(model.values(name).unwrap())).unwrap()
}

fn states(tokens: usize) -> Vec<f32> {
    (0..tokens * 64).map(|i| (i as f32 * 0.7311).sin() * (1.0 + (i % 5) as f32)).collect()
}

#[test]
fn blocks_one_after_the_other_are_the_model() {
    for ternary in [false, true] {
        let model = Decoder::init(&config(ternary), 3).unwrap();
        let ids = [1, 5, 9, 22, 0, 3, 3, 7];
        let table = model.values("model.embed_tokens.weight").unwrap();
        let x: Vec<f32> = ids.iter().flat_map(|id| &table[id * 64..][..64]).copied().collect();
        let mut workspace = Workspace::new(true);
        let whole = stack(&model, 0..3).forward(&mut workspace, &x, 2, 3).unwrap().to_vec();
        let first = stack(&model, 0..3).forward(&mut workspace, &x, 2, 1).unwrap().to_vec();
        let rest = stack(&model, 1..3).forward(&mut workspace, &first, 2, usize::MAX).unwrap();
        assert_eq!(whole, rest);

        // The norm and the head, as their definitions say, give the model's logits.
        let (norm, head) = (model.values("model.norm.weight").unwrap(), model.output_weight().read());
        let ids: Vec<u32> = ids.iter().map(|id| *id as u32).collect();
        let logits = model.logits(&ids, 2, None).unwrap();
        for (x, logits) in whole.chunks_exact(64).zip(logits.chunks_exact(23)) {
            let mean = x.iter().map(|x| x * x).sum::<f32>() / 64.0;
            let root = (mean + model.config().rms_norm_eps).sqrt();
            for (row, logit) in head.chunks_exact(64).zip(logits) {
                let product: f32 = row.iter().zip(x).zip(&norm).map(|((w, x), n)| w * x / root * n).sum();
                assert!((product - logit).abs() < 1e-3 * logit.abs().max(1.0), "{product} {logit}");
            }
        }
    }
}

#[test]
fn gradients_are_those_of_a_loss_of_the_states() {
    let model = Decoder::init(&config(false), 8).unwrap();
    let stack = stack(&model, 1..3);
    let x = states(10);
    let wanted: Vec<f32> = x.iter().rev().copied().collect();
    let loss = |y: &[f32], dy: &mut [f32]| {
        dy.iter_mut().zip(y).zip(&wanted).for_each(|((dy, y), t)| *dy = y - t);
        y.iter().zip(&wanted).map(|(y, t)| 0.5 * f64::from(y - t) * f64::from(y - t)).sum()
    };
    let run = |checkpointing| {
        let mut gradients = Gradients::new(stack.parameters(), |_| true);
        let mut workspace = Workspace::new(checkpointing);
        let loss = stack.forward_backward(&mut workspace, &x, 2, loss, &mut gradients).unwrap();
        (loss, gradients)
    };
    let (_, gradients) = run(false);
    let (_, again) = run(true);
    assert_eq!(stack.parameters().len(), 2 * (7 + 4));
    for (i, parameter) in stack.parameters().iter().enumerate() {
        assert!(
            parameter.name.starts_with("model.layers.1.") || parameter.name.starts_with("model.layers.2.")
        );
        let gradient = gradients.get(i).unwrap();
        assert_eq!(gradient, again.get(i).unwrap(), "{}", parameter.name);
        let size = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
        let largest = gradient.iter().position(|g| g.abs() == size).unwrap();
        for at in [0, largest, gradient.len() - 1] {
            let before = parameter.tensor.read()[at];
            let moved = |by: f32| {
                parameter.tensor.write()[at] = before + by;
                (run(false).0, f64::from(parameter.tensor.read()[at]) - f64::from(before))
            };
            let ((up, by_up), (down, by_down)) = (moved(2e-3), moved(-2e-3));
            parameter.tensor.write()[at] = before;
            let numeric = ((up - down) / (by_up - by_down)) as f32;
            let error = (numeric - gradient[at]).abs() / size;
            assert!(error < 2e-2, "{} at {at}: {numeric}, by hand {}", parameter.name, gradient[at]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let model = Decoder::init(&config(false), 8).unwrap();
    let none = |_: &str, _: &[usize]| -> Result<Vec<f32>, ModelError> { unreachable!() };
    let error = BlockStack::load(model.config(), 2..4, none).unwrap_err().to_string();
    assert!(error.contains("2..4") && error.contains("below the model's 3"), "{error}");
    assert!(BlockStack::load(model.config(), 1..1, none).is_err());
    let mut stack = stack(&model, 0..1);
    let mut workspace = Workspace::new(true);
    for (numbers, sequences) in [(64 * 3, 2), (64 * 34, 2), (63, 1), (64, 0), (0, 1)] {
        let error =
            stack.forward(&mut workspace, &states(40)[..numbers], sequences, 1).unwrap_err().to_string();
        assert!(error.contains("hidden states") && error.contains("at most 16"), "{error}");
    }
    let error = stack.requantize(0.5).unwrap_err().to_string();
    assert!(error.contains("latent weights"), "{error}");
}
