//! A published model to a checkpoint, tensor by tensor.
//!
//! What a source says is kept: numbers stay numbers (bf16 as bf16, everything else as f32, block formats
//! decoded once), and codes with their scale stay codes with their scale. Nothing ternary is ever quantized
//! again; [`ImportOptions::latent`] turns codes into weights that training can move, and says so in the
//! configuration.

mod files;
mod generation;
mod gguf;
mod hugging_face;

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tritforge_checkpoint::{MODEL, TOKENIZER, TOKENIZER_CONFIG, TensorSpec, TensorType, Writer};
use tritforge_config::{ModelConfig, Quantization, WeightQuant};
use tritforge_gguf::Override;
use tritforge_ternary::{Scales, TernaryTensor, pack_stripes};
use tritforge_text::Tokenizer;

pub(crate) use self::files::{INDEX, nothing_to_read};
use self::gguf::GgufSource;
use self::hugging_face::HuggingFaceSource;
use crate::ExportError;
use crate::locate::{Located, locate, without_base};
use crate::model::ModelFormat;
use crate::plan::{TensorPlan, items};
use crate::tensor_data::{bf16_bytes, check, f32_bytes};

/// How to read a source.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// What the weights of a Hugging Face checkpoint are, where its `config.json` does not say or says it
    /// wrongly.
    pub assume: Option<Assume>,
    /// Make latent weights of a ternary source, for training: values whose absmean quantization gives the
    /// source's codes and scale. What the source was trained from is lost; this is not it.
    pub latent: bool,
    /// Read I2_S tensors of a GGUF file in the layout of bitnet.cpp's ARM builds. Nothing in a file of theirs
    /// says which layout it has; what this program writes does, and needs no such help.
    pub i2_s_arm: bool,
    /// Metadata of a GGUF file that is set from outside, such as the name of a pre-tokenizer that the file
    /// does not give.
    pub overrides: Vec<Override>,
}

/// What the projections of a checkpoint are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assume {
    /// Full-precision weights of a full-precision model.
    FullPrecision,
    /// Ternary in the way that [`Quantization`] tells.
    Ternary(Quantization),
}

/// What was imported.
#[derive(Debug, Clone, PartialEq)]
pub struct ImportReport {
    /// The kind of source, for people.
    pub source: String,
    /// The model.
    pub config: ModelConfig,
    /// Fields of the source's configuration that this program does not know.
    pub unknown: Vec<String>,
    /// Tensors that were kept as codes and scale.
    pub ternary_tensors: usize,
    /// Tensors that were decoded from a block format, and so hold what the file held, not what it was made
    /// from.
    pub decoded_tensors: usize,
    /// Whether the source has a tokenizer; without one the checkpoint cannot read text.
    pub tokenizer: bool,
}

/// A source's tensor, as it is to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stored {
    F32,
    Bf16,
    /// Decoded to F32.
    Decoded,
    Ternary,
}

/// Refuses metadata that is set from outside for what has none.
pub(crate) fn not_gguf(path: &Path) -> ExportError {
    let message = "--override-kv applies only to GGUF files, and this is not one".to_string();
    ExportError::Import { path: path.to_path_buf(), message }
}

/// A model to be imported.
pub(crate) enum Source {
    HuggingFace(HuggingFaceSource),
    Gguf(GgufSource),
}

impl Source {
    /// Opens a model that is no checkpoint.
    pub(crate) fn open(
        path: &Path,
        format: ModelFormat,
        options: &ImportOptions,
    ) -> Result<Self, ExportError> {
        match format {
            ModelFormat::Gguf => Ok(Source::Gguf(GgufSource::open(path, options)?)),
            _ if !options.overrides.is_empty() => Err(not_gguf(path)),
            _ => Ok(Source::HuggingFace(HuggingFaceSource::open(path, options.assume)?)),
        }
    }

