//! Samples of the trace of the Hessian's Gauss-Newton part: their mean is the trace by its definition, over all labels of all targets.

use tritforge_config::{ActivationQuant, AttentionBias, Granularity, ModelConfig, Projection, WeightQuant};
use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, TrainingCodes, Workspace};

use crate::common::{loss_and_gradients, scattered};

fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 61,
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        num_key_value_heads: 1,
        head_dim: 8,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        granularity: Granularity::Row,
        attention_bias: AttentionBias::Qkv,
        ..ModelConfig::default()
    }
}

#[test]
fn the_mean_of_samples_is_the_trace() {
    let model = Decoder::init(&config(), 5).unwrap();
    // Two sequences of six tokens, one of two segments; one target does not count.
    let ids = scattered(12, 61);
    let mut targets = scattered(13, 61)[1..].to_vec();
    targets[4] = IGNORE_INDEX;
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[9] };
    let mut workspace = Workspace::new(false);
    let samples: Vec<Vec<f64>> =
        (0..400).map(|seed| model.gauss_newton_traces(&mut workspace, &batch, seed).unwrap()).collect();
    assert_eq!(samples[0].len(), 14);
    assert_eq!(samples[7], model.gauss_newton_traces(&mut Workspace::new(true), &batch, 7).unwrap());
    assert_ne!(samples[7], samples[8]);

    let full = ModelConfig {
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        granularity: Granularity::Tensor,
        ..config()
    };
    let full = Decoder::load(&full, |name, _| Ok(model.values(name).unwrap())).unwrap();
    let mut gradients = Gradients::new(full.parameters(), |_| true);
    let names: Vec<String> = (0..2).flat_map(|layer| Projection::ALL.map(|p| p.hf_weight(layer))).collect();
    let index = |name: &String| full.parameters().iter().position(|p| p.name == *name).unwrap();
    let indices: Vec<usize> = names.iter().map(index).collect();
    let mut traces = vec![0f64; names.len()];
    let counted: Vec<usize> = (0..12).filter(|i| targets[*i] != IGNORE_INDEX).collect();
    for at in &counted {
        for label in 0..61 {
            let mut only = [IGNORE_INDEX; 12];
            only[*at] = label;
            let batch = Batch { targets: &only, ..batch };
            gradients.clear();
            let loss = full.forward_backward(&mut workspace, &batch, 1.0, &mut gradients).unwrap();
            for (trace, index) in traces.iter_mut().zip(&indices) {
                let squares = gradients.get(*index).unwrap().iter().map(|g| f64::from(*g).powi(2));
                *trace += (-loss).exp() * squares.sum::<f64>() / counted.len() as f64;
            }
        }
    }
    let n = samples.len() as f64;
    for (of, (trace, name)) in traces.iter().zip(&names).enumerate() {
        let mean = samples.iter().map(|sample| sample[of]).sum::<f64>() / n;
        let variance = samples.iter().map(|sample| (sample[of] - mean).powi(2)).sum::<f64>() / n;
        let error = (variance / n).sqrt();
        // The mean of so many is within four of its standard errors, which are small beside it.
        assert!((mean - trace).abs() < 4.0 * error && error < 0.1 * trace, "{name}: {mean} {error} {trace}");
    }
}

#[test]
fn the_model_stays_what_it_is() {
    let mut model = Decoder::init(&config(), 5).unwrap();
    let ids = scattered(13, 61);
    let batch = Batch { ids: &ids[..12], targets: &ids[1..], sequences: 1, segments: &[] };
    let traces = |model: &Decoder| model.gauss_newton_traces(&mut Workspace::new(false), &batch, 3).unwrap();
    let (before, loss) = (model.snapshot(), loss_and_gradients(&model).0);
    let found = traces(&model);
    assert_eq!((model.snapshot(), loss_and_gradients(&model).0), (before.clone(), loss));
    // Nor does it depend on what training sees of the quantization.
    model.set_training_codes(TrainingCodes::Soft { temperature: 0.3, share: 1.0 }, &[]).unwrap();
    model.requantize().unwrap();
    assert_eq!(traces(&model), found);
    let full = ModelConfig { weights: WeightQuant::None, granularity: Granularity::Tensor, ..config() };
    let full = Decoder::load(&full, |name, _| Ok(before[name].clone())).unwrap();
    let error = full.gauss_newton_traces(&mut Workspace::new(false), &batch, 3).unwrap_err().to_string();
    assert!(error.contains("latent weights"), "{error}");
    let few = Batch { targets: &ids[1..5], ..batch };
    assert!(model.gauss_newton_traces(&mut Workspace::new(false), &few, 3).is_err());
}

/// Each matrix has the temperature that its factor says: one model with factors is, matrix by matrix, models without at other
/// temperatures.
#[test]
fn factors_multiply_the_temperature_of_their_matrix() {
    let soft = |temperature| TrainingCodes::Soft { temperature, share: 1.0 };
    let loss = |temperature: f32, factors: &[f32]| {
        let mut model = Decoder::init(&config(), 5).unwrap();
        model.set_training_codes(soft(temperature), factors).unwrap();
        model.requantize().unwrap();
        loss_and_gradients(&model).0
    };
    assert_eq!(loss(0.3, &[]), loss(0.3, &[1.0; 14]));
    assert_eq!(loss(0.3, &[0.5; 14]), loss(0.15, &[]));
    assert_ne!(loss(0.3, &[0.5; 14]), loss(0.3, &[]));
    let mut last = [1.0; 14];
    last[13] = 0.25;
    let losses = [loss(0.3, &last), loss(0.3, &[]), loss(0.3, &[0.25; 14])];
    assert!(losses[0] != losses[1] && losses[0] != losses[2], "{losses:?}");
    let mut model = Decoder::init(&config(), 5).unwrap();
    for (factors, expected) in [(vec![1.0; 3], "14 numbers above 0"), (vec![0.0; 14], "14 numbers above 0")] {
        let error = model.set_training_codes(soft(0.3), &factors).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
