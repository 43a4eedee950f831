//! A checkpoint to a GGUF file, tensor by tensor.

use std::borrow::Cow;
use std::path::Path;

use tritforge_checkpoint::{Checkpoint, TOKENIZER, TOKENIZER_CONFIG};
use tritforge_config::{ActivationQuant, Architecture, Granularity, ModelConfig, ROPE_FACTORS, WeightQuant};
use tritforge_gguf::{GgmlType, Metadata, TensorSpec, Writer};
use tritforge_kernels::DenseType;
use tritforge_ternary::{
    EMBEDDING_GRANULARITY, GRANULARITY, HEAD_GRANULARITY, I2_S_ARM, I2_S_LAYOUT, Packing, TernaryError,
    TernaryTensor,
};
use tritforge_text::Tokenizer;

use crate::ExportError;
use crate::dense::{encode, ggml_type};
use crate::plan::{TensorPlan, TensorRole, has_scale_tensor, items, specs};
use crate::runtimes::{GgufTraits, Runtime, gguf_verdicts, loading};
use crate::tensor_data::{TensorData, of_checkpoint, reorder};

/// What to write.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// How ternary weights are packed.
    pub packing: Packing,
    /// How the projections of a full-precision model are stored, and those of a ternary one that is
    /// dequantized.
    pub linears: DenseType,
    /// Of a ternary model: write its projections as numbers, code times scale, instead of packing them.
    pub dequantize: bool,
    /// How the embedding and the head are stored, where they are not ternary.
    pub embeddings: DenseType,
    /// `general.name`.
    pub name: String,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            packing: Packing::Tq2_0,
            linears: DenseType::F16,
            dequantize: false,
            embeddings: DenseType::F16,
            name: "tritforge".to_string(),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The file's architecture.
    pub architecture: &'static Architecture,
    /// The runtimes that load the file.
    pub runtimes: Vec<Runtime>,
    /// Bytes of the file.
    pub bytes: u64,
    /// The type of the projections: a packing's name, or a full-precision type's.
    pub weights: &'static str,
    /// Ternary tensors written.
    pub ternary_tensors: usize,
    /// The largest difference that storing the embedding and the head made; 0 for F32.
    pub embedding_rounding: f32,
    /// The largest difference that storing full-precision projections made; 0 for F32.
    pub linear_rounding: f32,
    /// The largest relative difference of a scale; 0 where scales are stored as F32.
    pub scale_rounding: f32,
}

/// Writes a checkpoint as a GGUF file, with tokenizer. Peak memory is that of the largest tensor.
///
/// # Errors
/// If the model is ternary in part or has no GGUF architecture, its widths do not fit the packing, the
/// checkpoint is damaged, or the file cannot be written; nothing is left under the file's name then.
pub fn export_gguf(
    checkpoint: &Checkpoint,
    out: &Path,
    options: &ExportOptions,
) -> Result<Report, ExportError> {
    let config = checkpoint.config()?;
    let tokenizer = Tokenizer::from_json(&checkpoint.file(TOKENIZER)?)?
        .with_config(&checkpoint.file(TOKENIZER_CONFIG)?)?;
    let tensors = checkpoint.model_tensors()?;
    let mut written: Option<String> = None;
    write_model(&config, &tokenizer, out, options, |item| {
        // The pages of the tensor before are not read again.
        if let Some(name) = written.replace(item.source.clone()) {
            tensors.release(&name);
        }
        of_checkpoint(&tensors, &config, item)
    })
}

