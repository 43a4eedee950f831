//! Adapters: against peft (files made by `tests/golden/make_lora.py`), the backward against finite differences
//! and against the gradient of the merged weight, and the exact merge.

mod ternary;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tritforge_config::{
    ADAPTER_CONFIG, ADAPTER_MODEL, ActivationQuant, HuggingFaceConfig, LOTA_THRESHOLD, LoraConfig, LoraMode,
    ModelConfig, Projection, Rotation, WeightQuant,
};
use tritforge_model::{
    Batch, Decoder, GradPrecision, Gradients, IGNORE_INDEX, ModelError, Workspace, initial_adapter,
};
use tritforge_ternary::TernaryTensor;

type Tensors = HashMap<String, Vec<f32>>;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// The f32 tensors of a file, and its token ids.
fn read(path: &Path) -> (Tensors, Vec<u32>) {
    let bytes = std::fs::read(path).unwrap();
    let parsed = SafeTensors::deserialize(&bytes).unwrap();
    let (mut tensors, mut ids) = (Tensors::new(), Vec::new());
    for (name, view) in parsed.iter() {
        if view.dtype() == safetensors::Dtype::I64 {
            ids = view.data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
        } else {
            let numbers = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
            tensors.insert(name.to_string(), numbers);
        }
    }
    (tensors, ids)
}

fn give(tensors: &Tensors, name: &str) -> Result<Vec<f32>, ModelError> {
    tensors
        .get(name)
        .cloned()
        .ok_or_else(|| ModelError::Tensor { name: name.to_string(), message: "missing".into() })
}

/// How far two vectors are apart, relative to the second's largest element.
fn distance(ours: &[f32], theirs: &[f32]) -> f32 {
    assert_eq!(ours.len(), theirs.len());
    let size = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
    ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / size
}

fn against_peft(folder: &str, base: &str, weights: WeightQuant, activations: ActivationQuant) {
    let text = std::fs::read_to_string(golden(base).join("config.json")).unwrap();
    let config = ModelConfig { weights, activations, ..HuggingFaceConfig::from_json(&text).unwrap().config };
    let text = std::fs::read_to_string(golden(folder).join(ADAPTER_CONFIG)).unwrap();
    let (lora, name) = LoraConfig::from_json(&text).unwrap();
    assert_eq!(name.as_deref(), Some(base));
    let (masters, _) = read(&golden(base).join("model.safetensors"));
    let (adapter, _) = read(&golden(folder).join(ADAPTER_MODEL));
    let (goldens, ids) = read(&golden(folder).join("goldens.safetensors"));
    let model = Decoder::load_adapted(
        &config,
        &lora,
        |name, _| give(&masters, name),
        |name, _| give(&adapter, &LoraConfig::peft_name(name)),
    )
    .unwrap();
    assert_eq!(model.parameters().len(), adapter.len());

    let sequences = 2;
    let logits = model.logits(&ids, sequences, None).unwrap();
    let largest = logits.iter().zip(&goldens["logits"]).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(largest <= 1e-5, "{folder}: logits differ by {largest}");

    let length = ids.len() / sequences;
    let targets: Vec<u32> =
        (0..ids.len()).map(|i| if (i + 1) % length == 0 { IGNORE_INDEX } else { ids[i + 1] }).collect();
    let batch = Batch { ids: &ids, targets: &targets, sequences, segments: &[] };
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let count = (ids.len() - sequences) as f32;
    let loss = model.forward_backward(&mut Workspace::new(false), &batch, count, &mut gradients).unwrap();
    assert!((loss as f32 - goldens["loss"][0]).abs() <= 1e-5 * goldens["loss"][0]);
    for (parameter, gradient) in model.parameters().iter().zip(gradients.iter()) {
        let name = LoraConfig::peft_name(&parameter.name);
        let apart = distance(gradient.unwrap(), &goldens[&format!("grad.{name}")]);
        assert!(apart <= 1e-5, "{folder}: gradient of {name} differs by {apart}");
    }
}

#[test]
fn peft_on_a_ternary_base() {
    against_peft("lora_bitnet", "bitnet_tiny", WeightQuant::Absmean, ActivationQuant::Absmax);
}

#[test]
fn peft_on_a_full_precision_base_with_rslora() {
    against_peft("lora_llama", "llama_tiny", WeightQuant::None, ActivationQuant::None);
}

fn shape(weights: WeightQuant, activations: ActivationQuant) -> ModelConfig {
    ModelConfig {
        vocab_size: 48,
        hidden_size: 32,
        intermediate_size: 48,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        initializer_range: 0.2,
        weights,
        activations,
        ..ModelConfig::default()
    }
}

fn lora(mode: LoraMode, target_modules: &[Projection]) -> LoraConfig {
    let target_modules = target_modules.to_vec();
    let threshold = LOTA_THRESHOLD;
    LoraConfig { mode, rank: 3, alpha: 4.0, dropout: 0.0, use_rslora: false, target_modules, threshold }
}

