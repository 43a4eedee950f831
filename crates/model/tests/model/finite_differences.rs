//! The gradients of the training pass against central differences of its loss, in full precision, where the
//! loss is smooth: every kind of parameter, with and without each optional part of a block.

use tritforge_config::{ActivationQuant, AttentionBias, HiddenAct, ModelConfig, Rotation, WeightQuant};
use tritforge_kernels::hadamard_in_place;
use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, Workspace};

use crate::common::yarn;

const VOCAB: u32 = 23;

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: VOCAB as usize,
        hidden_size: 16,
        intermediate_size: 20,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 4,
        max_position_embeddings: 16,
        initializer_range: 0.3,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..ModelConfig::default()
    }
}

fn check(config: &ModelConfig) {
    let model = Decoder::init(config, 5).unwrap();
    // Biases begin at 0 and norms at 1, where mistakes hide.
    for parameter in model.parameters() {
        if let [_] = parameter.tensor.dims() {
            let mut values = parameter.tensor.write();
            values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.3 * (i as f32 * 1.7).sin());
        }
    }
    let ids: Vec<u32> = (0..24).map(|i| i * 7 % VOCAB).collect();
    let mut targets: Vec<u32> = ids.iter().map(|id| (id + 5) % VOCAB).collect();
    targets[3] = IGNORE_INDEX;
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[5] };
    let run = || {
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let loss = model.forward_backward(&mut Workspace::new(false), &batch, 1.0, &mut gradients).unwrap();
        (loss, gradients)
    };
    let (_, gradients) = run();
    for (i, parameter) in model.parameters().iter().enumerate() {
        let gradient = gradients.get(i).unwrap();
        let size = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
        assert!(size > 0.0, "{} has a zero gradient", parameter.name);
        let largest = gradient.iter().position(|g| g.abs() == size).unwrap();
        for at in [0, largest, gradient.len() - 1] {
            let before = parameter.tensor.read()[at];
            let moved = |by: f32| {
                parameter.tensor.write()[at] = before + by;
                let by = f64::from(parameter.tensor.read()[at]) - f64::from(before);
                (run().0, by)
            };
            let ((up, by_up), (down, by_down)) = (moved(3e-3), moved(-3e-3));
            parameter.tensor.write()[at] = before;
            let numeric = ((up - down) / (by_up - by_down)) as f32;
            let error = (numeric - gradient[at]).abs() / size;
            // The differences are off by the step's square times the third derivative, and by f32 rounding of
            // the forward over the step.
            assert!(error < 1e-2, "{}[{at}]: {} against {numeric}", parameter.name, gradient[at]);
        }
    }
}

#[test]
fn sub_norms_and_a_tied_head() {
    check(&config());
}

#[test]
fn squared_relu_and_a_head_of_its_own() {
    check(&ModelConfig { hidden_act: HiddenAct::Relu2, tie_word_embeddings: false, ..config() });
}

#[test]
fn gelu_gates() {
    check(&ModelConfig { hidden_act: HiddenAct::Gelu, ..config() });
    check(&ModelConfig { hidden_act: HiddenAct::GeluTanh, use_sub_norm: false, ..config() });
}

#[test]
fn norms_before_all_projections() {
    let config = ModelConfig { projection_norms: true, ..config() };
    check(&config);
    check(&ModelConfig { use_qk_norm: true, rotation: Rotation::Hadamard, ..config });
}

#[test]
fn rotated_inputs() {
    // Blocks of 16 and of 4: hidden_size 16, intermediate_size 20.
    let rotated = ModelConfig { rotation: Rotation::Hadamard, ..config() };
    check(&rotated);
    check(&ModelConfig { use_sub_norm: false, ..rotated });
}

/// Weights that are folded with the rotation give the model without: `W·x = (W·H)·(H·x)`.
#[test]
fn a_rotation_is_undone_by_weights_that_are_folded_with_it() {
    let model = Decoder::init(&config(), 5).unwrap();
    let rotated = ModelConfig { rotation: Rotation::Hadamard, ..config() };
    let folded = Decoder::load(&rotated, |name, shape| {
        let mut values = model.values(name).unwrap();
        if name.contains("o_proj") || name.contains("down_proj") {
            hadamard_in_place(&mut values, shape[1]);
        }
        Ok(values)
    });
    let ids: Vec<u32> = (0..12).map(|i| i * 7 % VOCAB).collect();
    let logits = |model: &Decoder| model.logits(&ids, 1, None).unwrap();
    let (ours, theirs) = (logits(&model), logits(&folded.unwrap()));
    let size = ours.iter().fold(0f32, |m, x| m.max(x.abs()));
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-5 * size), "{ours:?} {theirs:?}");
    let unfolded = Decoder::load(&rotated, |name, _| Ok(model.values(name).unwrap())).unwrap();
    assert!(ours.iter().zip(&logits(&unfolded)).any(|(a, b)| (a - b).abs() > 1e-2 * size));
}

#[test]
fn biases_of_all_projections_and_norms_of_heads() {
    let config = ModelConfig { use_sub_norm: false, use_qk_norm: true, ..config() };
    check(&ModelConfig { attention_bias: AttentionBias::All, ..config });
}

#[test]
fn biases_of_queries_keys_and_values_and_scaled_rope() {
    let config = ModelConfig { use_sub_norm: false, rope_scaling: Some(yarn()), ..config() };
    check(&ModelConfig { attention_bias: AttentionBias::Qkv, ..config });
}
