//! An adapter to a GGUF file, as llama.cpp and the engine load it beside a model.

use std::path::Path;

use tritforge_checkpoint::{AdapterFiles, AdapterModule};
use tritforge_config::{ADAPTER_RUNTIME, Architecture, ModelConfig, Projection, WeightQuant};
use tritforge_gguf::{GgmlType, Metadata, TensorSpec, Writer};

use crate::runtimes::Runtime;
use crate::tensor_data::check;
use crate::{ExportError, ImportOptions, LoadedModel};

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterReport {
    /// The architecture of the models that the adapter fits.
    pub architecture: &'static Architecture,
    /// The inner width of the widest product.
    pub rank: usize,
    /// Bytes of the file.
    pub bytes: u64,
    /// Adapted projections, in all blocks.
    pub projections: usize,
}

/// Writes an adapter as a GGUF file: `general.type = "adapter"`, `adapter.type = "lora"`, and for every
/// adapted projection `<weight>.lora_a` [rank, in] and `<weight>.lora_b` [out, rank] in F32.
///
/// `base` is the model that the adapter belongs to, where it is not the one that the adapter names; the
/// adapter of a run knows the model's shape without it.
///
/// `for_llama_cpp` makes a file for llama.cpp and not for the engine: llama.cpp (llama-cpp-python 0.3.36,
/// `build_ffn` in `llama-graph.cpp`) multiplies a gate's and an up-projection's output by the weight's
/// `.scale` only after it has added the adapter's product, so B is divided by that scale there.
///
/// # Errors
/// If the adapter is damaged or stands inside the quantizer, its base is needed and not there, or the file
/// cannot be written; nothing is left under the file's name then.
pub fn export_adapter(
    adapter: &AdapterFiles,
    base: Option<&Path>,
    out: &Path,
    name: &str,
    for_llama_cpp: bool,
) -> Result<AdapterReport, ExportError> {
    adapter.beside_weights()?;
    let open = || LoadedModel::open(&adapter.base_path(base)?, &ImportOptions::default());
    let (config, mut base) = match adapter.checkpoint() {
        Some(checkpoint) => (checkpoint.config()?, None),
        None => open().map(|model| (model.config().clone(), Some(model)))?,
    };
    let architecture = Architecture::of(&config)?;
    let modules = adapter.modules(&config)?;
    // Readers divide one alpha by each product's rank: what a module's scaling has beside that goes into its
    // B.
    let alpha_of = |found: &AdapterModule| found.module.scaling * found.module.rank as f32;
    let alpha = modules.first().map_or(1.0, alpha_of);
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", architecture.name());
    metadata.insert("general.type", "adapter");
    metadata.insert("general.name", name);
    metadata.insert("general.file_type", 0u32);
    metadata.insert("adapter.type", "lora");
    metadata.insert("adapter.lora.alpha", alpha);
    let scaled = for_llama_cpp && config.weights != WeightQuant::None && architecture.has_scale_tensors();
    if scaled && base.is_none() {
        base = Some(open()?);
    }
    if for_llama_cpp {
        metadata.insert(ADAPTER_RUNTIME, Runtime::LlamaCpp.name());
    }
    let specs = modules.iter().flat_map(|AdapterModule { module, .. }| {
        let name = module.projection.gguf_weight(module.layer);
        let [rows, cols] = config.projection_shape(module.projection).map(|n| n as u64);
        let rank = module.rank as u64;
        [(".lora_a", vec![cols, rank]), (".lora_b", vec![rank, rows])].map(|(end, dims)| TensorSpec {
            name: format!("{name}{end}"),
            dims,
            ty: GgmlType::F32,
        })
    });
    let mut writer = Writer::create(out, &metadata, specs.collect())?;
    for found in &modules {
        let module = found.module;
        let name = module.projection.gguf_weight(module.layer);
        let [a, b] = adapter.matrices(found)?;
        let mut b = in_order(&b, &config, architecture, found);
        if alpha_of(found) != alpha {
            b.iter_mut().for_each(|b| *b *= alpha_of(found) / alpha);
        }
        if let (true, Some(base), Projection::Gate | Projection::Up) = (scaled, &base, module.projection) {
            let scale = scale_of(base, &module.projection.hf_weight(module.layer))?;
            b.iter_mut().for_each(|b| *b /= scale);
        }
        check(&format!("{name}.lora_b"), &b, module.rank)?;
        writer.write_tensor(&format!("{name}.lora_a"), &bytes(&a))?;
        writer.write_tensor(&format!("{name}.lora_b"), &bytes(&b))?;
    }
    writer.finish()?;
    let length = std::fs::metadata(out).map(|m| m.len()).unwrap_or_default();
    let rank = modules.iter().map(|found| found.module.rank).max().unwrap_or(0);
    Ok(AdapterReport { architecture, rank, bytes: length, projections: modules.len() })
}

/// The scale of a base's ternary weight.
fn scale_of(base: &LoadedModel, weight: &str) -> Result<f32, ExportError> {
    let missing = || ExportError::Tensor {
        tensor: weight.to_string(),
        message: "the base has no such ternary weight".to_string(),
    };
    let item = base.items().iter().find(|item| item.source == weight).ok_or_else(missing)?;
    let stored = base.stored(item)?;
    let scales = base.ternary(item, &stored)?.ok_or_else(missing)?.scales().clone();
    scales.of_tensor().ok_or_else(|| ExportError::Tensor {
        tensor: weight.to_string(),
        message: format!(
            "scales of granularity {}: adapters of `bitnet` files, whose scale the runtime applies after the adapter, \
             need one scale a tensor",
            scales.granularity()
        ),
    })
}

/// B [out, rank] with its rows in the order in which the architecture stores the weight's.
fn in_order(b: &[f32], config: &ModelConfig, architecture: &Architecture, found: &AdapterModule) -> Vec<f32> {
    let (rank, mut stored) = (found.module.rank, b.to_vec());
    if architecture.interleaves_rope() && matches!(found.module.projection, Projection::Q | Projection::K) {
        for (row, values) in b.chunks(rank).enumerate() {
            stored[config.interleaved_row(row) * rank..][..rank].copy_from_slice(values);
        }
    }
    stored
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