/// Values of every tensor that a model asks for: what a new model has.
fn masters(config: &ModelConfig) -> Tensors {
    let quant = ModelConfig { weights: WeightQuant::None, ..config.clone() };
    Decoder::init(&quant, 3).unwrap().snapshot()
}

/// An adapter whose B is not 0.
fn drawn(mode: LoraMode, name: &str, shape: &[usize]) -> Vec<f32> {
    initial_adapter(mode, name.len() as u64)(&name.replace("lora_B", "lora_A"), shape).unwrap()
}

fn adapted(config: &ModelConfig, lora: &LoraConfig, masters: &Tensors) -> Decoder {
    let adapter = |name: &str, shape: &[usize]| Ok(drawn(lora.mode, name, shape));
    Decoder::load_adapted(config, lora, |name, _| give(masters, name), adapter).unwrap()
}

fn tokens() -> (Vec<u32>, Vec<u32>) {
    let ids: Vec<u32> = (0..22).map(|i| i * 7 % 48).collect();
    let mut targets: Vec<u32> = ids.iter().map(|id| (id + 5) % 48).collect();
    targets[3] = IGNORE_INDEX;
    (ids, targets)
}

const SOME: [Projection; 3] = [Projection::Q, Projection::O, Projection::Down];

/// `scaling · Bᵀ · dW` and `scaling · dW · Aᵀ`: the gradients of A [rank, cols] and B [rows, rank] where the
/// weight is W + scaling · B · A.
fn through_the_product(dw: &[f32], a: &[f32], b: &[f32], rank: usize, scaling: f32) -> [Vec<f32>; 2] {
    let (rows, cols) = (b.len() / rank, a.len() / rank);
    let (mut da, mut db) = (vec![0f64; a.len()], vec![0f64; b.len()]);
    for row in 0..rows {
        for k in 0..rank {
            for col in 0..cols {
                let d = f64::from(scaling) * f64::from(dw[row * cols + col]);
                da[k * cols + col] += d * f64::from(b[row * rank + k]);
                db[row * rank + k] += d * f64::from(a[k * cols + col]);
            }
        }
    }
    [da, db].map(|d| d.into_iter().map(|d| d as f32).collect())
}

/// Gradients with and without checkpointing, in f32 and by integers.
const PASSES: [(GradPrecision, bool); 3] =
    [(GradPrecision::F32, false), (GradPrecision::F32, true), (GradPrecision::Int24, false)];

#[test]
fn an_adapter_inside_the_quantizer_has_the_gradient_of_the_merged_weight() {
    let (ids, targets) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[] };
    let ternary = WeightQuant::Absmean;
    for (mode, activations, targets) in [
        (LoraMode::QatLora, ActivationQuant::Absmax, &Projection::ALL[..]),
        (LoraMode::QatLora, ActivationQuant::Absmax, &SOME),
        (LoraMode::QatLora, ActivationQuant::None, &Projection::ALL),
        (LoraMode::Lota, ActivationQuant::Absmax, &Projection::ALL),
        (LoraMode::Lota, ActivationQuant::Absmax, &SOME),
        (LoraMode::Lota, ActivationQuant::None, &Projection::ALL),
    ] {
        for use_sub_norm in [true, false] {
            let config = ModelConfig { use_sub_norm, ..shape(ternary, activations) };
            let masters = masters(&config);
            let lora = lora(mode, targets);
            let mut model = adapted(&config, &lora, &masters);
            assert_eq!(model.parameters().len(), 2 * 2 * targets.len());
            // The merged model, all of whose weights are trained.
            let mut merged = masters.clone();
            let mut scales = HashMap::new();
            let plain = match mode {
                LoraMode::QatLora => {
                    merged.extend(model.merged().unwrap());
                    config.clone()
                }
                _ => {
                    for layer in 0..2 {
                        for projection in Projection::ALL {
                            let (name, shape) =
                                (projection.hf_weight(layer), config.projection_shape(projection));
                            let base = TernaryTensor::quantize(&masters[&name], shape[0], shape[1]).unwrap();
                            let [a, b] = LoraConfig::tensors(layer, projection);
                            let codes = match targets.contains(&projection) {
                                true => moved(
                                    base.codes(),
                                    &drawn(mode, &a, &[3, shape[1]]),
                                    &drawn(mode, &b, &[shape[0], 3]),
                                    shape,
                                    f64::from(LOTA_THRESHOLD) * 3.0,
                                ),
                                false => base.codes().to_vec(),
                            };
                            scales.insert(name.clone(), one_scale(base.scales()));
                            let values = codes
                                .iter()
                                .map(|code| f32::from(*code) * one_scale(base.scales()))
                                .collect();
                            merged.insert(name, values);
                        }
                    }
                    ModelConfig { weights: WeightQuant::Ternary, ..config.clone() }
                }
            };
            let plain = Decoder::load(&plain, |name, _| give(&merged, name)).unwrap();
            let mut of_weights = Gradients::new(plain.parameters(), |_| true);
            let expected =
                plain.forward_backward(&mut Workspace::new(false), &batch, 21.0, &mut of_weights).unwrap();
            for (backward, checkpointing) in PASSES {
                model.set_grad_precision(backward).unwrap();
                let mut gradients = Gradients::new(model.parameters(), |_| true);
                let mut workspace = Workspace::new(checkpointing);
                let loss = model.forward_backward(&mut workspace, &batch, 21.0, &mut gradients).unwrap();
                assert!((loss - expected).abs() < 1e-5, "{mode:?}: {loss} {expected}");
                for (layer, projection) in
                    (0..2).flat_map(|layer| targets.iter().map(move |projection| (layer, *projection)))
                {
                    let name = projection.hf_weight(layer);
                    let index = plain.parameters().iter().position(|p| p.name == name).unwrap();
                    let [rows, cols] = config.projection_shape(projection);
                    let names = LoraConfig::tensors(layer, projection);
                    let a = drawn(mode, &names[0], &[3, cols]);
                    let b = drawn(mode, &names[1], &[rows, 3]);
                    let scaling = scales.get(&name).copied().unwrap_or(lora.scaling());
                    let dw = of_weights.get(index).unwrap();
                    for (name, expected) in names.iter().zip(through_the_product(dw, &a, &b, 3, scaling)) {
                        let i = model.parameters().iter().position(|p| p.name == *name).unwrap();
                        let apart = distance(gradients.get(i).unwrap(), &expected);
                        assert!(apart < 2e-5, "{mode:?} {activations:?}: {name} differs by {apart}");
                    }
                }
            }
        }
    }
}

