//! A model to be evaluated: a checkpoint or a directory in Hugging Face's layout through the training
//! forward, or a GGUF file through the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tritforge_checkpoint::Checkpoint;
use tritforge_config::{ADAPTER_MODEL, ModelConfig};
use tritforge_export::ImportOptions;
use tritforge_infer::{KvType, LogitsRequest, Model, Session};
use tritforge_model::{Decoder, ModelError};
use tritforge_text::Tokenizer;

use crate::finite::finite;
use crate::{EvalError, adapted};

/// A model with its tokenizer.
#[derive(Debug)]
pub enum EvalModel {
    /// A checkpoint or Hugging Face's layout, run by `model`.
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
        return adapted::of_checkpoint(checkpoint);
    }
    let tensors = checkpoint.model_tensors()?;
    let decoder = Decoder::load(&checkpoint.config()?, |name, shape| {
        let fault = |e: tritforge_checkpoint::CheckpointError| ModelError::Tensor {
            name: name.to_string(),
            message: e.to_string(),
        };
        Ok(tensors.f32(name, shape).map_err(fault)?.into_owned())
    })?;
    Ok(decoder)
}

impl EvalModel {
    /// Opens a checkpoint, the directory of a run, a directory in Hugging Face's layout, a GGUF file, or an
    /// adapter, of a run or as peft writes it, with the base that it names.
    ///
    /// # Errors
    /// If it is neither, damaged, or a tensor has NaN or infinity.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        if !path.is_dir() {
            let model = Model::open(path)?;
            model.check_finite()?;
            return Ok(EvalModel::Gguf(Arc::new(model)));
        }
        Self::open_with(path, &[])
    }

    /// Opens a checkpoint or a directory, as [`Self::open`] does, with adapters on the model: their
    /// directories, and what their products are multiplied by beside their own scaling.
    ///
    /// # Errors
    /// As [`Self::open`], and if an adapter does not fit the model. A GGUF file takes its adapters in the
    /// engine.
    pub fn open_with(path: &Path, adapters: &[(PathBuf, f32)]) -> Result<Self, EvalError> {
        let (decoder, tokenizer) = adapted::open(path, &ImportOptions::default(), adapters)?;
        let tokenizer = tokenizer.ok_or_else(|| {
            EvalError::Input(format!(
                "{}: no tokenizer.json, which is needed to evaluate text",
                path.display()
            ))
        })?;
        Ok(EvalModel::Checkpoint { decoder: Box::new(decoder), tokenizer: Box::new(tokenizer) })
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