/// Writes a model whose tensors `source` gives, one after the other.
pub(crate) fn write_model<'a>(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    out: &Path,
    options: &ExportOptions,
    mut source: impl FnMut(&TensorPlan) -> Result<TensorData<'a>, ExportError>,
) -> Result<Report, ExportError> {
    let ternary = match (config.weights, config.activations) {
        (WeightQuant::Absmean | WeightQuant::Ternary, activations) if activations.is_integer() => true,
        (WeightQuant::None, ActivationQuant::None) => false,
        (weights, activations) => {
            return Err(ExportError::NotTernary {
                weights: format!("{weights:?}").to_lowercase(),
                activations: format!("{activations:?}").to_lowercase(),
            });
        }
    };
    let ternary = ternary && !options.dequantize;
    // Weights that are written as numbers are multiplied with inputs as they are.
    let activations = if ternary { config.activations } else { ActivationQuant::None };
    let config = &ModelConfig { activations, ..config.clone() };
    let architecture = Architecture::of(config)?;
    let metadata = metadata(config, tokenizer, ternary, options)?;
    let items = items(config);
    if ternary {
        check_packing(&items, options.packing)?;
    }
    let specs = specs(config, &items, architecture, ternary, options);
    // Both layouts of I2_S have one type; runtimes know one or the other.
    let layout = |ty: GgmlType| if ty == GgmlType::I2_S { options.packing.name() } else { ty.name() };
    let packed = items.iter().filter(|item| item.ternary.is_some());
    let runtimes = loading(&gguf_verdicts(&GgufTraits {
        architecture: architecture.name(),
        types: specs.iter().map(|spec| layout(spec.ty)).collect(),
        scales: specs.iter().any(|spec| spec.name.ends_with(".scale")),
        own_head: !config.tie_word_embeddings,
        ternary_tables: ternary && (config.ternary_embedding.is_some() || config.ternary_head.is_some()),
        pre: metadata.get_str("tokenizer.ggml.pre").ok(),
        least_columns: if ternary { packed.map(|item| item.matrix()[1]).min().unwrap_or(0) } else { 0 },
    }));
    let mut writer = Writer::create(out, &metadata, specs)?;
    let weights = if ternary { options.packing.name() } else { ggml_type(options.linears).name() };
    let mut report = Report {
        architecture,
        runtimes,
        bytes: 0,
        weights,
        ternary_tensors: 0,
        embedding_rounding: 0.0,
        linear_rounding: 0.0,
        scale_rounding: 0.0,
    };
    if let Some(factors) = config.rope_factors() {
        let bytes: Vec<u8> = factors.iter().flat_map(|factor| factor.to_le_bytes()).collect();
        writer.write_tensor(ROPE_FACTORS, &bytes)?;
    }
    for item in &items {
        let numbers = match source(item)? {
            TensorData::Ternary(tensor) if options.dequantize => {
                TensorData::Dense(Cow::Owned(tensor.values()))
            }
            numbers => numbers,
        };
        let numbers = if item.rotated && architecture.interleaves_rope() {
            interleave(config, item, numbers)?
        } else {
            numbers
        };
        write_item(item, numbers, options, &mut writer, &mut report)?;
    }
    writer.finish()?;
    report.bytes = std::fs::metadata(out).map(|m| m.len()).unwrap_or_default();
    Ok(report)
}

/// The rows of queries or keys in the order of an architecture that interleaves RoPE.
fn interleave<'a>(
    config: &ModelConfig,
    item: &TensorPlan,
    numbers: TensorData<'a>,
) -> Result<TensorData<'a>, ExportError> {
    let (rows, cols) = (item.shape[0], item.shape[1..].iter().product());
    let mut stored = vec![0; rows];
    (0..rows).for_each(|row| stored[config.interleaved_row(row)] = row);
    let order = |row: usize| stored[row];
    Ok(match numbers {
        TensorData::Dense(values) => TensorData::Dense(Cow::Owned(reorder(&values, cols, order))),
        TensorData::Ternary(tensor) => {
            let codes = reorder(tensor.codes(), cols, order);
            let tensor = TernaryTensor::from_codes(codes, rows, cols, tensor.scales().reordered(rows, order));
            TensorData::Ternary(
                tensor.map_err(|source| ExportError::Ternary { tensor: item.source.clone(), source })?,
            )
        }
    })
}

