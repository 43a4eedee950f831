//! A model to be evaluated or compared: a checkpoint or a directory in Hugging Face's layout through the training
//! forward, or a GGUF file through the engine.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tritforge_config::ModelConfig;
use tritforge_export::{ImportOptions, LoadedModel, Located, locate};
use tritforge_infer::{
    Adapter, Device, InferError, KvType, LogitsRequest, Model, Placed, ScaledAdapter, Session,
};
use tritforge_model::Decoder;
use tritforge_text::Tokenizer;

use crate::EvalError;
use crate::finite::finite;

/// A model with its tokenizer.
#[derive(Debug)]
pub enum EvalModel {
    /// A checkpoint or Hugging Face's layout, run by the training forward.
    Trained {
        /// The model.
        decoder: Box<Decoder>,
        /// Its tokenizer, if it has one: texts need it.
        tokenizer: Option<Box<Tokenizer>>,
    },
    /// A GGUF file, run by the engine.
    Deployed(Arc<Model>),
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
        match locate(path)? {
            Located::Gguf(file) => {
                let model = Model::open_with(&file, &options.overrides)?;
                model.check_finite()?;
                let applied = adapters.iter().map(|(path, scale)| {
                    Ok(ScaledAdapter { adapter: Arc::new(Adapter::open(path, &model)?), scale: *scale })
                });
                let applied = applied.collect::<Result<Vec<_>, InferError>>()?;
                model.set_adapters(applied);
                Ok(EvalModel::Deployed(Arc::new(model)))
            }
            other => {
                let model = LoadedModel::of(other, options, adapters)?;
                let (decoder, tokenizer) = (model.decoder()?, model.tokenizer()?);
                Ok(EvalModel::Trained { decoder: Box::new(decoder), tokenizer: tokenizer.map(Box::new) })
            }
        }
    }

    /// Puts a GGUF file's model on a device, before it is used; none if the model is no GGUF file, which alone
    /// runs in the engine.
    ///
    /// # Errors
    /// If a GPU is asked for and cannot be used.
    pub fn run_on(&mut self, device: Device) -> Result<Option<Placed>, EvalError> {
        match self {
            EvalModel::Trained { .. } => Ok(None),
            EvalModel::Deployed(model) => {
                let model = Arc::get_mut(model).expect("nobody else has a model that was just opened");
                Ok(Some(model.run_on(device)?))
            }
        }
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        match self {
            EvalModel::Trained { decoder, .. } => decoder.config(),
            EvalModel::Deployed(model) => model.config(),
        }
    }

    /// The model's tokenizer, if it has one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match self {
            EvalModel::Trained { tokenizer, .. } => tokenizer.as_deref(),
            EvalModel::Deployed(model) => Some(model.tokenizer()),
        }
    }

    /// The model's tokenizer, which texts need.
    pub(crate) fn text_tokenizer(&self) -> Result<&Tokenizer, EvalError> {
        let missing = || EvalError::Input("the model has no tokenizer.json, which text needs".to_string());
        self.tokenizer().ok_or_else(missing)
    }

    /// Logits of every token of one sequence that starts with an empty context: [tokens, vocab_size]. Keys and values are
    /// f32, as in training.
    ///
    /// # Errors
    /// If the sequence is empty, longer than the context, or has an unknown id; if a logit is NaN or
    /// infinite.
    pub fn logits(&self, ids: &[u32]) -> Result<Vec<f32>, EvalError> {
        self.logits_with(ids, KvType::F32)
    }

    /// [`EvalModel::logits`] of an exported model that stores keys and values as `kv`.
    ///
    /// # Errors
    /// As [`EvalModel::logits`]; or if the model is a checkpoint and `kv` is not f32.
    pub(crate) fn logits_with(&self, ids: &[u32], kv: KvType) -> Result<Vec<f32>, EvalError> {
        Ok(match self {
            EvalModel::Trained { .. } if kv != KvType::F32 => {
                return Err(EvalError::Input(format!(
                    "kv = {kv}: a checkpoint is evaluated without a KV cache, as f32; export it to evaluate with one"
                )));
            }
            EvalModel::Trained { decoder, .. } => {
                finite(decoder.logits(ids, 1, None)?, decoder.config().vocab_size, 0)?
            }
            EvalModel::Deployed(model) => {
                Session::with_kv(Arc::clone(model), ids.len().max(1), kv)?.forward(ids, LogitsRequest::All)?
            }
        })
    }
}
