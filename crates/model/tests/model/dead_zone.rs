//! The bias of weights with code 0: a model that has it is the model whose ordinary biases it was folded into, to the bit;
//! its gradient is what the chain rule makes of the gradient of those, and what differences of the loss say.

use std::collections::HashMap;

use tritforge_config::{
    ActivationQuant, AttentionBias, Granularity, LOTA_THRESHOLD, LoraConfig, LoraMode, ModelConfig,
    Projection, WeightQuant,
};
use tritforge_model::{Batch, Decoder, GradPrecision, GradientTree, Gradients, Workspace};
use tritforge_ternary::{Scales, Ste};

use crate::common::{grouped_shape, loss_and_gradients, scattered};

const LAMBDA: f32 = 0.03;

fn config(granularity: Granularity, quantizer: &str, attention_bias: AttentionBias) -> ModelConfig {
    ModelConfig {
        use_sub_norm: false,
        attention_bias,
        dead_zone_bias: Some(LAMBDA),
        initializer_range: 0.3,
        ..grouped_shape(granularity, quantizer.parse().unwrap())
    }
}

const ALL: [(Granularity, &str, AttentionBias); 4] = [
    (Granularity::Tensor, "absmean", AttentionBias::None),
    (Granularity::Row, "sherry", AttentionBias::Qkv),
    (Granularity::Group(32), "twn", AttentionBias::All),
    (Granularity::Row, "seq", AttentionBias::Qkv),
];

/// A model with biases that are not 0, where it has some of its own.
fn model(config: &ModelConfig) -> Decoder {
    let model = Decoder::init(config, 5).unwrap();
    for parameter in model.parameters().iter().filter(|p| p.name.ends_with(".bias")) {
        let mut values = parameter.tensor.write();
        values.iter_mut().enumerate().for_each(|(i, x)| *x = 0.3 * (i as f32 * 1.7).sin());
    }
    model
}

/// The sums by their definition, from the codes and the latent weights; with the model's own biases.
fn folded(model: &Decoder) -> Decoder {
    let config = model.config();
    let mut biases: HashMap<String, Vec<f32>> = HashMap::new();
    for (layer, p) in (0..config.num_hidden_layers).flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
        if config.dead_zone(p).is_none() {
            continue;
        }
        let linear = model.projection(layer, p);
        let [rows, cols] = config.projection_shape(p);
        let (codes, latent) = (linear.quantized().unwrap().codes(), linear.latent().unwrap());
        let own = model.values(&p.hf_bias(layer));
        let of_row = |row: usize| {
            let dead = (row * cols..(row + 1) * cols).filter(|i| codes[*i] == 0);
            let mut sum = 0f64;
            dead.for_each(|i| sum += f64::from(latent[i]));
            let bias = (f64::from(LAMBDA) * sum) as f32;
            assert!(bias != 0.0);
            own.as_ref().map_or(bias, |own| own[row] + bias)
        };
        biases.insert(p.hf_bias(layer), (0..rows).map(of_row).collect());
    }
    Decoder::load(&config.folded(), |name, _| {
        Ok(biases.get(name).cloned().unwrap_or_else(|| model.values(name).unwrap()))
    })
    .unwrap()
}

fn index(model: &Decoder, name: &str) -> usize {
    model.parameters().iter().position(|p| p.name == name).unwrap()
}

/// The projections with such a bias, layer by layer.
fn biased(config: &ModelConfig) -> Vec<(usize, Projection)> {
    let all = (0..config.num_hidden_layers).flat_map(|layer| Projection::ALL.map(|p| (layer, p)));
    all.filter(|(_, p)| config.dead_zone(*p).is_some()).collect()
}

#[test]
fn what_is_trained_is_the_folded_model_to_the_bit() {
    for (granularity, quantizer, attention_bias) in ALL {
        let config = config(granularity, quantizer, attention_bias);
        let model = model(&config);
        let folded = folded(&model);
        let ids = scattered(20, 61);
        let logits = |model: &Decoder| model.logits(&ids, 1, None).unwrap();
        assert_eq!(logits(&model), logits(&folded), "{quantizer}");
        for (layer, p) in biased(&config) {
            assert_eq!(model.bias(layer, p), folded.values(&p.hf_bias(layer)));
            assert_eq!(folded.bias(layer, p), folded.values(&p.hf_bias(layer)));
        }
        assert_eq!(model.bias(0, Projection::Up), None);
        assert_eq!(loss_and_gradients(&model).0, loss_and_gradients(&folded).0, "{quantizer}");
        // Without it, it would be another model.
        let plain = ModelConfig { dead_zone_bias: None, ..config };
        let plain = Decoder::load(&plain, |name, _| Ok(model.values(name).unwrap())).unwrap();
        assert_ne!(logits(&model), logits(&plain));
    }
}

