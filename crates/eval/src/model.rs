//! A model to be evaluated: a checkpoint or a directory in Hugging Face's layout through the training
//! forward, or a GGUF file through the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tritforge_config::ModelConfig;
use tritforge_export::{ImportOptions, LoadedModel, Located, locate};
use tritforge_infer::{Adapter, InferError, KvType, LogitsRequest, Model, ScaledAdapter, Session};
use tritforge_model::Decoder;
use tritforge_text::Tokenizer;

use crate::EvalError;
use crate::finite::finite;

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

/// What a path names, ready to run.
pub(crate) enum Opened {
    /// In the training forward.
    Trained(Box<Decoder>, Option<Box<Tokenizer>>),
    /// A GGUF file, in the engine.
    Deployed(Arc<Model>),
}

/// Opens a model of any form with adapters on it, as [`EvalModel::open_with`].
pub(crate) fn open(
    path: &Path,
    options: &ImportOptions,
    adapters: &[(PathBuf, f32)],
) -> Result<Opened, EvalError> {
    match locate(path)? {
        Located::Gguf(file) => {
            let model = Model::open_with(&file, &options.overrides)?;
            model.check_finite()?;
            let applied = adapters.iter().map(|(path, scale)| {
                Ok(ScaledAdapter { adapter: Arc::new(Adapter::open(path, &model)?), scale: *scale })
            });
            let applied = applied.collect::<Result<Vec<_>, InferError>>()?;
            model.set_adapters(applied);
            Ok(Opened::Deployed(Arc::new(model)))
        }
        other => {
            let model = LoadedModel::of(other, options, adapters)?;
            Ok(Opened::Trained(Box::new(model.decoder()?), model.tokenizer()?.map(Box::new)))
        }
    }
}

impl EvalModel {
    /// Opens a checkpoint, the directory of a run, a directory in Hugging Face's layout, a GGUF file, or an
    /// adapter, of a run or as peft writes it, with the base that it names.
    ///
    /// # Errors
    /// If it is none of these, damaged, or a tensor has NaN or infinity.
    pub fn open(path: &Path) -> Result<Self, EvalError> {
        Self::open_with(path, &ImportOptions::default(), &[])
    }

    /// Opens a model as [`Self::open`] does, with adapters on it: their directories, for a GGUF file also GGUF
    /// adapters, and what their products are multiplied by beside their own scaling.
    ///
    /// # Errors
    /// As [`Self::open`], and if an adapter does not fit the model.
    pub fn open_with(
        path: &Path,
        options: &ImportOptions,
        adapters: &[(PathBuf, f32)],
    ) -> Result<Self, EvalError> {
        match open(path, options, adapters)? {
            Opened::Deployed(model) => Ok(EvalModel::Gguf(model)),
            Opened::Trained(decoder, Some(tokenizer)) => Ok(EvalModel::Checkpoint { decoder, tokenizer }),
            Opened::Trained(_, None) => Err(EvalError::Input(format!(
                "{}: no tokenizer.json, which is needed to evaluate text",
                path.display()
            ))),
        }
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
