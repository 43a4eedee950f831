//! `verify`: is the file the model that was trained? Layer by layer, integer by integer.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use tritforge_checkpoint::Checkpoint;
use tritforge_config::ModelConfig;
use tritforge_infer::{KvType, Model, Session, Wanted};
use tritforge_kernels::{QuantizedRows, Step};
use tritforge_nn::Decoder;

use crate::EvalError;
use crate::subject::load_decoder;

mod logits;

pub use logits::Comparison;
use logits::greedy_tokens;

/// What to compare on.
#[derive(Debug, Clone)]
pub struct VerifyOptions {
    /// The tokens to run; at most the context's length of them are used.
    pub ids: Vec<u32>,
    /// Tokens to continue with, greedily, in both.
    pub greedy_tokens: usize,
    /// The largest difference of a logit that passes.
    pub logit_bound: f32,
}

/// The two forms of one projection.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProjectionReport {
    /// The tensor's name in the GGUF file.
    pub tensor: String,
    /// Weights.
    pub weights: usize,
    /// Codes that differ.
    pub codes_different: usize,
    /// The scale in training.
    pub scale: f32,
    /// The difference of the scales.
    pub scale_difference: f32,
    /// int8 activations that differ.
    pub activations_different: usize,
    /// The largest difference of two activation scales.
    pub activation_scale_difference: f32,
    /// int32 sums that differ.
    pub sums_different: usize,
    /// The largest difference of two sums.
    pub sum_difference: i64,
}

impl ProjectionReport {
    /// Whether everything is identical.
    pub fn identical(&self) -> bool {
        self.codes_different == 0
            && self.scale_difference == 0.0
            && self.activations_different == 0
            && self.activation_scale_difference == 0.0
            && self.sums_different == 0
    }
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// Every projection, block by block.
    pub projections: Vec<ProjectionReport>,
    /// How the file stores the embedding.
    pub embedding_type: String,
    /// The largest difference that storing the embedding and the head made; 0 for F32.
    pub embedding_rounding: f32,
    /// Logits of the model as trained against the file's.
    pub as_trained: Comparison,
    /// Logits of the trained model with the file's embedding and head against the file's: what else differs. The same as
    /// `as_trained` where the file stores them as F32.
    pub with_stored_embeddings: Comparison,
    /// Tokens run through both.
    pub tokens: usize,
    /// Tokens continued greedily.
    pub greedy_tokens: usize,
    /// How many of them agree before the first that does not.
    pub greedy_agreeing: usize,
    /// The largest difference of a logit that passes.
    pub logit_bound: f32,
}

impl VerifyReport {
    /// Whether every code, scale, activation and sum is identical, the logits are within the bound, and the greedy tokens agree.
    pub fn passed(&self) -> bool {
        self.projections.iter().all(ProjectionReport::identical)
            && self.with_stored_embeddings.max_difference <= self.logit_bound
            && self.greedy_agreeing == self.greedy_tokens
    }
}

/// What one forward pass did in one projection.
struct Trace {
    input: QuantizedRows,
    sums: Vec<i32>,
}

