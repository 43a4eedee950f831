//! What a comparison reads of each of its two models.

use std::sync::Arc;

use tritforge_config::Projection;
use tritforge_export::{ImportOptions, LoadedModel};
use tritforge_infer::{KvType, LogitsRequest, Model, Session, Table};
use tritforge_kernels::{Observer, TernaryWeights};
use tritforge_model::ModelError;
use tritforge_ternary::TernaryTensor;

use super::logits::greedy_tokens;
use crate::finite::finite;
use crate::{EvalError, EvalModel};

/// The tensors that a GGUF file may store with a rounding of its own: embedding and head.
pub(super) const TABLES: [&str; 2] = ["model.embed_tokens.weight", "lm_head.weight"];

impl EvalModel {
    /// Logits of all tokens, [tokens, vocab_size]; the observer sees every quantized product.
    pub(super) fn observed_logits(
        &self,
        ids: &[u32],
        observer: &mut Observer<'_>,
    ) -> Result<Vec<f32>, EvalError> {
        Ok(match self {
            EvalModel::Trained { decoder, .. } => {
                finite(decoder.logits(ids, 1, Some(observer))?, decoder.config().vocab_size, 0)?
            }
            EvalModel::Deployed(model) => Session::with_kv(Arc::clone(model), ids.len(), KvType::F32)?
                .forward_observed(ids, LogitsRequest::All, observer)?,
        })
    }

    /// `count` tokens after a prompt, each the likeliest.
    pub(super) fn greedy(&self, prompt: &[u32], count: usize) -> Result<Vec<u32>, EvalError> {
        match self {
            EvalModel::Trained { decoder, .. } => {
                let vocab = decoder.config().vocab_size;
                // Training has no cache: it runs the whole sequence again for every token.
                let mut sequence = prompt.to_vec();
                greedy_tokens(count, |last| {
                    sequence.extend(last);
                    let logits = finite(decoder.logits(&sequence, 1, None)?, vocab, 0)?;
                    Ok(logits[logits.len() - vocab..].to_vec())
                })
            }
            EvalModel::Deployed(model) => {
                let mut session = Session::with_kv(Arc::clone(model), prompt.len() + count, KvType::F32)?;
                greedy_tokens(count, |last| {
                    let ids = last.map_or_else(|| prompt.to_vec(), |id| vec![id]);
                    Ok(session.forward(&ids, LogitsRequest::Last)?)
                })
            }
        }
    }

    /// A projection's codes and scale, if it is ternary.
    pub(super) fn ternary(&self, layer: usize, projection: Projection) -> Option<&TernaryWeights> {
        match self {
            EvalModel::Trained { decoder, .. } => {
                decoder.projection(layer, projection).quantized().map(Arc::as_ref)
            }
            EvalModel::Deployed(model) => model
                .ternary()
                .find(|info| info.layer == layer && info.projection == projection)
                .map(|info| info.weights),
        }
    }

    /// A projection's bias, if it has one.
    pub(super) fn bias(&self, layer: usize, projection: Projection) -> Option<Vec<f32>> {
        match self {
            EvalModel::Trained { decoder, .. } => decoder.bias(layer, projection),
            EvalModel::Deployed(model) => model
                .ternary()
                .find(|info| info.layer == layer && info.projection == projection)
                .and_then(|info| info.bias.map(<[f32]>::to_vec)),
        }
    }

    /// The type in which the embedding is stored.
    pub(super) fn embedding_type(&self) -> &'static str {
        match self {
            EvalModel::Trained { decoder, .. } if decoder.config().ternary_embedding.is_some() => "ternary",
            EvalModel::Trained { .. } => "F32",
            EvalModel::Deployed(model) => model.embedding().type_name(),
        }
    }

    /// Codes and scales of one of [`TABLES`], if it is ternary.
    pub(super) fn ternary_table(&self, name: &str) -> Result<Option<TernaryTensor>, EvalError> {
        let table = match self {
            EvalModel::Trained { decoder, .. } => return Ok(decoder.ternary_table(name)?),
            EvalModel::Deployed(model) => Self::deployed_table(model, name),
        };
        let weights = table.as_ref().and_then(Table::ternary);
        let tensor = weights.map(|weights| {
            TernaryTensor::from_codes(weights.codes(), weights.rows(), weights.cols(), weights.scales())
        });
        Ok(tensor.transpose().map_err(ModelError::from)?)
    }

    /// One of [`TABLES`] of a file; none where the head is the embedding.
    fn deployed_table<'a>(model: &'a Model, name: &str) -> Option<Table<'a>> {
        match name {
            _ if name == TABLES[0] => Some(model.embedding()),
            _ if model.config().tie_word_embeddings => None,
            _ => Some(model.head()),
        }
    }

    /// The values of one of [`TABLES`], none if the model has no such tensor.
    pub(super) fn table(&self, name: &str) -> Result<Option<Vec<f32>>, EvalError> {
        match self {
            EvalModel::Trained { decoder, .. } => Ok(decoder.values(name)),
            EvalModel::Deployed(model) => {
                let Some(matrix) = Self::deployed_table(model, name) else { return Ok(None) };
                let width = model.config().hidden_size;
                let mut stored = vec![0f32; model.config().vocab_size * width];
                stored.chunks_exact_mut(width).enumerate().for_each(|(i, row)| matrix.row(i, row));
                Ok(Some(stored))
            }
        }
    }

    /// The same model with other tables, in the training forward.
    pub(super) fn with_tables(self, tables: Vec<(&str, Vec<f32>)>) -> Result<Self, EvalError> {
        let (mut decoder, tokenizer) = match self {
            EvalModel::Trained { decoder, tokenizer } => (decoder, tokenizer),
            EvalModel::Deployed(model) => {
                let read = LoadedModel::open(model.path(), &ImportOptions::default())?;
                (Box::new(read.decoder()?), None)
            }
        };
        for (name, values) in tables {
            decoder.replace(name, &values)?;
        }
        Ok(EvalModel::Trained { decoder, tokenizer })
    }
}
