//! The decoder on candle's tape against the fused pass of tritforge-model, in every configuration, on packed
//! documents.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use tritforge_config::{
    ActivationQuant, AttentionBias, Granularity, HiddenAct, ModelConfig, RopeScaling, WeightQuant,
    WeightQuantizer,
};
use tritforge_model::{Gradients, Workspace};
use tritforge_nn::{IGNORE_INDEX, Segments};
use tritforge_ternary::QUANTIZERS;

fn base() -> ModelConfig {
    ModelConfig {
        vocab_size: 40,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: 32,
        initializer_range: 0.3,
        ..ModelConfig::default()
    }
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.contiguous().unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap()
}

/// Compares loss and gradients, each parameter's in units of its largest element.
fn check(config: &ModelConfig, tolerance: f32) {
    let fused = tritforge_model::Decoder::init(config, 5).unwrap();
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let tape = tritforge_nn::Decoder::new(config, vb).unwrap();
    let data = variables.data().lock().unwrap();
    assert_eq!(data.len(), fused.parameters().len());
    for parameter in fused.parameters() {
        let tensor = &parameter.tensor;
        let tensor = Tensor::from_slice(&tensor.read(), tensor.dims(), &Device::Cpu).unwrap();
        data[parameter.name.as_str()].set(&tensor).unwrap();
    }

    let ids: Vec<u32> = (0..48).map(|i| i * 7 % 40).collect();
    let mut targets: Vec<u32> = (0..48).map(|i| (i + 1) * 7 % 40).collect();
    targets[5] = IGNORE_INDEX;
    let (sequences, segments) = (2, [4usize, 31]);
    let cut = Segments::new(ids.len(), sequences, &segments).unwrap();
    let loss = tape.loss_of_batch(&ids, &targets, &cut, 47.0).unwrap();

    let batch = tritforge_model::Batch { ids: &ids, targets: &targets, sequences, segments: &segments };
    let mut gradients = Gradients::new(fused.parameters(), |_| true);
    let of_fused = fused.forward_backward(&mut Workspace::new(false), &batch, 47.0, &mut gradients).unwrap();
    assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - of_fused).abs() <= 1e-5 * of_fused);

    let of_tape = loss.backward().unwrap();
    for (parameter, fused) in fused.parameters().iter().zip(gradients.iter()) {
        let fused = fused.unwrap();
        let name = &parameter.name;
        let tape =
            flat(of_tape.get(data[name.as_str()].as_tensor()).expect("every parameter has a gradient"));
        let size = fused.iter().fold(0f32, |m, g| m.max(g.abs()));
        assert!(size > 0.0, "{name}: the gradient is zero");
        let difference = fused.iter().zip(&tape).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(difference <= tolerance * size, "{config:?}: {name} differs by {difference} of {size}");
    }
}

#[test]
fn loss_and_gradients_agree() {
    let config = ModelConfig { initializer_range: ModelConfig::default().initializer_range, ..base() };
    check(&ModelConfig { use_qk_norm: true, ..config }, 1e-5);
}

/// Scales of rows and groups, and every quantizer: an activation may tip to its neighbor where sums of groups are
/// added in another order.
#[test]
fn every_granularity_and_quantizer_has_the_gradients_of_the_tape() {
    let base = ModelConfig { hidden_size: 64, head_dim: 16, intermediate_size: 128, ..base() };
    for granularity in [Granularity::Row, Granularity::Group(32), Granularity::Group(64)] {
        for activations in [ActivationQuant::Absmax, ActivationQuant::None] {
            check(&ModelConfig { granularity, activations, ..base.clone() }, 2e-5);
        }
    }
    // candle's modules have no learned scales.
    for quantizer in QUANTIZERS.into_iter().filter(|quantizer| quantizer.learned().is_none()) {
        let quantizer = WeightQuantizer::new(quantizer);
        for granularity in [Granularity::Tensor, Granularity::Group(64)] {
            check(&ModelConfig { granularity, quantizer, ..base.clone() }, 2e-5);
        }
    }
}

#[test]
fn every_configuration_has_the_gradients_of_the_tape() {
    for weights in [WeightQuant::Absmean, WeightQuant::None] {
        for activations in [ActivationQuant::Absmax, ActivationQuant::None] {
            // Without ternary weights a last bit may tip the rounding of an activation to its neighbor.
            let tips = weights == WeightQuant::None && activations == ActivationQuant::Absmax;
            let tolerance = if tips { 2e-2 } else { 2e-5 };
            let base = ModelConfig { weights, activations, ..base() };
            let plain = ModelConfig { use_sub_norm: false, ..base.clone() };
            let yarn = RopeScaling::Yarn {
                factor: 4.0,
                beta_fast: 2.0,
                beta_slow: 1.0,
                truncate: true,
                attention_factor: 1.2,
                original_max_position_embeddings: 16,
            };
            for config in [
                ModelConfig { hidden_act: HiddenAct::Relu2, ..base.clone() },
                ModelConfig { hidden_act: HiddenAct::Relu, ..base.clone() },
                ModelConfig { hidden_act: HiddenAct::Gelu, ..plain.clone() },
                ModelConfig { hidden_act: HiddenAct::GeluTanh, ..plain.clone() },
                ModelConfig { tie_word_embeddings: false, ..plain.clone() },
                ModelConfig { attention_bias: AttentionBias::Qkv, ..plain.clone() },
                ModelConfig { attention_bias: AttentionBias::All, use_qk_norm: true, ..base },
                ModelConfig { use_qk_norm: true, head_dim: 20, rope_scaling: Some(yarn), ..plain },
            ] {
                check(&config, tolerance);
            }
        }
    }
}
