//! Goldens of `transformers` (made by `make_transformers.py`), for the tests of any crate.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use tritforge_config::{ActivationQuant, HuggingFaceConfig, ModelConfig, WeightQuant};

pub(crate) fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden").join(name)
}

/// Tensors with their shapes, ids of the input, and the stride of the rows of gradients that are kept.
pub(crate) struct Goldens(
    pub(crate) HashMap<String, (Vec<usize>, Vec<f32>)>,
    pub(crate) Vec<u32>,
    pub(crate) usize,
);

impl Goldens {
    pub(crate) fn read(dir: &str) -> Self {
        let bytes = std::fs::read(golden(dir).join("goldens.safetensors")).unwrap();
        let parsed = SafeTensors::deserialize(&bytes).unwrap();
        let integers = |name: &str| -> Vec<i64> {
            parsed.tensor(name).unwrap().data().as_chunks().0.iter().map(|b| i64::from_le_bytes(*b)).collect()
        };
        let ids = integers("input_ids").into_iter().map(|id| id as u32).collect();
        let stride = integers("grad_row_stride")[0] as usize;
        let tensors = parsed
            .iter()
            .filter(|(_, view)| view.dtype() == safetensors::Dtype::F32)
            .map(|(name, view)| {
                let numbers = view.data().as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
                (name.to_string(), (view.shape().to_vec(), numbers))
            })
            .collect();
        Self(tensors, ids, stride)
    }

    pub(crate) fn get(&self, name: &str) -> &[f32] {
        &self.0[name].1
    }
}

pub(crate) fn config(dir: &str, weights: WeightQuant, activations: ActivationQuant) -> ModelConfig {
    let text = std::fs::read_to_string(golden(dir).join("config.json")).unwrap();
    ModelConfig { weights, activations, ..HuggingFaceConfig::from_json(&text).unwrap().config }
}

/// What there are logits, loss and gradients of: a model, how it was run, and its quantizers.
pub(crate) const MODELS: [(&str, &str, WeightQuant, ActivationQuant); 6] = [
    ("bitnet_tiny", "plain", WeightQuant::None, ActivationQuant::None),
    ("bitnet_tiny", "online", WeightQuant::Absmean, ActivationQuant::Absmax),
    ("bitnet_silu", "online", WeightQuant::Absmean, ActivationQuant::Absmax),
    ("llama_tiny", "plain", WeightQuant::None, ActivationQuant::None),
    ("qwen2_tiny", "plain", WeightQuant::None, ActivationQuant::None),
    ("qwen3_tiny", "plain", WeightQuant::None, ActivationQuant::None),
];