fn metadata(
    config: &ModelConfig,
    tokenizer: &Tokenizer,
    ternary: bool,
    options: &ExportOptions,
) -> Result<Metadata, ExportError> {
    let mut metadata = Metadata::new();
    for (key, value) in config.to_gguf()? {
        metadata.insert(key, value);
    }
    metadata.insert("general.type", "model");
    metadata.insert("general.name", options.name.as_str());
    // `enum llama_ftype` of llama.h.
    let file_type: u32 = match (ternary, options.linears) {
        (true, _) => options.packing.file_type(),
        (false, DenseType::F32) => 0,
        (false, DenseType::F16) => 1,
        (false, DenseType::Bf16) => 32,
        (false, DenseType::Q8_0) => 7,
        (false, DenseType::Q6K) => 18,
    };
    metadata.insert("general.file_type", file_type);
    metadata.insert("general.quantization_version", 2u32);
    if ternary && options.packing == Packing::I2SArm {
        metadata.insert(I2_S_LAYOUT, I2_S_ARM);
    }
    if ternary && config.granularity != Granularity::Tensor {
        metadata.insert(GRANULARITY, config.granularity.to_string());
    }
    let tables = [(EMBEDDING_GRANULARITY, config.ternary_embedding), (HEAD_GRANULARITY, config.ternary_head)];
    for (key, granularity) in tables {
        if let Some(granularity) = granularity.filter(|own| ternary && *own != config.granularity) {
            metadata.insert(key, granularity.to_string());
        }
    }
    for (key, value) in tokenizer.to_gguf(config.vocab_size)? {
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// The tensors that a GGUF file of this model would have, without the model's weights.
///
/// # Errors
/// If the model has no GGUF architecture, or its widths or scales do not fit the packing.
pub fn gguf_tensors(config: &ModelConfig, options: &ExportOptions) -> Result<Vec<TensorSpec>, ExportError> {
    let architecture = Architecture::of(config)?;
    let items = items(config);
    let ternary = config.weights != WeightQuant::None && !options.dequantize;
    if ternary {
        check_packing(&items, options.packing)?;
    }
    Ok(specs(config, &items, architecture, ternary, options))
}

/// The packing of a ternary model for which none is chosen: TQ2_0, or the first that has room for its scales.
pub fn default_packing(config: &ModelConfig) -> Packing {
    let preferred = [ExportOptions::default().packing, Packing::Q2_0].into_iter().chain(Packing::ALL);
    let granularities = [Some(config.granularity), config.ternary_embedding, config.ternary_head];
    // The one scale of a table has no place but in the packing.
    let table = |granularity| matches!(granularity, Some(Granularity::Tensor));
    let exact = table(config.ternary_embedding) || table(config.ternary_head);
    let mut holding = preferred.filter(|packing| {
        granularities.iter().flatten().all(|granularity| packing.holds(*granularity))
            && !(exact && packing.is_f16())
    });
    holding.next().unwrap_or(ExportOptions::default().packing)
}

/// Finds widths and scales that the packing cannot hold before anything is written.
fn check_packing(items: &[TensorPlan], packing: Packing) -> Result<(), ExportError> {
    for item in items {
        let [rows, cols] = item.matrix();
        let Some(granularity) = item.ternary.map(|granularity| granularity.on(cols)) else { continue };
        let room = match packing.holds(granularity) {
            true => packing.packed_len(rows, cols).map(|_| ()),
            false => Err(TernaryError::NoRoom {
                packing: packing.name(),
                granularity,
                holding: Packing::holding(granularity),
            }),
        };
        room.map_err(|source| ExportError::Ternary { tensor: item.source.clone(), source })?;
    }
    Ok(())
}

fn write_item(
    item: &TensorPlan,
    numbers: TensorData<'_>,
    options: &ExportOptions,
    writer: &mut Writer,
    report: &mut Report,
) -> Result<(), ExportError> {
    let tensor = match numbers {
        TensorData::Ternary(tensor) => tensor,
        TensorData::Dense(values) => {
            let (ty, rounding) = match item.role {
                TensorRole::Vector => (DenseType::F32, &mut report.embedding_rounding),
                TensorRole::Embedding => (options.embeddings, &mut report.embedding_rounding),
                TensorRole::Projection => (options.linears, &mut report.linear_rounding),
            };
            let (bytes, largest) = encode(ty, &item.source, &values, item.matrix()[1])?;
            *rounding = rounding.max(largest);
            return Ok(writer.write_tensor(&item.target, &bytes)?);
        }
    };
    let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
    report.ternary_tensors += 1;
    let Some(scale) = tensor.scales().of_tensor() else {
        // Scales of rows and groups stand in the blocks or before the rows, exactly.
        return Ok(writer.write_tensor(&item.target, &options.packing.pack(&tensor).map_err(fault)?)?);
    };
    if has_scale_tensor(item, report.architecture, options.packing) {
        writer.write_tensor(&item.target, &options.packing.pack(&tensor).map_err(fault)?)?;
        writer.write_tensor(&item.scale_name(), &scale.to_le_bytes())?;
    } else {
        let bytes = options.packing.pack_with_block_scale(&tensor, scale).map_err(fault)?;
        if options.packing.is_f16() {
            let rounded = half::f16::from_f32(scale).to_f32();
            report.scale_rounding = report.scale_rounding.max((rounded - scale).abs() / scale);
        }
        writer.write_tensor(&item.target, &bytes)?;
    }
    Ok(())
}