    /// The files that it is read from.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        match self {
            Source::HuggingFace(source) => source.files(),
            Source::Gguf(source) => source.gguf.paths().map(Path::to_path_buf).collect(),
        }
    }

    pub(crate) fn config(&self) -> &ModelConfig {
        match self {
            Source::HuggingFace(source) => &source.config,
            Source::Gguf(source) => &source.config,
        }
    }

    pub(crate) fn stored(&self, item: &TensorPlan) -> Result<Stored, ExportError> {
        match self {
            Source::HuggingFace(source) => source.stored(item),
            Source::Gguf(source) => source.stored(item),
        }
    }

    pub(crate) fn scales(&self, item: &TensorPlan) -> Result<Scales, ExportError> {
        match self {
            Source::HuggingFace(source) => source.scales(item),
            Source::Gguf(source) => source.scales(item),
        }
    }

    pub(crate) fn ternary(&self, item: &TensorPlan) -> Result<TernaryTensor, ExportError> {
        match self {
            Source::HuggingFace(source) => source.ternary(item),
            Source::Gguf(source) => source.ternary(item),
        }
    }

    /// The numbers of a tensor.
    ///
    /// # Errors
    /// If one is NaN or infinite; the tensor is named as the source names it.
    pub(crate) fn dense(&self, item: &TensorPlan) -> Result<Cow<'_, [f32]>, ExportError> {
        match self {
            Source::HuggingFace(source) => {
                let values = source.dense(item)?;
                check(&item.source, &values, item.matrix()[1])?;
                Ok(values)
            }
            Source::Gguf(source) => Ok(Cow::Owned(source.dense(item)?)),
        }
    }

    /// The numbers of a tensor as they are stored, NaN and infinity among them.
    pub(crate) fn dense_as_stored(&self, item: &TensorPlan) -> Result<Cow<'_, [f32]>, ExportError> {
        match self {
            Source::HuggingFace(source) => source.dense(item),
            Source::Gguf(source) => Ok(Cow::Owned(source.dense_as_stored(item)?)),
        }
    }

    /// The kind of source, for people.
    pub(crate) fn description(&self) -> String {
        match self {
            Source::HuggingFace(source) => format!("Hugging Face, {}", source.description),
            Source::Gguf(source) => source.description.clone(),
        }
    }

    /// The type of a tensor as the source names it, and its bytes.
    pub(crate) fn storage(&self, item: &TensorPlan) -> Result<(String, u64), ExportError> {
        match self {
            Source::HuggingFace(source) => source.storage(item),
            Source::Gguf(source) => source.storage(item),
        }
    }

    /// The tokenizer, if the source has one.
    pub(crate) fn tokenizer(&self) -> Result<Option<Tokenizer>, ExportError> {
        match self {
            Source::HuggingFace(source) => Ok(source.tokenizer()?.map(|(tokenizer, _)| tokenizer)),
            Source::Gguf(source) => Ok(Some(Tokenizer::from_gguf(source.gguf.metadata())?)),
        }
    }

    /// The bytes of a tensor that is stored as bf16, if they can be taken as they are.
    fn bf16(&self, item: &TensorPlan) -> Result<Option<&[u8]>, ExportError> {
        match self {
            Source::HuggingFace(source) => source.bf16(item),
            Source::Gguf(source) => source.bf16(item),
        }
    }

    /// Lets the system take back the memory pages of a tensor that has been written.
    pub(crate) fn release(&self, item: &TensorPlan) {
        match self {
            Source::HuggingFace(source) => source.release(item),
            Source::Gguf(source) => source.release(item),
        }
    }
}