#[test]
fn the_gradient_is_that_of_the_folded_biases_times_lambda() {
    for (granularity, quantizer, attention_bias) in ALL {
        let config = config(granularity, quantizer, attention_bias);
        let model = model(&config);
        let folded = folded(&model);
        let learned = config.learns_scales();
        for ste in Ste::ALL.into_iter().filter(|ste| *ste == Ste::Identity || !learned) {
            let (mut found, mut expected) = (loss_and_gradients(&model).1, loss_and_gradients(&folded).1);
            model.apply_ste(ste, &mut found);
            folded.apply_ste(ste, &mut expected);
            let mut through = 0;
            for parameter in model.parameters() {
                let of_name = |(layer, p): &(usize, Projection)| p.hf_weight(*layer) == parameter.name;
                let name = &parameter.name;
                let found = found.get(index(&model, name)).unwrap();
                let plain = expected.get(index(&folded, name)).unwrap();
                let Some((layer, p)) = biased(&config).into_iter().find(of_name) else {
                    assert_eq!(found, plain, "{quantizer}, {ste}, {name}");
                    continue;
                };
                let of_bias = expected.get(index(&folded, &p.hf_bias(layer))).unwrap();
                let codes = model.projection(layer, p).quantized().unwrap().codes();
                let cols = config.projection_shape(p)[1];
                for (i, code) in codes.iter().enumerate() {
                    let dead = if *code == 0 { LAMBDA * of_bias[i / cols] } else { 0.0 };
                    assert_eq!(found[i], plain[i] + dead, "{quantizer}, {ste}, {name}[{i}]");
                    through += usize::from(dead != 0.0);
                }
            }
            assert!(through > 0);
        }
    }
}

/// With trained scales and activations as they are, a dead weight changes the loss through the bias alone: what its gradient gets
/// beside that of the rounding is the slope of the loss.
#[test]
fn the_gradient_is_the_slope_of_the_loss() {
    let config = ModelConfig {
        activations: ActivationQuant::None,
        dead_zone_bias: Some(0.5),
        ..config(Granularity::Tensor, "lsq", AttentionBias::None)
    };
    let mut model = model(&config);
    model.set_grad_precision(GradPrecision::F32).unwrap();
    let mut found = loss_and_gradients(&model).1;
    let plain = found.clone();
    model.apply_ste(Ste::Identity, &mut found);
    for (layer, p) in biased(&config) {
        let name = p.hf_weight(layer);
        let i = index(&model, &name);
        let (found, plain) = (found.get(i).unwrap(), plain.get(i).unwrap());
        let weights = model.values(&name).unwrap();
        let fitted = model.projection(layer, p).fit(&weights).unwrap();
        let scale = fitted.scales().of_tensor().unwrap();
        let through: Vec<f32> = found.iter().zip(plain).map(|(found, plain)| found - plain).collect();
        let size = through.iter().fold(0f32, |most, g| most.max(g.abs()));
        // The largest of them, far from the edge of the dead zone.
        let inside = |i: &usize| weights[*i].abs() < 0.4 * scale;
        let at =
            (0..weights.len()).filter(inside).max_by(|a, b| through[*a].abs().total_cmp(&through[*b].abs()));
        let at = at.unwrap();
        let step = 0.05 * scale;
        let mut moved = |by: f32| {
            let mut moved = weights.clone();
            moved[at] += by;
            model.replace(&name, &moved).unwrap();
            loss_and_gradients(&model).0
        };
        let slope = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        moved(0.0);
        let error = (f64::from(through[at]) - slope).abs() / f64::from(size);
        assert!(size > 0.0 && error < 2e-2, "{name}: {} {slope}", through[at]);
    }
}

