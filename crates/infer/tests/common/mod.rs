//! Small models with random weights, and adapters for them.
#![allow(dead_code, unused_imports, reason = "every test uses a part of it")]

mod adapter;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_gguf::{Gguf, Metadata};
use tritforge_infer::Model;
use tritforge_kernels::DenseType;

pub(crate) use adapter::{RANK, Stored, adapter_values, write_adapter, write_file};

pub(crate) const CONTEXT: usize = 256;

pub(crate) fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 257,
        hidden_size: 256,
        intermediate_size: 256,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 64,
        max_position_embeddings: CONTEXT,
        initializer_range: 0.5,
        ..ModelConfig::default()
    }
}

/// The same in full precision.
pub(crate) fn full_precision() -> ModelConfig {
    ModelConfig {
        use_sub_norm: false,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..config()
    }
}

pub(crate) fn f32s() -> ExportOptions {
    ExportOptions { linears: DenseType::F32, embeddings: DenseType::F32, ..ExportOptions::default() }
}

/// The file of a model.
pub(crate) fn write(config: &ModelConfig, options: &ExportOptions) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    synth_gguf(config, &path, options, 1, None).unwrap();
    (dir, path)
}

pub(crate) fn model() -> (TempDir, Arc<Model>) {
    let (dir, path) = write(&config(), &ExportOptions::default());
    (dir, Arc::new(Model::open(&path).unwrap()))
}

/// Tokens of which none is special.
pub(crate) fn tokens(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32).map(|i| (i * 37 + seed * 101) % 256).collect()
}

pub(crate) fn bits(numbers: &[f32]) -> Vec<u32> {
    numbers.iter().map(|x| x.to_bits()).collect()
}

/// The file again, with tensors and metadata as `change` leaves them.
pub(crate) fn rewrite(from: &Path, to: &Path, change: impl FnOnce(&mut Metadata, &mut Vec<Stored>)) {
    let gguf = Gguf::open(from).unwrap();
    let mut metadata = gguf.metadata().clone();
    let mut tensors: Vec<Stored> = (gguf.tensors().iter())
        .map(|info| Stored {
            name: info.name.clone(),
            dims: info.dims.clone(),
            ty: info.ty,
            bytes: gguf.data(info).to_vec(),
        })
        .collect();
    change(&mut metadata, &mut tensors);
    write_file(to, &metadata, &tensors);
}
