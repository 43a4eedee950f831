//! A model in any form that the program reads, tensor by tensor and in memory: a checkpoint or the run that
//! it belongs to, a GGUF file, a directory in Hugging Face's layout, each with adapters on it. Nothing is
//! written and nothing is quantized that is not stored as latent weights.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tritforge_checkpoint::{Checkpoint, Dtype, MANIFEST, TOKENIZER, TOKENIZER_CONFIG, Tensors};
use tritforge_config::{ModelConfig, WeightQuant};
use tritforge_model::{Decoder, ModelError};
use tritforge_ternary::TernaryTensor;
use tritforge_text::Tokenizer;

use crate::applied::{AppliedAdapter, check_base, joined};
use crate::import::{Source, Stored, not_gguf, scale_name};
use crate::locate::{Located, locate, without_base};
use crate::plan::{DeadZone, TensorPlan, items};
use crate::tensor_data::{TensorData, check, learned_scales, of_checkpoint, quantize};
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

/// A model that has been opened, with the adapters on it.
pub struct LoadedModel {
    path: PathBuf,
    format: ModelFormat,
    content: Content,
    config: ModelConfig,
    items: Vec<TensorPlan>,
    adapters: Vec<AppliedAdapter>,
}

enum Content {
    Checkpoint(Checkpoint, Tensors),
    Source(Box<Source>),
}

impl LoadedModel {
    /// Opens a checkpoint, the directory of a run (its newest whole checkpoint is taken), a GGUF file, a
    /// directory in Hugging Face's layout, of which `options` may say what its weights are, or an adapter, of
    /// a run or as peft writes it, on the base that it names; `options.latent` has no meaning here.
    ///
    /// # Errors
    /// If the path is none of these, or what it holds is damaged or of a kind that the engine does not run.
    pub fn open(path: &Path, options: &ImportOptions) -> Result<Self, ExportError> {
        Self::open_with(path, options, &[])
    }

    /// [`LoadedModel::open`], with further adapters on the model: their directories, and what their products
    /// are multiplied by beside their own scaling. An adapter at `path` itself goes first, with 1.
    ///
    /// # Errors
    /// As [`LoadedModel::open`]; if an adapter cannot be read, or its base is not the one that it was trained
    /// on.
    pub fn open_with(
        path: &Path,
        options: &ImportOptions,
        adapters: &[(PathBuf, f32)],
    ) -> Result<Self, ExportError> {
        Self::of(locate(path)?, options, adapters)
    }

    /// [`LoadedModel::open_with`] for what [`locate`] has found.
    ///
    /// # Errors
    /// As there.
    pub fn of(
        located: Located,
        options: &ImportOptions,
        adapters: &[(PathBuf, f32)],
    ) -> Result<Self, ExportError> {
        let mut applied = Vec::new();
        let located = match located {
            Located::Adapter(files) => {
                let base = locate(&files.base_path(None)?)?;
                applied.push(AppliedAdapter { files: *files, scale: 1.0 });
                base
            }
            model => model,
        };
        for (path, scale) in adapters {
            applied.push(AppliedAdapter::open(path, *scale)?);
        }
        let mut model = Self::without_adapters(located, options)?;
        if let Content::Checkpoint(base, _) = &model.content {
            applied.iter().try_for_each(|adapter| check_base(&adapter.files, base))?;
        }
        model.adapters = applied;
        Ok(model)
    }

