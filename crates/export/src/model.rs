//! A model in any form that the program reads, tensor by tensor and in memory: a checkpoint or the run that
//! it belongs to, a GGUF file, a directory in Hugging Face's layout. Nothing is written and nothing is
//! quantized that is not stored as latent weights.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tritforge_checkpoint::{
    AdapterFiles, CONFIG, Checkpoint, Dtype, MANIFEST, TOKENIZER, TOKENIZER_CONFIG, Tensors, latest,
};
use tritforge_config::{ADAPTER_MODEL, ModelConfig, WeightQuant};
use tritforge_ternary::TernaryTensor;
use tritforge_text::Tokenizer;

use crate::import::{Source, Stored};
use crate::plan::{TensorPlan, TensorRole, items};
use crate::tensor_data::{TensorData, check, of_checkpoint};
use crate::{ExportError, ImportOptions};

/// What kind of file or directory holds a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModelFormat {
    /// A checkpoint of this program.
    Checkpoint,
    /// A GGUF file.
    Gguf,
    /// Hugging Face's layout.
    HuggingFace,
}

/// A model that has been opened.
pub struct AnyModel {
    path: PathBuf,
    format: ModelFormat,
    content: Content,
    config: ModelConfig,
    items: Vec<TensorPlan>,
}

enum Content {
    Checkpoint(Checkpoint, Tensors),
    Source(Box<Source>),
}

impl AnyModel {
    /// Opens a checkpoint, the directory of a run (its newest whole checkpoint is taken), a GGUF file, or a
    /// directory in Hugging Face's layout, of which `options` may say what its weights are; `options.latent`
    /// has no meaning here.
    ///
    /// # Errors
    /// If the path is none of these, or what it holds is damaged or of a kind that the engine does not run.
    pub fn open(path: &Path, options: &ImportOptions) -> Result<Self, ExportError> {
        let checkpoint = if path.join(MANIFEST).is_file() {
            Some(path.to_path_buf())
        } else if path.is_dir() && !path.join(CONFIG).is_file() {
            latest(path)?
        } else {
            None
        };
        let adapter = match &checkpoint {
            Some(directory) => Checkpoint::open(directory)?.has(ADAPTER_MODEL),
            None => AdapterFiles::find(path)?.is_some(),
        };
        if adapter {
            let message = format!(
                "an adapter, which is no model by itself: `tritforge merge {} -o DIR` makes one of it and its base",
                path.display()
            );
            return Err(ExportError::Import { path: path.to_path_buf(), message });
        }
        let (path, format, content, config) = match checkpoint {
            Some(directory) => {
                let checkpoint = Checkpoint::open(&directory)?;
                let (tensors, config) = (checkpoint.model_tensors()?, checkpoint.config()?);
                (directory, ModelFormat::Checkpoint, Content::Checkpoint(checkpoint, tensors), config)
            }
            None => {
                let source = Box::new(Source::open(path, options)?);
                let config = source.config().clone();
                let format = match *source {
                    Source::HuggingFace(_) => ModelFormat::HuggingFace,
                    Source::Gguf(_) => ModelFormat::Gguf,
                };
                (path.to_path_buf(), format, Content::Source(source), config)
            }
        };
        Ok(Self { path, format, content, items: items(&config), config })
    }

    /// Where it was found: of a run, the directory of the checkpoint.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of file or directory.
    pub fn format(&self) -> ModelFormat {
        self.format
    }