#[test]
fn an_adapter_beside_the_weight_has_the_gradient_of_finite_differences() {
    let (ids, targets) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[] };
    // Without rounding of activations the loss is smooth in A and B.
    for (weights, targets) in [
        (WeightQuant::Absmean, &Projection::ALL[..]),
        (WeightQuant::None, &Projection::ALL),
        (WeightQuant::None, &SOME),
    ] {
        for (use_sub_norm, projection_norms, rotation) in
            [(true, false, Rotation::None), (false, false, Rotation::None), (true, true, Rotation::Hadamard)]
        {
            let plain = shape(weights, ActivationQuant::None);
            let config = ModelConfig { use_sub_norm, projection_norms, rotation, ..plain };
            let model = adapted(&config, &lora(LoraMode::Adapter, targets), &masters(&config));
            let run = |checkpointing: bool| {
                let mut gradients = Gradients::new(model.parameters(), |_| true);
                let mut workspace = Workspace::new(checkpointing);
                let loss = model.forward_backward(&mut workspace, &batch, 1.0, &mut gradients).unwrap();
                (loss, gradients)
            };
            let (_, gradients) = run(false);
            assert!(run(true).1.iter().zip(gradients.iter()).all(|(a, b)| a == b));
            for (i, parameter) in model.parameters().iter().enumerate() {
                let gradient = gradients.get(i).unwrap();
                let size = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
                for at in [0, gradient.len() / 2, gradient.len() - 1] {
                    let step = 2e-3f32;
                    let moved = |by: f32| {
                        let before = parameter.tensor.read()[at];
                        parameter.tensor.write()[at] = before + by;
                        let loss = run(false).0;
                        parameter.tensor.write()[at] = before;
                        loss
                    };
                    let numeric = ((moved(step) - moved(-step)) / (2.0 * f64::from(step))) as f32;
                    let apart = (numeric - gradient[at]).abs();
                    assert!(apart <= 0.02 * size, "{}[{at}]: {numeric}, {}", parameter.name, gradient[at]);
                }
            }
        }
    }
}

