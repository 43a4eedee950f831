//! Small models with random weights, and adapters for them.
#![allow(dead_code, reason = "every test uses a part of it")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tritforge_config::{ActivationQuant, ModelConfig, Projection, WeightQuant};
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_gguf::{GgmlType, Gguf, Metadata, TensorSpec, Writer};
use tritforge_infer::Model;
use tritforge_kernels::DenseType;

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

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    /// Innermost first.
    pub(crate) dims: Vec<u64>,
    pub(crate) ty: GgmlType,
    pub(crate) bytes: Vec<u8>,
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

pub(crate) fn write_file(to: &Path, metadata: &Metadata, tensors: &[Stored]) {
    let specs =
        tensors.iter().map(|t| TensorSpec { name: t.name.clone(), dims: t.dims.clone(), ty: t.ty }).collect();
    let mut writer = Writer::create(to, metadata, specs).unwrap();
    for tensor in tensors {
        writer.write_tensor(&tensor.name, &tensor.bytes).unwrap();
    }
    writer.finish().unwrap();
}

pub(crate) const RANK: usize = 4;

/// What A (which 0) and B (which 1) of [`write_adapter`] hold.
pub(crate) fn adapter_values(name: &str, which: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + name.len() + which) % 1009) as f32 / 1009.0 - 0.5).collect()
}

/// An adapter of rank [`RANK`] and alpha 4 on two projections of every block, and its tensors.
pub(crate) fn write_adapter(
    path: &Path,
    model: &Model,
    change: impl FnOnce(&mut Metadata, &mut Vec<Stored>),
) {
    let mut metadata = Metadata::new();
    let architecture = model.gguf().metadata().get_str("general.architecture").unwrap();
    metadata.insert("general.architecture", architecture);
    metadata.insert("general.type", "adapter");
    metadata.insert("adapter.type", "lora");
    metadata.insert("adapter.lora.alpha", 4f32);
    let mut tensors = Vec::new();
    for layer in 0..model.config().num_hidden_layers {
        for projection in [Projection::Q, Projection::Down] {
            let [rows, cols] = model.config().projection_shape(projection);
            let weight = projection.gguf_weight(layer);
            for (which, (end, dims)) in
                [(".lora_a", [cols, RANK]), (".lora_b", [RANK, rows])].into_iter().enumerate()
            {
                let name = format!("{weight}{end}");
                let values = adapter_values(&weight, which, dims[0] * dims[1]);
                tensors.push(Stored {
                    name,
                    dims: dims.map(|n| n as u64).to_vec(),
                    ty: GgmlType::F32,
                    bytes: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
                });
            }
        }
    }
    change(&mut metadata, &mut tensors);
    write_file(path, &metadata, &tensors);
}