    fn without_adapters(located: Located, options: &ImportOptions) -> Result<Self, ExportError> {
        if let (Located::Checkpoint(checkpoint), false) = (&located, options.overrides.is_empty()) {
            return Err(not_gguf(checkpoint.dir()));
        }
        let source_of = |path: PathBuf, format| {
            let source = Box::new(Source::open(&path, format, options)?);
            let config = source.config().clone();
            Ok::<_, ExportError>((path, format, Content::Source(source), config))
        };
        let (path, format, content, config) = match located {
            Located::Checkpoint(checkpoint) => {
                let (tensors, config) = (checkpoint.model_tensors()?, checkpoint.config()?);
                let path = checkpoint.dir().to_path_buf();
                (path, ModelFormat::Checkpoint, Content::Checkpoint(checkpoint, tensors), config)
            }
            Located::Gguf(path) => source_of(path, ModelFormat::Gguf)?,
            Located::HuggingFace(path) => source_of(path, ModelFormat::HuggingFace)?,
            Located::Adapter(files) => {
                let path = files.dir().to_path_buf();
                let message = without_base(&path);
                return Err(ExportError::Import { path, message });
            }
        };
        Ok(Self { path, format, content, items: items(&config), config, adapters: Vec::new() })
    }

    /// Refuses a model with adapters on it, for what looks at the tensors of one model alone.
    ///
    /// # Errors
    /// If there is an adapter.
    pub fn bare(self) -> Result<Self, ExportError> {
        match self.adapters.first() {
            None => Ok(self),
            Some(adapter) => {
                let path = adapter.files.dir().to_path_buf();
                let message = without_base(&path);
                Err(ExportError::Import { path, message })
            }
        }
    }

    /// The adapters on the model.
    pub fn adapters(&self) -> &[AppliedAdapter] {
        &self.adapters
    }

    /// The model with the adapters on it in the training forward, never to be changed: each tensor is read
    /// once, where it lies. Several adapters are stacked: of each projection the rows of all A below each other,
    /// the columns of all B side by side.
    ///
    /// # Errors
    /// If a tensor is missing, damaged, or has NaN or infinity; if an adapter does not fit the model, or is part
    /// of the ternary weights where others stand beside them.
    pub fn decoder(&self) -> Result<Decoder, ExportError> {
        let read = |name: &str, shape: &[usize]| self.parameter(name, shape);
        if self.adapters.is_empty() {
            return Ok(Decoder::load(&self.config, read)?);
        }
        let (lora, mut matrices) = joined(&self.adapters, &self.config)?;
        Ok(Decoder::load_adapted(&self.config, &lora, read, |name, _| {
            let message = "no such matrix".to_string();
            matrices.remove(name).ok_or_else(|| ModelError::Tensor { name: name.to_string(), message })
        })?)
    }

    /// [`LoadedModel::values`], as [`Decoder::load`] asks for them.
    ///
    /// # Errors
    /// As there.
    pub fn parameter(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
        self.values(name, shape).map_err(|e| match e {
            ExportError::Tensor { tensor: name, message } => ModelError::Tensor { name, message },
            other => ModelError::Tensor { name: name.to_string(), message: other.to_string() },
        })
    }