/// Imports a model: a directory in Hugging Face's layout, a `.safetensors` file or index with its
/// `config.json` beside it, or a `.gguf` file. Peak memory is that of the largest tensor.
///
/// # Errors
/// If the source cannot be read, is of a kind that the engine does not run, or does not say what its weights
/// are; the message tells what to do. Nothing is left under the checkpoint's name then.
pub fn import(path: &Path, out: &Path, options: &ImportOptions) -> Result<ImportReport, ExportError> {
    let source = match locate(path)? {
        Located::Gguf(path) => Source::open(&path, ModelFormat::Gguf, options)?,
        Located::HuggingFace(path) => Source::open(&path, ModelFormat::HuggingFace, options)?,
        Located::Checkpoint(_) => {
            let message = "a checkpoint already: there is nothing to import".to_string();
            return Err(ExportError::Import { path: path.to_path_buf(), message });
        }
        Located::Adapter(_) => {
            return Err(ExportError::Import { path: path.to_path_buf(), message: without_base(path) });
        }
    };
    let mut config = source.config().clone();
    if options.latent {
        if config.weights != WeightQuant::Ternary {
            let message = "its weights are not stored as ternary codes, so `--latent` does not apply";
            return Err(ExportError::Import { path: path.to_path_buf(), message: message.to_string() });
        }
        config.weights = WeightQuant::Absmean;
    }
    let items = items(&config);
    let mut report = ImportReport {
        source: String::new(),
        config,
        unknown: Vec::new(),
        ternary_tensors: 0,
        decoded_tensors: 0,
        tokenizer: false,
    };
    let mut specs = Vec::new();
    for item in &items {
        let stored = source.stored(item)?;
        check_kind(path, item, stored, source.config().weights)?;
        report.ternary_tensors += usize::from(stored == Stored::Ternary);
        report.decoded_tensors += usize::from(stored == Stored::Decoded);
        specs.extend(specs_of(item, stored, options.latent));
    }
    let mut writer = Writer::create(out)?;
    writer.write_config(&report.config)?;
    report.source = source.description();
    match &source {
        Source::HuggingFace(source) => {
            report.unknown = source.unknown.clone();
            generation::warn(&source.directory);
            if let Some((tokenizer, bytes)) = source.tokenizer()? {
                write_tokenizer(&mut writer, &tokenizer, &bytes)?;
                report.tokenizer = true;
            }
        }
        Source::Gguf(source) => {
            let tokenizer = Tokenizer::from_gguf(source.gguf.metadata())?;
            write_tokenizer(&mut writer, &tokenizer, tokenizer.to_json()?.as_bytes())?;
            report.tokenizer = true;
        }
    }
    write_tensors(&source, &items, specs, options.latent, &mut writer)?;
    writer.commit()?;
    Ok(report)
}

/// A checkpoint is ternary in all its projections or in none; its embedding and head are as the configuration says.
fn check_kind(
    path: &Path,
    item: &TensorPlan,
    stored: Stored,
    weights: WeightQuant,
) -> Result<(), ExportError> {
    let expected = item.ternary.is_some() && weights == WeightQuant::Ternary;
    if (stored == Stored::Ternary) == expected {
        return Ok(());
    }
    let message = if expected {
        format!("tensor {} is not packed, but the configuration says that it is ternary", item.source)
    } else {
        format!("tensor {} is packed, but the configuration does not say how", item.source)
    };
    Err(ExportError::Import { path: path.to_path_buf(), message })
}

/// What a checkpoint holds of a tensor: itself, and the scale of a packed one.
pub(crate) fn specs_of(item: &TensorPlan, stored: Stored, latent: bool) -> Vec<TensorSpec> {
    let spec =
        |name: &str, shape: &[usize], ty| TensorSpec { name: name.to_string(), shape: shape.to_vec(), ty };
    let [rows, cols] = item.matrix();
    let granularity = item.ternary.unwrap_or_default();
    match stored {
        Stored::Ternary if !latent => vec![
            spec(&item.source, &[rows.div_ceil(4), cols], TensorType::U8),
            spec(&scale_name(item), &granularity.scale_shape([rows, cols]), TensorType::F32),
        ],
        Stored::Bf16 => vec![spec(&item.source, &item.shape, TensorType::Bf16)],
        Stored::F32 | Stored::Decoded | Stored::Ternary => {
            vec![spec(&item.source, &item.shape, TensorType::F32)]
        }
    }
}