    /// The kind of file or directory, for people.
    pub fn description(&self) -> String {
        match &self.content {
            Content::Checkpoint(..) => "checkpoint".to_string(),
            Content::Source(source) => source.description(),
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The tokenizer, if there is one.
    ///
    /// # Errors
    /// If it is damaged or of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, ExportError> {
        match &self.content {
            Content::Checkpoint(checkpoint, _) if checkpoint.has(TOKENIZER) => {
                let tokenizer = Tokenizer::from_json(&checkpoint.file(TOKENIZER)?)?;
                Ok(Some(tokenizer.with_config(&checkpoint.file(TOKENIZER_CONFIG)?)?))
            }
            Content::Checkpoint(..) => Ok(None),
            Content::Source(source) => source.tokenizer(),
        }
    }

    /// The numbers of a tensor, by its name in Hugging Face's layout and its shape, row-major: of a ternary
    /// one code · scale, of latent weights these.
    ///
    /// # Errors
    /// If the model has no such tensor, its data is damaged, or a number is NaN or infinite.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ExportError> {
        let fault = |message: String| ExportError::Tensor { tensor: name.to_string(), message };
        let item = self.items.iter().find(|item| item.source == name);
        let item = item.ok_or_else(|| fault("the model has no such tensor".to_string()))?;
        if item.shape != shape {
            return Err(fault(format!("shape {:?}, expected {shape:?}", item.shape)));
        }
        let values = match &self.content {
            Content::Source(source) if source.stored(item)? != Stored::Ternary => {
                source.dense(item)?.into_owned()
            }
            _ => match self.stored(item)? {
                TensorData::Ternary(tensor) => tensor.values(),
                TensorData::Dense(values) => {
                    check(name, &values, item.matrix()[1])?;
                    values.into_owned()
                }
            },
        };
        self.release(item);
        Ok(values)
    }

    /// All tensors that a model of this configuration has.
    pub(crate) fn items(&self) -> &[TensorPlan] {
        &self.items
    }

    /// What is stored: numbers (latent weights among them), NaN and infinity among them, or codes and scale.
    pub(crate) fn stored(&self, item: &TensorPlan) -> Result<TensorData<'_>, ExportError> {
        match &self.content {
            Content::Checkpoint(_, tensors) => {
                let matrix =
                    item.role == TensorRole::Projection && self.config.weights == WeightQuant::Ternary;
                if matrix {
                    return of_checkpoint(tensors, &self.config, item);
                }
                Ok(TensorData::Dense(tensors.f32_as_stored(&item.source, &item.shape)?))
            }
            Content::Source(source) => match source.stored(item)? {
                Stored::Ternary => Ok(TensorData::Ternary(source.ternary(item)?)),
                Stored::F32 | Stored::Bf16 | Stored::Decoded => {
                    Ok(TensorData::Dense(source.dense_as_stored(item)?))
                }
            },
        }
    }

    /// Codes and scale of a projection, if it is ternary: as stored, or of latent weights quantized as
    /// training does.
    pub(crate) fn ternary(
        &self,
        item: &TensorPlan,
        stored: &TensorData<'_>,
    ) -> Result<Option<TernaryTensor>, ExportError> {
        match stored {
            TensorData::Ternary(tensor) => Ok(Some(tensor.clone())),
            TensorData::Dense(values)
                if item.role == TensorRole::Projection && self.config.weights == WeightQuant::Absmean =>
            {
                let [rows, cols] = item.matrix();
                let fault = |source| ExportError::Ternary { tensor: item.source.clone(), source };
                TernaryTensor::quantize(values, rows, cols).map(Some).map_err(fault)
            }
            TensorData::Dense(_) => Ok(None),
        }
    }

    /// The name of the type in which a tensor is stored, and its bytes with those of a scale beside it.
    pub(crate) fn storage(&self, item: &TensorPlan) -> Result<(String, u64), ExportError> {
        match &self.content {
            Content::Checkpoint(_, tensors) => {
                let (dtype, _, bytes) = tensors.raw(&item.source)?;
                let scale = if dtype == Dtype::U8 { size_of::<f32>() } else { 0 };
                Ok((format!("{dtype:?}"), (bytes.len() + scale) as u64))
            }
            Content::Source(source) => source.storage(item),
        }
    }

    /// Lets the system take back the memory pages of a tensor.
    pub(crate) fn release(&self, item: &TensorPlan) {
        match &self.content {
            Content::Checkpoint(_, tensors) => tensors.release(&item.source),
            Content::Source(source) => source.release(item),
        }
    }
}
