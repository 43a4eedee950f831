//! A model to be evaluated: a checkpoint or a directory in Hugging Face's layout through the training
//! forward, or a GGUF file through the engine.

use std::path::Path;
use std::sync::Arc;

use tritforge_checkpoint::{Checkpoint, MANIFEST, TOKENIZER, TOKENIZER_CONFIG, Tensors, latest};
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL, LoraConfig, ModelConfig};
use tritforge_export::{AnyModel, ExportError, ImportOptions};
use tritforge_infer::{KvType, LogitsRequest, Model, Session};
use tritforge_nn::{Decoder, NnError};
use tritforge_text::Tokenizer;

use crate::EvalError;
use crate::finite::finite;

/// A model with its tokenizer.
#[derive(Debug)]
pub enum EvalModel {
    /// A checkpoint or Hugging Face's layout, run by `nn`.
    Checkpoint {
        /// The model.
        decoder: Box<Decoder>,
        /// Its tokenizer.
        tokenizer: Box<Tokenizer>,
    },
    /// A GGUF file, run by `infer`.
    Gguf(Arc<Model>),
}

/// The trained model of a checkpoint; for an adapter, with the base that it names.
///
/// # Errors
/// If the checkpoint is damaged or lacks a tensor, or an adapter's base is not where it was.
pub fn load_decoder(checkpoint: &Checkpoint) -> Result<Decoder, EvalError> {
    if checkpoint.has(ADAPTER_MODEL) {
        return load_adapted(checkpoint);
    }
    let tensors = checkpoint.model_tensors()?;
    let decoder = Decoder::load(&checkpoint.config()?, |name, shape| {
        let fault = |e: tritforge_checkpoint::CheckpointError| NnError::Tensor {
            name: name.to_string(),
            message: e.to_string(),
        };
        Ok(tensors.f32(name, shape).map_err(fault)?.into_owned())
    })?;
    Ok(decoder)
}

/// The checkpoint in a directory, or the newest of a run, if it is an adapter.
fn adapter_at(path: &Path) -> Result<Option<Checkpoint>, EvalError> {
    let dir = if path.join(MANIFEST).is_file() { Some(path.to_path_buf()) } else { latest(path)? };
    let checkpoint = dir.map(|dir| Checkpoint::open(&dir)).transpose()?;
    Ok(checkpoint.filter(|checkpoint| checkpoint.has(ADAPTER_MODEL)))
}

/// An adapter with the base that it names.
fn load_adapted(checkpoint: &Checkpoint) -> Result<Decoder, EvalError> {
    let text = checkpoint.file(ADAPTER_CONFIG)?;
    let (lora, named) = LoraConfig::from_json(&String::from_utf8_lossy(&text))
        .map_err(|e| EvalError::Input(format!("{}: {e}", checkpoint.dir().display())))?;
    let named = named.unwrap_or_default();
    let base = Checkpoint::open(Path::new(&named))
        .map_err(|e| EvalError::Input(format!("{}: its base: {e}", checkpoint.dir().display())))?;
    let (tensors, adapter) = (base.model_tensors()?, checkpoint.tensors(ADAPTER_MODEL)?);
    let read = |tensors: &Tensors, stored: &str, name: &str, shape: &[usize]| match tensors.f32(stored, shape)
    {
        Ok(values) => Ok(values.into_owned()),
        Err(e) => Err(NnError::Tensor { name: name.to_string(), message: e.to_string() }),
    };
    Ok(Decoder::load_adapted(
        &checkpoint.config()?,
        &lora,
        |name, shape| read(&tensors, name, name, shape),
        |name, shape| read(&adapter, &LoraConfig::peft_name(name), name, shape),
    )?)
}

/// A model of any form in the training forward: each tensor is read once, where it lies.
///
/// # Errors
/// If a tensor is missing or damaged.
pub(crate) fn decoder_of(model: &AnyModel) -> Result<Decoder, EvalError> {
    let decoder = Decoder::load(model.config(), |name, shape| {
        model.values(name, shape).map_err(|e| match e {
            ExportError::Tensor { tensor: name, message } => NnError::Tensor { name, message },
            other => NnError::Tensor { name: name.to_string(), message: other.to_string() },
        })
    })?;
    Ok(decoder)
}

impl EvalModel {
    /// Opens a checkpoint, the directory of a run, a directory in Hugging Face's layout, or a GGUF file.
    ///
    /// # Errors
    /// If it is neither, damaged, or a tensor has NaN or infinity.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        if !path.is_dir() {
            let model = Model::open(path)?;
            model.check_finite()?;
            return Ok(EvalModel::Gguf(Arc::new(model)));
        }
        if let Some(checkpoint) = adapter_at(path)? {
            let tokenizer = Tokenizer::from_json(&checkpoint.file(TOKENIZER)?)?
                .with_config(&checkpoint.file(TOKENIZER_CONFIG)?)?;
            let decoder = Box::new(load_adapted(&checkpoint)?);
            return Ok(EvalModel::Checkpoint { decoder, tokenizer: Box::new(tokenizer) });
        }
        let model = AnyModel::open(path, &ImportOptions::default())?;
        let tokenizer = model.tokenizer()?.ok_or_else(|| {
            EvalError::Input(format!("{}: no tokenizer.json: the model cannot read text", path.display()))
        })?;
        Ok(EvalModel::Checkpoint { decoder: Box::new(decoder_of(&model)?), tokenizer: Box::new(tokenizer) })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        match self {
            EvalModel::Checkpoint { decoder, .. } => decoder.config(),
            EvalModel::Gguf(model) => model.config(),
        }
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        match self {
            EvalModel::Checkpoint { tokenizer, .. } => tokenizer,
            EvalModel::Gguf(model) => model.tokenizer(),
        }
    }

    /// Logits of every token of one sequence that starts with an empty context: [tokens, vocab_size].
    ///
    /// # Errors
    /// If the sequence is empty, longer than the context, or has an unknown id; if a logit is NaN or
    /// infinite.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>, EvalError> {
        Ok(match self {
            EvalModel::Checkpoint { decoder, .. } => {
                finite(decoder.logits(ids, 1, None)?, decoder.config().vocab_size, 0)?
            }
            EvalModel::Gguf(model) => Session::with_kv(Arc::clone(model), ids.len().max(1), KvType::F32)?
                .forward(ids, LogitsRequest::All)?,
        })
    }
}