/// The name of the scale beside a packed tensor of a checkpoint.
pub(crate) fn scale_name(item: &TensorPlan) -> String {
    format!("{}_scale", item.source)
}

fn write_tokenizer(writer: &mut Writer, tokenizer: &Tokenizer, json: &[u8]) -> Result<(), ExportError> {
    writer.write_file(TOKENIZER, json)?;
    Ok(writer.write_file(TOKENIZER_CONFIG, tokenizer.to_config_json().as_bytes())?)
}

fn write_tensors(
    source: &Source,
    items: &[TensorPlan],
    specs: Vec<TensorSpec>,
    latent: bool,
    writer: &mut Writer,
) -> Result<(), ExportError> {
    let mut file = writer.tensor_file(MODEL, specs)?;
    let tensors: HashMap<&str, &TensorPlan> = items.iter().map(|item| (item.source.as_str(), item)).collect();
    let scales: HashMap<String, &TensorPlan> = items.iter().map(|item| (scale_name(item), item)).collect();
    for spec in file.specs().to_vec() {
        let name = &spec.name;
        let Some(item) = tensors.get(name.as_str()) else {
            if let Some(item) = scales.get(name) {
                file.write(name, &f32_bytes(source.scales(item)?.values()))?;
            }
            continue;
        };
        let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
        let bytes: Vec<u8> = match spec.ty {
            TensorType::U8 => {
                let tensor = source.ternary(item)?;
                pack_stripes(tensor.codes(), tensor.rows(), tensor.cols()).map_err(fault)?
            }
            TensorType::F32 if latent && item.ternary.is_some() => {
                f32_bytes(&latent_weights(&source.ternary(item)?)).into_owned()
            }
            // Numbers are not copied where source and checkpoint have them in one form.
            TensorType::F32 => {
                file.write(name, &f32_bytes(&source.dense(item)?))?;
                source.release(item);
                continue;
            }
            TensorType::Bf16 => match source.bf16(item)? {
                Some(stored) => {
                    file.write(name, stored)?;
                    source.release(item);
                    continue;
                }
                None => bf16_bytes(&source.dense(item)?),
            },
        };
        file.write(name, &bytes)?;
        source.release(item);
    }
    Ok(writer.keep(MODEL, file)?)
}

/// Weights whose absmean quantization gives a tensor's codes, and its scales up to a rounding: as the mean
/// magnitude counts the zeros, the others must be larger than the scale by their share.
pub(crate) fn latent_weights(tensor: &TernaryTensor) -> Vec<f32> {
    let scales = tensor.scales();
    let width = scales.granularity().width(tensor.rows(), tensor.cols()).max(1);
    let parts = tensor.codes().chunks(width).zip(scales.values());
    let latent = parts.flat_map(|(codes, scale)| {
        let kept = codes.iter().filter(|code| **code != 0).count();
        let share = kept as f64 / codes.len() as f64;
        let magnitude = if kept > 0 { (f64::from(*scale) / share) as f32 } else { 0.0 };
        codes.iter().map(move |code| f32::from(*code) * magnitude)
    });
    latent.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latent_weights_are_quantized_to_what_they_came_from() {
        for zeros in [0, 1, 3, 60, 63] {
            let codes = (0..64).map(|i| if i < zeros { 0 } else { i as i8 % 2 * 2 - 1 }).collect();
            let tensor = TernaryTensor::from_codes(codes, 4, 16, 0.0371).unwrap();
            let again = TernaryTensor::quantize(&latent_weights(&tensor), 4, 16).unwrap();
            assert_eq!(again.codes(), tensor.codes());
            assert!((again.scales().mean() / tensor.scales().mean() - 1.0).abs() < 1e-6);
        }
    }
}