#[test]
fn dropout_is_differentiated_as_it_was_drawn() {
    let config = shape(WeightQuant::None, ActivationQuant::None);
    let lora = LoraConfig { dropout: 0.4, ..lora(LoraMode::Adapter, &Projection::ALL) };
    let masters = masters(&config);
    let (ids, targets) = tokens();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 1, segments: &[] };
    let run = |noise: u64, moved: Option<(&str, usize, f32)>| {
        let adapter = |name: &str, shape: &[usize]| {
            let mut numbers = drawn(lora.mode, name, shape);
            if let Some((_, i, by)) = moved.filter(|(moved, ..)| *moved == name) {
                numbers[i] += by;
            }
            Ok(numbers)
        };
        let model = Decoder::load_adapted(&config, &lora, |name, _| give(&masters, name), adapter).unwrap();
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        workspace.set_noise(noise);
        let loss = model.forward_backward(&mut workspace, &batch, 1.0, &mut gradients).unwrap();
        let names: Vec<String> = model.parameters().iter().map(|p| p.name.clone()).collect();
        (loss, names, gradients)
    };
    let (loss, names, gradients) = run(1, None);
    assert_eq!(loss, run(1, None).0);
    assert_ne!(loss, run(2, None).0);
    for (i, name) in names.iter().enumerate() {
        let gradient = gradients.get(i).unwrap();
        let at = gradient.len() / 2;
        let step = 2e-3f32;
        let difference = run(1, Some((name, at, step))).0 - run(1, Some((name, at, -step))).0;
        let numeric = difference / (2.0 * f64::from(step));
        let size = gradient.iter().fold(0f32, |m, g| m.max(g.abs()));
        let apart = (numeric as f32 - gradient[at]).abs();
        assert!(apart <= 0.02 * size, "{name}[{at}]: {numeric} by differences, {} computed", gradient[at]);
    }
}

#[test]
fn a_merge_inside_the_quantizer_is_exact() {
    let config = shape(WeightQuant::Absmean, ActivationQuant::Absmax);
    let masters = masters(&config);
    let (ids, _) = tokens();
    for targets in [&Projection::ALL[..], &SOME] {
        let model = adapted(&config, &lora(LoraMode::QatLora, targets), &masters);
        let mut merged = masters.clone();
        let mut changed = 0;
        for (name, latent) in model.merged().unwrap() {
            changed += usize::from(merged[&name] != latent);
            merged.insert(name, latent);
        }
        assert_eq!(changed, 2 * targets.len());
        let plain = Decoder::load(&config, |name, _| give(&merged, name)).unwrap();
        for layer in 0..2 {
            for projection in Projection::ALL {
                let weights = |model: &Decoder| {
                    let quantized = model.projection(layer, projection).quantized().unwrap();
                    (quantized.codes(), one_scale(&quantized.scales()).to_bits())
                };
                assert_eq!(weights(&model), weights(&plain), "layer {layer} {projection:?}");
            }
        }
        let bits = |model: &Decoder| -> Vec<u32> {
            model.logits(&ids, 1, None).unwrap().iter().map(|x| x.to_bits()).collect()
        };
        assert_eq!(bits(&model), bits(&plain));
        let untouched = Decoder::load(&config, |name, _| give(&masters, name)).unwrap();
        assert_ne!(bits(&model), bits(&untouched), "the adapter must change something");
    }
}

#[test]
fn a_new_adapter_changes_no_bit() {
    let (ids, _) = tokens();
    for (mode, weights) in [
        (LoraMode::Adapter, WeightQuant::Absmean),
        (LoraMode::Adapter, WeightQuant::None),
        (LoraMode::QatLora, WeightQuant::Absmean),
        (LoraMode::Lota, WeightQuant::Absmean),
    ] {
        let config = shape(weights, ActivationQuant::Absmax);
        let masters = masters(&config);
        let plain = Decoder::load(&config, |name, _| give(&masters, name)).unwrap();
        let lora = lora(mode, &Projection::ALL);
        let initial = initial_adapter(mode, 5);
        let model = Decoder::load_adapted(&config, &lora, |name, _| give(&masters, name), initial).unwrap();
        assert_eq!(model.logits(&ids, 1, None).unwrap(), plain.logits(&ids, 1, None).unwrap());
    }
}

#[test]
fn a_base_of_codes_alone_has_no_place_inside_the_quantizer() {
    let config = shape(WeightQuant::Ternary, ActivationQuant::Absmax);
    let masters = masters(&config);
    let lora = lora(LoraMode::QatLora, &Projection::ALL);
    let initial = initial_adapter(LoraMode::QatLora, 5);
    let error = Decoder::load_adapted(&config, &lora, |name, _| give(&masters, name), initial)
        .unwrap_err()
        .to_string();
    assert!(error.contains("latent"), "{error}");
}

/// What a ternary adapter makes of codes, element by element in integers.
fn moved(codes: &[i8], a: &[f32], b: &[f32], [rows, cols]: [usize; 2], omega: f64) -> Vec<i8> {
    let rank = b.len() / rows;
    let element = |i: usize| {
        let (row, col) = (i / cols, i % cols);
        let delta: i32 = (0..rank).map(|k| b[row * rank + k] as i32 * a[k * cols + col] as i32).sum();
        let step = if f64::from(delta.abs()) > omega { delta.signum() } else { 0 };
        (i32::from(codes[i]) + step).clamp(-1, 1) as i8
    };
    (0..codes.len()).map(element).collect()
}

/// The scale of a matrix that has one.
fn one_scale(scales: &tritforge_ternary::Scales) -> f32 {
    scales.of_tensor().unwrap()
}
