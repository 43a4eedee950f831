//! `verify`: are two files the same model? Layer by layer, integer by integer.

use std::collections::HashMap;

use serde::Serialize;
use tritforge_config::{ModelConfig, Projection};
use tritforge_kernels::{LM_HEAD, QuantizedRows, Step, TernaryWeights};
use tritforge_ternary::{Scales, TernaryTensor};

use crate::{EvalError, EvalModel};

mod differences;
mod logits;
mod model;

use differences::{bias_difference, scale_difference};
pub use logits::Comparison;
use model::TABLES;

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

/// The two forms of one projection, or of a ternary embedding or head; what is only looked up in has no activations and
/// no sums.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ProjectionReport {
    /// The tensor's name, as in GGUF files.
    pub tensor: String,
    /// The block, from 0; none for a ternary embedding or head.
    pub layer: Option<usize>,
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
    /// The largest difference of two biases, which are added to the scaled sums; infinite if only one model has them.
    pub bias_difference: f32,
}

impl ProjectionReport {
    /// Whether everything is identical.
    pub fn identical(&self) -> bool {
        self.codes_different == 0
            && self.scale_difference == 0.0
            && self.activations_different == 0
            && self.activation_scale_difference == 0.0
            && self.sums_different == 0
            && self.bias_difference == 0.0
    }
}

/// What can differ in a projection, in the order in which one comes of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantity {
    /// Ternary codes.
    Codes,
    /// The scale of the weights.
    Scale,
    /// int8 activations or their scales.
    Activations,
    /// int32 sums.
    Sums,
    /// Biases.
    Bias,
}

/// Where two models first part, in the order of the forward pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstDifference {
    /// The projection's tensor, as in GGUF files.
    pub tensor: String,
    /// What differs in it first.
    pub quantity: Quantity,
}

impl FirstDifference {
    fn of(projection: &ProjectionReport) -> Option<Self> {
        let activations =
            projection.activations_different > 0 || projection.activation_scale_difference != 0.0;
        let found = [
            (projection.codes_different > 0, Quantity::Codes),
            (projection.scale_difference != 0.0, Quantity::Scale),
            (activations, Quantity::Activations),
            (projection.sums_different > 0, Quantity::Sums),
            (projection.bias_difference != 0.0, Quantity::Bias),
        ];
        let (_, quantity) = found.into_iter().find(|(differs, _)| *differs)?;
        Some(Self { tensor: projection.tensor.clone(), quantity })
    }
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// The first projection that differs, in the order of the forward pass.
    pub first_difference: Option<FirstDifference>,
    /// Every ternary matrix: an embedding that is not the head, the projections block by block, the head.
    pub projections: Vec<ProjectionReport>,
    /// How the file stores the embedding; F32 for the training forward.
    pub embedding_type: String,
    /// The largest difference that storing the embedding and the head made; 0 for F32.
    pub embedding_rounding: f32,
    /// Logits of the model as trained against the file's.
    pub as_trained: Comparison,
    /// Logits of the trained model with the file's embedding and head against the file's: what else differs.
    /// The same as `as_trained` where the file stores them as F32.
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
    /// Whether every code, scale, activation and sum is identical, the logits are within the bound, and the
    /// greedy tokens agree. What was measured has to be numbers: nothing that has NaN or infinity passes.
    pub fn passed(&self) -> bool {
        self.as_trained.is_finite()
            && self.with_stored_embeddings.is_finite()
            && self.embedding_rounding.is_finite()
            && self.projections.iter().all(ProjectionReport::identical)
            && self.with_stored_embeddings.max_difference <= self.logit_bound
            && self.greedy_agreeing == self.greedy_tokens
    }
}

/// What one forward pass did in one projection.
struct Trace {
    input: QuantizedRows,
    sums: Vec<i32>,
}

/// What two forward passes did otherwise in one projection.
#[derive(Clone, Copy, Default)]
struct TraceDifference {
    activations: usize,
    activation_scale: f32,
    sums: usize,
    largest_sum: i64,
}

impl TraceDifference {
    fn of(left: &Trace, right: &Step<'_>) -> Self {
        let distance = |(a, b): (&i32, &i32)| (i64::from(*a) - i64::from(*b)).abs();
        Self {
            activations: different(&left.input.codes, &right.input.codes),
            activation_scale: logits::max_difference(&left.input.scales, &right.input.scales),
            sums: different(&left.sums, right.sums),
            largest_sum: left.sums.iter().zip(right.sums).map(distance).max().unwrap_or(0),
        }
    }
}