/// Micro-batches add up before codes and masks come into it; frozen weights get nothing.
#[test]
fn micro_batches_add_up_and_frozen_weights_stay() {
    let config = config(Granularity::Row, "absmean", AttentionBias::None);
    let model = model(&config);
    let one = loss_and_gradients(&model).1;
    let mut tree = GradientTree::new(model.parameters(), 2);
    // A second step finds nothing of the first.
    for _ in 0..2 {
        tree.clear();
        for _ in 0..2 {
            tree.next_leaf().add(&one);
        }
        tree.finish();
    }
    let (mut once, mut twice) = (one.clone(), tree.total().clone());
    model.apply_ste(Ste::Identity, &mut once);
    model.apply_ste(Ste::Identity, &mut twice);
    for (once, twice) in once.iter().zip(twice.iter()) {
        // Twice a number is exact.
        let expected: Vec<f32> = once.unwrap().iter().map(|g| 2.0 * g).collect();
        assert_eq!(twice.unwrap(), expected);
    }
    let frozen = Projection::Q.hf_weight(0);
    let ids = scattered(41, 61);
    let batch = Batch { ids: &ids[..40], targets: &ids[1..], sequences: 2, segments: &[] };
    let mut gradients = Gradients::new(model.parameters(), |p| p.name != frozen);
    model.forward_backward(&mut Workspace::new(false), &batch, 40.0, &mut gradients).unwrap();
    model.apply_ste(Ste::Identity, &mut gradients);
    for (i, (found, expected)) in gradients.iter().zip(once.iter()).enumerate() {
        assert_eq!(found, expected.filter(|_| model.parameters()[i].name != frozen));
    }
}

/// While the quantization sets in, training sees that part of the bias: the model is one in full precision with these weights and
/// biases. What is deployed has all of it.
#[test]
fn the_bias_sets_in_with_the_quantization() {
    let part = 0.5f32;
    let config = config(Granularity::Row, "absmean", AttentionBias::Qkv);
    let mut model = model(&config);
    let deployed = model.bias(0, Projection::K);
    model.set_blend(&[part; 2], &[0.0; 2]).unwrap();
    model.requantize().unwrap();
    assert_eq!(model.bias(0, Projection::K), deployed);
    let folded = folded(&model);
    let full = ModelConfig {
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        granularity: Granularity::Tensor,
        ..config.folded()
    };
    let all: Vec<_> = (0..2).flat_map(|layer| Projection::ALL.map(|p| (layer, p))).collect();
    let values = |name: &str, _: &[usize]| {
        let own = model.values(name).unwrap();
        if let Some((layer, p)) = all.iter().find(|(layer, p)| p.hf_bias(*layer) == name) {
            let whole = folded.bias(*layer, *p).unwrap();
            return Ok(own.iter().zip(whole).map(|(own, whole)| own + part * (whole - own)).collect());
        }
        let Some((layer, p)) = all.iter().find(|(layer, p)| p.hf_weight(*layer) == name) else {
            return Ok(own);
        };
        let quantized = model.projection(*layer, *p).quantized().unwrap();
        let scales: Scales = quantized.scales();
        let mut values = vec![0f32; own.len()];
        scales.apply(&quantized.codes(), quantized.cols(), &mut values);
        Ok(own.iter().zip(values).map(|(w, value)| w + part * (value - w)).collect())
    };
    let full = Decoder::load(&full, values).unwrap();
    let ((loss, mut found), (expected, of_full)) = (loss_and_gradients(&model), loss_and_gradients(&full));
    assert!((loss - expected).abs() < 1e-6 * expected, "{loss} {expected}");
    model.apply_ste(Ste::Identity, &mut found);
    let (q, bias) = (Projection::Q.hf_weight(1), Projection::Q.hf_bias(1));
    let (found, plain) = (found.get(index(&model, &q)).unwrap(), of_full.get(index(&full, &q)).unwrap());
    let of_bias = of_full.get(index(&full, &bias)).unwrap();
    let codes = model.projection(1, Projection::Q).quantized().unwrap().codes();
    let size = plain.iter().fold(0f32, |most, g| most.max(g.abs()));
    for (i, code) in codes.iter().enumerate() {
        let dead = if *code == 0 { part * LAMBDA * of_bias[i / 64] } else { 0.0 };
        assert!((found[i] - (plain[i] + dead)).abs() < 1e-5 * size, "{i}");
    }
}

#[test]
fn an_adapter_on_it_is_refused() {
    let config = config(Granularity::Tensor, "absmean", AttentionBias::None);
    let model = model(&config);
    let lora = LoraConfig {
        mode: LoraMode::Adapter,
        rank: 2,
        alpha: 2.0,
        dropout: 0.0,
        use_rslora: false,
        target_modules: vec![Projection::Q],
        threshold: LOTA_THRESHOLD,
    };
    let error = Decoder::load_adapted(
        &config,
        &lora,
        |name, _| Ok(model.values(name).unwrap()),
        |_, shape| Ok(vec![0.0; shape.iter().product()]),
    );
    let error = error.unwrap_err().to_string();
    assert!(error.contains("dead_zone_bias = 0.03") && error.contains("export the base"), "{error}");
}