type Traces = HashMap<(usize, &'static str), Trace>;

fn record(traces: &mut Traces, step: &Step<'_>) {
    let trace = Trace { input: step.input.clone(), sums: step.sums.to_vec() };
    traces.insert((step.layer, step.projection), trace);
}

/// Compares a checkpoint with a GGUF file.
///
/// Integers are compared in the model whose embedding and head are the file's: rounding them to F16 or Q8_0 is a choice of
/// the export, reported apart, and would otherwise hide whether anything else differs.
///
/// # Errors
/// If a file cannot be read, the shapes differ, or the tokens do not fit the model.
pub fn verify(
    checkpoint: &Checkpoint,
    model: &Arc<Model>,
    options: &VerifyOptions,
) -> Result<VerifyReport, EvalError> {
    let config = checkpoint.config()?;
    same_shape(&config, model.config())?;
    let longest = config.max_position_embeddings;
    let greedy_tokens = options.greedy_tokens.min(longest - 1);
    let ids = &options.ids[..options.ids.len().min(longest)];
    if ids.is_empty() {
        return Err(EvalError::Input("no tokens to compare on: the text is empty".to_string()));
    }

    let trained = load_decoder(checkpoint)?;
    let embedding_type = model.embedding().dense_type().name().to_string();
    let (stored, embedding_rounding) = with_embeddings_of(&trained, model)?;

    let mut left = Traces::new();
    let left_logits = stored.logits(ids, 1, Some(&mut |step: Step<'_>| record(&mut left, &step)))?;
    let mut right = Traces::new();
    let mut session = Session::with_kv(Arc::clone(model), ids.len(), KvType::F32)?;
    let right_logits =
        session.forward_observed(ids, Wanted::All, &mut |step: Step<'_>| record(&mut right, &step))?;

    let projections = model
        .ternary()
        .map(|info| {
            let linear = stored.projection(info.layer, info.projection);
            let Some(weights) = linear.quantized() else {
                return Err(EvalError::Input("the checkpoint's projections are not ternary".to_string()));
            };
            let key = (info.layer, info.projection.hf_name());
            let (Some(left), Some(right)) = (left.get(&key), right.get(&key)) else {
                return Err(EvalError::Input(format!("no trace of {}", info.projection.gguf_weight(key.0))));
            };
            let (ours, theirs) = (weights.codes(), info.weights.codes());
            Ok(ProjectionReport {
                tensor: info.projection.gguf_weight(info.layer),
                weights: ours.len(),
                codes_different: different(&ours, &theirs),
                scale: weights.scale(),
                scale_difference: (weights.scale() - info.weights.scale()).abs(),
                activations_different: different(&left.input.codes, &right.input.codes),
                activation_scale_difference: logits::max_difference(&left.input.scales, &right.input.scales),
                sums_different: different(&left.sums, &right.sums),
                sum_difference: left
                    .sums
                    .iter()
                    .zip(&right.sums)
                    .map(|(a, b)| (i64::from(*a) - i64::from(*b)).abs())
                    .max()
                    .unwrap_or(0),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;

    let vocab = config.vocab_size;
    let with_stored_embeddings = Comparison::of(&left_logits, &right_logits, vocab);
    let as_trained = if embedding_rounding == 0.0 {
        with_stored_embeddings
    } else {
        Comparison::of(&trained.logits(ids, 1, None)?, &right_logits, vocab)
    };
    let prompt = &ids[..ids.len().min(longest - greedy_tokens).min(32)];
    let (ours, theirs) = greedy_tokens_of_both(&stored, model, prompt, greedy_tokens)?;
    let greedy_agreeing = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    Ok(VerifyReport {
        projections,
        embedding_type,
        embedding_rounding,
        as_trained,
        with_stored_embeddings,
        tokens: ids.len(),
        greedy_tokens,
        greedy_agreeing,
        logit_bound: options.logit_bound,
    })
}

fn different<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.len().abs_diff(b.len()) + a.iter().zip(b).filter(|(a, b)| a != b).count()
}

fn same_shape(left: &ModelConfig, right: &ModelConfig) -> Result<(), EvalError> {
    let pairs: [(&'static str, String, String); 12] = [
        ("vocab_size", left.vocab_size.to_string(), right.vocab_size.to_string()),
        ("hidden_size", left.hidden_size.to_string(), right.hidden_size.to_string()),
        ("intermediate_size", left.intermediate_size.to_string(), right.intermediate_size.to_string()),
        ("num_hidden_layers", left.num_hidden_layers.to_string(), right.num_hidden_layers.to_string()),
        ("num_attention_heads", left.num_attention_heads.to_string(), right.num_attention_heads.to_string()),
        ("num_key_value_heads", left.num_key_value_heads.to_string(), right.num_key_value_heads.to_string()),
        ("head_dim", left.head_dim.to_string(), right.head_dim.to_string()),
        ("hidden_act", format!("{:?}", left.hidden_act), format!("{:?}", right.hidden_act)),
        (
            "max_position_embeddings",
            left.max_position_embeddings.to_string(),
            right.max_position_embeddings.to_string(),
        ),
        ("rope_theta", left.rope_theta.to_string(), right.rope_theta.to_string()),
        ("rms_norm_eps", left.rms_norm_eps.to_string(), right.rms_norm_eps.to_string()),
        ("tie_word_embeddings", left.tie_word_embeddings.to_string(), right.tie_word_embeddings.to_string()),
    ];
    match pairs.into_iter().find(|(_, left, right)| left != right) {
        Some((key, left, right)) => Err(EvalError::Shape { key, left, right }),
        None => Ok(()),
    }
}

/// The trained model with the file's embedding and head, and the largest difference that they make.
fn with_embeddings_of(trained: &Decoder, model: &Model) -> Result<(Decoder, f32), EvalError> {
    let mut tensors = trained.snapshot()?;
    let mut rounding = 0f32;
    for (name, matrix) in [("model.embed_tokens.weight", model.embedding()), ("lm_head.weight", model.head())]
    {
        let Some(values) = tensors.get_mut(name) else { continue };
        let mut stored = vec![0f32; values.len()];
        let width = trained.config().hidden_size;
        stored.chunks_exact_mut(width).enumerate().for_each(|(i, row)| matrix.row(i, row));
        rounding = rounding.max(logits::max_difference(values, &stored));
        *values = stored;
    }
    let decoder = Decoder::load(trained.config(), |name, _| Ok(tensors.remove(name).unwrap_or_default()))?;
    Ok((decoder, rounding))
}

fn greedy_tokens_of_both(
    decoder: &Decoder,
    model: &Arc<Model>,
    prompt: &[u32],
    count: usize,
) -> Result<(Vec<u32>, Vec<u32>), EvalError> {
    let vocab = decoder.config().vocab_size;
    // Training has no cache: it runs the whole sequence again for every token.
    let mut sequence = prompt.to_vec();
    let ours = greedy_tokens(count, |last| {
        sequence.extend(last);
        let logits = decoder.logits(&sequence, 1, None)?;
        Ok(logits[logits.len() - vocab..].to_vec())
    })?;
    let mut session = Session::with_kv(Arc::clone(model), prompt.len() + count, KvType::F32)?;
    let theirs = greedy_tokens(count, |last| {
        let ids = last.map_or_else(|| prompt.to_vec(), |id| vec![id]);
        Ok(session.forward(&ids, Wanted::Last)?)
    })?;
    Ok((ours, theirs))
}