type Key = (usize, &'static str);

/// Compares two models of any form, such as a checkpoint and the file that was exported from it. Of a trained
/// and a deployed model the trained one is the reference, whichever comes first.
///
/// Integers are compared in the reference with the other's embedding and head: rounding them to F16 or Q8_0
/// is a choice of the export, reported apart, and would otherwise hide whether anything else differs.
///
/// # Errors
/// If a file cannot be read, the shapes differ, one model is ternary and the other not, the tokens do not
/// fit, or a weight or a logit is NaN or infinite.
pub fn verify(
    first: EvalModel,
    second: EvalModel,
    options: &VerifyOptions,
) -> Result<VerifyReport, EvalError> {
    same_shape(first.config(), second.config())?;
    let (reference, other) = match (&first, &second) {
        (EvalModel::Deployed(_), EvalModel::Trained { .. }) => (second, first),
        _ => (first, second),
    };
    let config = other.config().clone();
    let (vocab, longest) = (config.vocab_size, config.max_position_embeddings);
    let greedy_tokens = options.greedy_tokens.min(longest - 1);
    let ids = &options.ids[..options.ids.len().min(longest)];
    if ids.is_empty() {
        return Err(EvalError::Input("no tokens to compare on: the text is empty".to_string()));
    }

    let mut embedding_rounding = 0f32;
    let mut tables = Vec::new();
    for name in TABLES {
        let ternary = [reference.ternary_table(name)?.is_some(), other.ternary_table(name)?.is_some()];
        if ternary == [true, true] {
            continue;
        }
        if ternary != [false, false] {
            return Err(EvalError::Input(format!("{name} is ternary in only one of the models")));
        }
        if let (Some(exact), Some(stored)) = (reference.table(name)?, other.table(name)?) {
            embedding_rounding = embedding_rounding.max(logits::max_difference(&exact, &stored));
            tables.push((name, stored));
        }
    }
    let (reference, trained_logits) = if embedding_rounding == 0.0 {
        (reference, None)
    } else {
        let logits = reference.observed_logits(ids, &mut |_| {})?;
        (reference.with_tables(tables)?, Some(logits))
    };

    let mut traces: HashMap<Key, Trace> = HashMap::new();
    let left_logits = reference.observed_logits(ids, &mut |step: Step<'_>| {
        let trace = Trace { input: step.input.clone(), sums: step.sums.to_vec() };
        traces.insert((step.layer, step.projection), trace);
    })?;
    let mut steps: HashMap<Key, TraceDifference> = HashMap::new();
    let right_logits = other.observed_logits(ids, &mut |step: Step<'_>| {
        let key = (step.layer, step.projection);
        if let Some(left) = traces.remove(&key) {
            steps.insert(key, TraceDifference::of(&left, &step));
        }
    })?;
    let projections = projections(&reference, &other, &steps)?;

    let with_stored_embeddings = Comparison::of(&left_logits, &right_logits, vocab);
    let as_trained = match trained_logits {
        None => with_stored_embeddings,
        Some(logits) => Comparison::of(&logits, &right_logits, vocab),
    };
    let prompt = &ids[..ids.len().min(longest - greedy_tokens).min(32)];
    let (ours, theirs) = (reference.greedy(prompt, greedy_tokens)?, other.greedy(prompt, greedy_tokens)?);
    let greedy_agreeing = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
    Ok(VerifyReport {
        first_difference: projections.iter().find_map(FirstDifference::of),
        projections,
        embedding_type: other.embedding_type().to_string(),
        embedding_rounding,
        as_trained,
        with_stored_embeddings,
        tokens: ids.len(),
        greedy_tokens,
        greedy_agreeing,
        logit_bound: options.logit_bound,
    })
}