    /// The checkpoint, if the weights come from one.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        match &self.content {
            Content::Checkpoint(checkpoint, _) => Some(checkpoint),
            Content::Source(_) => None,
        }
    }

    /// The files that its configuration and its weights are read from, without those of adapters; of a
    /// checkpoint the manifest, which knows what the others hold.
    pub fn files(&self) -> Vec<PathBuf> {
        match &self.content {
            Content::Checkpoint(checkpoint, _) => vec![checkpoint.dir().join(MANIFEST)],
            Content::Source(source) => source.files(),
        }
    }

    /// Whether the model has a tensor of this name, in Hugging Face's layout.
    pub fn has(&self, name: &str) -> bool {
        self.items.iter().any(|item| item.source == name)
    }

    /// Names, in Hugging Face's layout, and shapes of all its tensors.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.items.iter().map(|item| (item.source.as_str(), &item.shape[..]))
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

    /// The tokenizer, if there is one: that of a run's only adapter, or the base's.
    ///
    /// # Errors
    /// If it is damaged or of a kind that is not supported.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, ExportError> {
        if let [AppliedAdapter { files, scale: 1.0 }] = &self.adapters[..]
            && let Some(own) = files.checkpoint().map(tokenizer_of).transpose()?.flatten()
        {
            return Ok(Some(own));
        }
        match &self.content {
            Content::Checkpoint(checkpoint, _) => tokenizer_of(checkpoint),
            Content::Source(source) => source.tokenizer(),
        }
    }

    /// The numbers of a tensor without what adapters add to it, by its name in Hugging Face's layout and its
    /// shape, row-major: of a ternary one code · scale, of latent weights these.
    ///
    /// # Errors
    /// If the model has no such tensor, its data is damaged, or a number is NaN or infinite.
    pub fn values(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, ExportError> {
        let fault = |message: String| ExportError::Tensor { tensor: name.to_string(), message };
        if let (Some(_), Content::Checkpoint(_, tensors)) = (self.config.learned_scales(name), &self.content)
        {
            let values = tensors.f32_as_stored(name, shape)?.into_owned();
            check(name, &values, 1)?;
            return Ok(values);
        }
        let item = self.items.iter().find(|item| item.source == name);
        let item = item.ok_or_else(|| fault("the model has no such tensor".to_string()))?;
        if item.shape != shape {
            return Err(fault(format!("shape {:?}, expected {shape:?}", item.shape)));
        }
        if let (Content::Checkpoint(_, tensors), Some(DeadZone { own: true, .. })) =
            (&self.content, &item.dead_zone)
        {
            // The model's own bias is a parameter; with that of its dead zone it is what is exported.
            let values = tensors.f32_as_stored(name, shape)?.into_owned();
            check(name, &values, 1)?;
            return Ok(values);
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
                let stored = item.ternary.is_some() && self.config.weights == WeightQuant::Ternary;
                if stored || item.dead_zone.is_some() {
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

    /// Codes and scale of a matrix, if it is ternary: as stored, or of latent weights quantized as
    /// training does.
    pub(crate) fn ternary(
        &self,
        item: &TensorPlan,
        stored: &TensorData<'_>,
    ) -> Result<Option<TernaryTensor>, ExportError> {
        match (stored, item.ternary) {
            (TensorData::Ternary(tensor), _) => Ok(Some(tensor.clone())),
            (TensorData::Dense(values), Some(granularity)) if self.config.weights == WeightQuant::Absmean => {
                let scales = match &self.content {
                    Content::Checkpoint(_, tensors) => {
                        learned_scales(tensors, &self.config, &item.source, item.matrix())?
                    }
                    Content::Source(_) => None,
                };
                let name = &item.source;
                quantize(&self.config, granularity, scales.as_deref(), name, values, item.matrix()).map(Some)
            }
            (TensorData::Dense(_), _) => Ok(None),
        }
    }

    /// The name of the type in which a tensor is stored, and its bytes with those of a scale beside it.
    pub(crate) fn storage(&self, item: &TensorPlan) -> Result<(String, u64), ExportError> {
        match &self.content {
            Content::Checkpoint(..) if matches!(item.dead_zone, Some(DeadZone { own: false, .. })) => {
                Ok(("of the dead zone".to_string(), 0))
            }
            Content::Checkpoint(_, tensors) => {
                let (dtype, _, bytes) = tensors.raw(&item.source)?;
                let scales = match dtype {
                    Dtype::U8 => tensors.raw(&scale_name(item))?.2.len(),
                    _ => 0,
                };
                Ok((format!("{dtype:?}"), (bytes.len() + scales) as u64))
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

/// The tokenizer of a checkpoint, if it has one.
fn tokenizer_of(checkpoint: &Checkpoint) -> Result<Option<Tokenizer>, ExportError> {
    if !checkpoint.has(TOKENIZER) {
        return Ok(None);
    }
    let tokenizer = Tokenizer::from_json(&checkpoint.file(TOKENIZER)?)?;
    Ok(Some(tokenizer.with_config(&checkpoint.file(TOKENIZER_CONFIG)?)?))
}
