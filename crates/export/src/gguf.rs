//! A checkpoint to a GGUF file, tensor by tensor.

use std::borrow::Cow;
use std::path::Path;

use tritforge_checkpoint::{Checkpoint, MODEL, TOKENIZER, TOKENIZER_CONFIG};
use tritforge_config::{ActivationQuant, Architecture, ModelConfig, Runtime, WeightQuant};
use tritforge_gguf::{Metadata, Writer};
use tritforge_kernels::DenseType;
use tritforge_ternary::{Packing, TernaryTensor};
use tritforge_text::Tokenizer;

use crate::ExportError;
use crate::dense::encode;
use crate::plan::{Item, Kind, has_scale_tensor, items, specs};

/// What to write.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// How ternary weights are packed.
    pub packing: Packing,
    /// How the embedding and the head are stored.
    pub embeddings: DenseType,
    /// `general.name`.
    pub name: String,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { packing: Packing::Tq2_0, embeddings: DenseType::F16, name: "tritforge".to_string() }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The file's architecture.
    pub architecture: Architecture,
    /// The runtimes that load the file.
    pub runtimes: Vec<Runtime>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Ternary tensors written.
    pub ternary_tensors: usize,
    /// The largest difference that storing the embedding and the head made; 0 for F32.
    pub embedding_rounding: f32,
    /// The largest relative difference of a scale; 0 where scales are stored as F32.
    pub scale_rounding: f32,
}

/// Writes a checkpoint as a GGUF file, with tokenizer. Peak memory is that of the largest tensor.
///
/// # Errors
/// If the model is not ternary or has no GGUF architecture, its widths do not fit the packing, the checkpoint is damaged,
/// or the file cannot be written; nothing is left under the file's name then.
pub fn export_gguf(
    checkpoint: &Checkpoint,
    out: &Path,
    options: &ExportOptions,
) -> Result<Report, ExportError> {
    let config = checkpoint.config()?;
    let tokenizer = Tokenizer::from_json(&checkpoint.file(TOKENIZER)?)?
        .with_config(&checkpoint.file(TOKENIZER_CONFIG)?)?;
    let tensors = checkpoint.tensors(MODEL)?;
    write_model(&config, &tokenizer, out, options, |item| Ok(tensors.f32(&item.source, &item.shape)?))
}

/// Writes a model whose tensors `source` gives, one after the other.
pub(crate) fn write_model<'a>(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    out: &Path,
    options: &ExportOptions,
    mut source: impl FnMut(&Item) -> Result<Cow<'a, [f32]>, ExportError>,
) -> Result<Report, ExportError> {
    if config.weights != WeightQuant::Absmean || config.activations != ActivationQuant::Absmax {
        return Err(ExportError::NotTernary {
            weights: format!("{:?}", config.weights).to_lowercase(),
            activations: format!("{:?}", config.activations).to_lowercase(),
        });
    }
    let architecture = Architecture::of(config)?;
    let metadata = metadata(config, tokenizer, options)?;
    let items = items(config);
    check_widths(&items, options.packing)?;
    let mut writer =
        Writer::create(out, &metadata, specs(&items, architecture, options.packing, options.embeddings))?;
    let mut report = Report {
        architecture,
        runtimes: architecture.runtimes(options.packing.name()),
        bytes: 0,
        ternary_tensors: 0,
        embedding_rounding: 0.0,
        scale_rounding: 0.0,
    };
    for item in &items {
        write_item(item, &source(item)?, options, &mut writer, &mut report)?;
    }
    writer.finish()?;
    report.bytes = std::fs::metadata(out).map(|m| m.len()).unwrap_or_default();
    Ok(report)
}

fn metadata(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    options: &ExportOptions,
) -> Result<Metadata, ExportError> {
    let mut metadata = Metadata::new();
    for (key, value) in config.to_gguf()? {
        metadata.insert(key, value);
    }
    metadata.insert("general.type", "model");
    metadata.insert("general.name", options.name.as_str());
    // llama.h: LLAMA_FTYPE_MOSTLY_TQ1_0 and _TQ2_0; I2_S as bitnet.cpp numbers it.
    let file_type: u32 = match options.packing {
        Packing::Tq1_0 => 36,
        Packing::Tq2_0 => 37,
        Packing::I2S => 40,
    };
    metadata.insert("general.file_type", file_type);
    metadata.insert("general.quantization_version", 2u32);
    for (key, value) in tokenizer.to_gguf(config.vocab_size)? {
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// Finds a width that the packing cannot hold before anything is written.
fn check_widths(items: &[Item], packing: Packing) -> Result<(), ExportError> {
    for item in items.iter().filter(|item| item.kind == Kind::Ternary) {
        packing
            .packed_len(item.shape[0], item.shape[1])
            .map_err(|source| ExportError::Ternary { tensor: item.source.clone(), source })?;
    }
    Ok(())
}

fn write_item(
    item: &Item,
    values: &[f32],
    options: &ExportOptions,
    writer: &mut Writer,
    report: &mut Report,
) -> Result<(), ExportError> {
    match item.kind {
        Kind::Norm => {
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            writer.write_tensor(&item.target, &bytes)?;
        }
        Kind::Dense => {
            let (bytes, rounding) = encode(options.embeddings, &item.source, values, item.shape[1])?;
            report.embedding_rounding = report.embedding_rounding.max(rounding);
            writer.write_tensor(&item.target, &bytes)?;
        }
        Kind::Ternary => {
            let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
            let tensor = TernaryTensor::quantize(values, item.shape[0], item.shape[1]).map_err(fault)?;
            report.ternary_tensors += 1;
            if has_scale_tensor(item, report.architecture, options.packing) {
                writer.write_tensor(&item.target, &options.packing.pack(&tensor).map_err(fault)?)?;
                writer.write_tensor(&item.scale_name(), &tensor.scale().to_le_bytes())?;
            } else {
                let scale = tensor.scale();
                let bytes = options.packing.pack_with_block_scale(&tensor, scale).map_err(fault)?;
                if options.packing != Packing::I2S {
                    let rounded = half::f16::from_f32(scale).to_f32();
                    report.scale_rounding = report.scale_rounding.max((rounded - scale).abs() / scale);
                }
                writer.write_tensor(&item.target, &bytes)?;
            }
        }
    }
    Ok(())
}