/// All projections in the order of the forward pass; none of full-precision models.
fn projections(
    reference: &EvalModel,
    other: &EvalModel,
    steps: &HashMap<Key, TraceDifference>,
) -> Result<Vec<ProjectionReport>, EvalError> {
    let layers = 0..other.config().num_hidden_layers;
    let mut reports = Vec::new();
    let untied = !other.config().tie_word_embeddings;
    let [embedding, head] = TABLES;
    if untied {
        reports.extend(table(reference, other, (embedding, "token_embd.weight"), None)?);
    }
    for (layer, p) in layers.flat_map(|layer| Projection::ALL.map(|p| (layer, p))) {
        let tensor = p.gguf_weight(layer);
        let (ours, theirs) = match (reference.ternary(layer, p), other.ternary(layer, p)) {
            (Some(ours), Some(theirs)) => (ours, theirs),
            (None, None) => continue,
            _ => return Err(EvalError::Input(format!("{tensor} is ternary in only one of the models"))),
        };
        let Some(step) = steps.get(&(layer, p.hf_name())) else {
            return Err(EvalError::Input(format!("no trace of {tensor}")));
        };
        let matrix = |weights: &TernaryWeights| (weights.codes(), weights.scales());
        let shape = [ours.rows(), ours.cols()];
        let of_weight = report(tensor, Some(layer), shape, [matrix(ours), matrix(theirs)], *step);
        let bias_difference = bias_difference(reference.bias(layer, p), other.bias(layer, p));
        reports.push(ProjectionReport { bias_difference, ..of_weight });
    }
    let step = || {
        let step = steps.get(&(other.config().num_hidden_layers, LM_HEAD));
        step.copied().ok_or_else(|| EvalError::Input("no trace of the head".to_string()))
    };
    let (name, tensor) = if untied { (head, "output.weight") } else { (embedding, "token_embd.weight") };
    let ternary = reference.ternary_table(name)?.is_some() && integers(other.config());
    reports.extend(table(reference, other, (name, tensor), ternary.then(step).transpose()?)?);
    Ok(reports)
}

/// Whether ternary matrices are multiplied by integers.
fn integers(config: &ModelConfig) -> bool {
    config.activations.is_integer()
}

/// An embedding or head, by its names in checkpoints and in GGUF files, if it is ternary.
fn table(
    reference: &EvalModel,
    other: &EvalModel,
    (name, tensor): (&str, &str),
    step: Option<TraceDifference>,
) -> Result<Option<ProjectionReport>, EvalError> {
    let (Some(ours), Some(theirs)) = (reference.ternary_table(name)?, other.ternary_table(name)?) else {
        return Ok(None);
    };
    let matrix = |tensor: &TernaryTensor| (tensor.codes().to_vec(), tensor.scales().clone());
    let shape = [ours.rows(), ours.cols()];
    let pair = [matrix(&ours), matrix(&theirs)];
    Ok(Some(report(tensor.to_string(), None, shape, pair, step.unwrap_or_default())))
}

/// What two forms of a matrix have that differs.
fn report(
    tensor: String,
    layer: Option<usize>,
    shape: [usize; 2],
    [(codes, scales), (other_codes, other_scales)]: [(Vec<i8>, Scales); 2],
    step: TraceDifference,
) -> ProjectionReport {
    ProjectionReport {
        tensor,
        layer,
        weights: codes.len(),
        codes_different: different(&codes, &other_codes),
        scale: scales.mean() as f32,
        scale_difference: scale_difference(shape, &codes, [scales, other_scales]),
        activations_different: step.activations,
        activation_scale_difference: step.activation_scale,
        sums_different: step.sums,
        sum_difference: step.largest_sum,
        bias_difference: 0.0,
    }
}

fn different<T: PartialEq>(a: &[T], b: &[T]) -> usize {
    a.len().abs_diff(b.len()) + a.iter().zip(b).filter(|(a, b)| a != b).count()
}

fn same_shape(left: &ModelConfig, right: &ModelConfig) -> Result<(), EvalError> {
    let pairs: [(&'static str, String, String); 19] = [
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
        ("use_sub_norm", left.use_sub_norm.to_string(), right.use_sub_norm.to_string()),
        ("projection_norms", left.projection_norms.to_string(), right.projection_norms.to_string()),
        ("use_qk_norm", left.use_qk_norm.to_string(), right.use_qk_norm.to_string()),
        ("attention_bias", format!("{:?}", left.deployed_bias()), format!("{:?}", right.deployed_bias())),
        ("activations", format!("{:?}", left.activations), format!("{:?}", right.activations)),
        ("rotation", format!("{:?}", left.rotation), format!("{:?}", right.rotation)),
        ("activation_top_k", format!("{:?}", left.activation_top_k), format!("{:?}", right.activation_top_k)),
        ("tie_word_embeddings", left.tie_word_embeddings.to_string(), right.tie_word_embeddings.to_string()),
    ];
    match pairs.into_iter().find(|(_, left, right)| left != right) {
        Some((key, left, right)) => Err(EvalError::Shape { key, left, right }),
        None => Ok(()),
    }
}
