//! One optimizer step of an adapter against peft and `torch.optim.AdamW` (files made by
//! `tests/golden/make_lora.py`); ternary adapters that learn.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::Tensors;
use tritforge_config::{
    ADAPTER_CONFIG, ADAPTER_MODEL, ActivationQuant, HuggingFaceConfig, LoraConfig, LoraMode, ModelConfig,
    Projection, WeightQuant,
};
use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, ModelError, Workspace, initial_adapter};
use tritforge_train::{AdamW, Optimizer, OptimizerConfig, Rule, Step, StoredType, TSignSgd};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

fn read(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    match tensors.f32(name, shape) {
        Ok(values) => Ok(values.into_owned()),
        Err(e) => Err(ModelError::Tensor { name: name.to_string(), message: e.to_string() }),
    }
}

fn one_step(folder: &str, base: &str, weights: WeightQuant, activations: ActivationQuant) {
    let text = std::fs::read_to_string(golden(base).join("config.json")).unwrap();
    let config = ModelConfig { weights, activations, ..HuggingFaceConfig::from_json(&text).unwrap().config };
    let text = std::fs::read_to_string(golden(folder).join(ADAPTER_CONFIG)).unwrap();
    let (lora, _) = LoraConfig::from_json(&text).unwrap();
    let masters = Tensors::open(&golden(base).join("model.safetensors")).unwrap();
    let adapter = Tensors::open(&golden(folder).join(ADAPTER_MODEL)).unwrap();
    let goldens = Tensors::open(&golden(folder).join("goldens.safetensors")).unwrap();
    let model = Decoder::load_adapted(
        &config,
        &lora,
        |name, shape| read(&masters, name, shape),
        |name, shape| read(&adapter, &LoraConfig::peft_name(name), shape),
    )
    .unwrap();
    let (_, shape, bytes) = goldens.raw("input_ids").unwrap();
    let ids: Vec<u32> = bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as u32).collect();
    let (sequences, length) = (shape[0], shape[1]);
    let targets: Vec<u32> =
        (0..ids.len()).map(|i| if (i + 1) % length == 0 { IGNORE_INDEX } else { ids[i + 1] }).collect();
    let batch = Batch { ids: &ids, targets: &targets, sequences, segments: &[] };
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let count = (ids.len() - sequences) as f32;
    model.forward_backward(&mut Workspace::new(false), &batch, count, &mut gradients).unwrap();

    let rule = Rule::AdamW(AdamW { betas: (0.9, 0.95), eps: 1e-8 });
    let config = OptimizerConfig { rule, state: StoredType::F32, master: StoredType::F32, seed: 0 };
    let mut optimizer = Optimizer::new(config, model.parameters());
    let step = Step { lr: 1e-3, weight_decay: 0.1, gradient_scale: 1.0, decays: true };
    optimizer.step(model.parameters(), &gradients.iter().collect::<Vec<_>>(), step).unwrap();
    for parameter in model.parameters() {
        let name = format!("step.{}", LoraConfig::peft_name(&parameter.name));
        let expected = goldens.f32(&name, parameter.tensor.dims()).unwrap();
        let ours = parameter.tensor.read();
        let apart = ours.iter().zip(&*expected).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(apart <= 1e-5, "{folder}: {name} differs by {apart}");
    }
}

#[test]
fn an_adapter_on_a_ternary_base() {
    one_step("lora_bitnet", "bitnet_tiny", WeightQuant::Absmean, ActivationQuant::Absmax);
}

#[test]
fn an_adapter_on_a_full_precision_base() {
    one_step("lora_llama", "llama_tiny", WeightQuant::None, ActivationQuant::None);
}

#[test]
fn a_ternary_adapter_learns_by_moving_codes() {
    let weights = WeightQuant::Absmean;
    let config = ModelConfig {
        vocab_size: 32,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        initializer_range: 0.2,
        weights,
        ..ModelConfig::default()
    };
    let base = Decoder::init(&config, 4).unwrap();
    let load = |name: &str, _: &[usize]| Ok(base.values(name).unwrap());
    let lora = LoraConfig {
        mode: LoraMode::Lota,
        rank: 8,
        alpha: 8.0,
        dropout: 0.0,
        use_rslora: false,
        target_modules: Projection::ALL.to_vec(),
        threshold: 0.3,
    };
    let initial = initial_adapter(lora.mode, 1);
    let mut model = Decoder::load_adapted(&config, &lora, load, initial).unwrap();
    let ids: Vec<u32> = (0..64).map(|i| (i * i + i / 3) % 32).collect();
    let targets: Vec<u32> = ids.iter().map(|id| (id * 5 + 3) % 32).collect();
    let batch = Batch { ids: &ids, targets: &targets, sequences: 4, segments: &[] };
    let rule = Rule::TSignSgd(TSignSgd);
    let settings = OptimizerConfig { rule, state: StoredType::F32, master: StoredType::F32, seed: 0 };
    let mut optimizer = Optimizer::new(settings, model.parameters());
    let mut gradients = Gradients::new(model.parameters(), |_| true);
    let (mut workspace, mut losses) = (Workspace::new(false), Vec::new());
    let steps = 60;
    for step in 0..steps {
        gradients.clear();
        losses.push(model.forward_backward(&mut workspace, &batch, 64.0, &mut gradients).unwrap());
        let lr = 0.05 * (1.0 - f64::from(step) / f64::from(steps));
        let step = Step { lr, weight_decay: 0.0, gradient_scale: 1.0, decays: true };
        optimizer.step(model.parameters(), &gradients.iter().collect::<Vec<_>>(), step).unwrap();
        model.requantize().unwrap();
    }
    for parameter in model.parameters() {
        let values = parameter.tensor.read();
        assert!(values.iter().all(|x| [-1.0, 0.0, 1.0].contains(x)), "{}", parameter.name);
    }
    let (first, last) = (losses[0], losses[losses.len() - 1]);
    assert!(last < first - 0.5, "{losses:?}");
}
