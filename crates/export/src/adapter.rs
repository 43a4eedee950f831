//! An adapter to a GGUF file, as llama.cpp and the engine load it beside a model.

use std::path::Path;

use tritforge_checkpoint::{Checkpoint, MODEL, Tensors};
use tritforge_config::{
    ADAPTER_CONFIG, ADAPTER_MODEL, ADAPTER_RUNTIME, Architecture, LoraConfig, LoraMode, ModelConfig,
    Projection, WeightQuant,
};
use tritforge_gguf::{GgmlType, Metadata, TensorSpec, Writer};

use crate::ExportError;
use crate::runtimes::Runtime;
use crate::tensor_data::{check, ternary_tensor};

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterReport {
    /// The architecture of the models that the adapter fits.
    pub architecture: Architecture,
    /// The adapter.
    pub config: LoraConfig,
    /// Bytes of the file.
    pub bytes: u64,
    /// Adapted projections, in all blocks.
    pub projections: usize,
}

/// Whether a checkpoint is an adapter.
pub fn is_adapter(checkpoint: &Checkpoint) -> bool {
    checkpoint.has(ADAPTER_MODEL)
}

/// Writes the adapter of a checkpoint as a GGUF file: `general.type = "adapter"`, `adapter.type = "lora"`,
/// and for every adapted projection `<weight>.lora_a` [rank, in] and `<weight>.lora_b` [out, rank] in F32.
///
/// `for_llama_cpp` makes a file for llama.cpp and not for the engine: llama.cpp (llama-cpp-python 0.3.36,
/// `build_ffn` in `llama-graph.cpp`) multiplies a gate's and an up-projection's output by the weight's
/// `.scale` only after it has added the adapter's product, so B is divided by that scale there.
///
/// # Errors
/// If the checkpoint holds no adapter, one that stands inside the quantizer, its base is needed and not
/// there, or the file cannot be written; nothing is left under the file's name then.
pub fn export_adapter(
    checkpoint: &Checkpoint,
    out: &Path,
    name: &str,
    for_llama_cpp: bool,
) -> Result<AdapterReport, ExportError> {
    let text = checkpoint.file(ADAPTER_CONFIG)?;
    let (lora, named) = LoraConfig::from_json(&String::from_utf8_lossy(&text))?;
    if lora.mode != LoraMode::Adapter {
        return Err(ExportError::InsideQuantizer {
            path: checkpoint.dir().to_path_buf(),
            mode: lora.mode.name(),
        });
    }
    let config = checkpoint.config()?;
    let architecture = Architecture::of(&config)?;
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", architecture.name());
    metadata.insert("general.type", "adapter");
    metadata.insert("general.name", name);
    metadata.insert("general.file_type", 0u32);
    metadata.insert("adapter.type", "lora");
    // Readers divide by the rank, whatever the scaling is made of.
    metadata.insert("adapter.lora.alpha", lora.scaling() * lora.rank as f32);
    let scaled = for_llama_cpp && config.weights != WeightQuant::None && architecture.has_scale_tensors();
    let base = match scaled {
        true => Some(Checkpoint::open(Path::new(&named.unwrap_or_default()))?.tensors(MODEL)?),
        false => None,
    };
    if for_llama_cpp {
        metadata.insert(ADAPTER_RUNTIME, Runtime::LlamaCpp.name());
    }
    let targets: Vec<(usize, Projection)> = (0..config.num_hidden_layers)
        .flat_map(|layer| lora.target_modules.iter().map(move |projection| (layer, *projection)))
        .collect();
    let specs = targets.iter().flat_map(|(layer, projection)| {
        let name = projection.gguf_weight(*layer);
        let [rows, cols] = config.projection_shape(*projection).map(|n| n as u64);
        let rank = lora.rank as u64;
        [(".lora_a", vec![cols, rank]), (".lora_b", vec![rank, rows])].map(|(end, dims)| TensorSpec {
            name: format!("{name}{end}"),
            dims,
            ty: GgmlType::F32,
        })
    });
    let mut writer = Writer::create(out, &metadata, specs.collect())?;
    let tensors = checkpoint.tensors(ADAPTER_MODEL)?;
    for (layer, projection) in &targets {
        let name = projection.gguf_weight(*layer);
        let [a, mut b] = matrices(&tensors, &config, &lora, architecture, *layer, *projection)?;
        if let (Some(base), Projection::Gate | Projection::Up) = (&base, projection) {
            let shape = config.projection_shape(*projection);
            let scale = ternary_tensor(base, &config, &projection.hf_weight(*layer), shape)?.scale();
            b.iter_mut().for_each(|b| *b /= scale);
            check(&format!("{name}.lora_b"), &b, lora.rank)?;
        }
        writer.write_tensor(&format!("{name}.lora_a"), &bytes(&a))?;
        writer.write_tensor(&format!("{name}.lora_b"), &bytes(&b))?;
    }
    writer.finish()?;
    let length = std::fs::metadata(out).map(|m| m.len()).unwrap_or_default();
    Ok(AdapterReport { architecture, config: lora, bytes: length, projections: targets.len() })
}

/// A and B of a projection, B's rows in the order in which the architecture stores the weight's.
fn matrices(
    tensors: &Tensors,
    config: &ModelConfig,
    lora: &LoraConfig,
    architecture: Architecture,
    layer: usize,
    projection: Projection,
) -> Result<[Vec<f32>; 2], ExportError> {
    let [rows, cols] = config.projection_shape(projection);
    let rank = lora.rank;
    let [a, b] = LoraConfig::tensors(layer, projection).map(|name| LoraConfig::peft_name(&name));
    let (a, b) = (tensors.f32(&a, &[rank, cols])?, tensors.f32(&b, &[rows, rank])?);
    let mut stored = b.to_vec();
    if architecture.interleaves_rope() && matches!(projection, Projection::Q | Projection::K) {
        for row in 0..rows {
            stored[config.interleaved_row(row) * rank..][..rank].copy_from_slice(&b[row * rank..][..rank]);
        }
    }
    Ok([a.into_owned(), stored])
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
