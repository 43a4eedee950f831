//! `[lora]`, `[convert]`, `[distill]` and `[dpo]`: what is made of a model that exists.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::{LOTA_THRESHOLD, LoraConfig, LoraMode, Projection};

use super::serialize::{mode_name, module_name, module_names};

/// `[lora]`: a low-rank adapter on `model.base`, which stays as it is; kept where `rank` is given.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Lora {
    /// `"adapter"` (the default: beside the projections, deployed beside the base), `"qat_lora"` (inside the quantizer: merged
    /// exactly, needs latent weights) or, experimental, `"lota"` (ternary, moves codes: merged exactly, codes are enough).
    #[serde(serialize_with = "mode_name")]
    #[schemars(with = "String")]
    pub mode: LoraMode,
    /// Rank of the adapter.
    pub rank: usize,
    /// LoRA alpha: B·A is scaled by alpha / rank; by default 2 × rank. Not for `"lota"`.
    pub alpha: f64,
    /// Dropout probability on the adapter's inputs; by default 0. Only for `"adapter"`.
    pub dropout: f64,
    /// Whether to scale B·A by `alpha / √rank` (rsLoRA) instead of `alpha / rank`; by default false. Not for
    /// `"lota"`.
    pub use_rslora: bool,
    /// For `"lota"`: the share of `rank` that a weight's sum must exceed for its code to move; by default 0.1. Sums are seldom large: at the
    /// paper's 0.75, without its offset, hardly any code moves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// The projections with an adapter: `"q_proj"`, `"k_proj"`, `"v_proj"`, `"o_proj"`, `"gate_proj"`, `"up_proj"`, `"down_proj"`; by
    /// default all seven.
    #[serde(serialize_with = "module_names")]
    #[schemars(with = "Vec<String>")]
    pub target_modules: Vec<Projection>,
    /// Learning rate of the B matrices relative to `optim.lr` (LoRA+, arXiv 2402.12354); by default 1.
    pub lr_ratio_b: f64,
    /// `[[lora.learning_rates]]`: peak learning rates of single projections; by default `optim.lr`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub learning_rates: Vec<ModuleRate>,
}

/// `[[lora.learning_rates]]`: the learning rate of a projection's adapter.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ModuleRate {
    /// The projection, as in `target_modules`.
    #[serde(serialize_with = "module_name")]
    #[schemars(with = "String")]
    pub module: Projection,
    /// Its peak learning rate, instead of `optim.lr`.
    pub lr: f64,
}

impl Lora {
    /// The adapter that the section describes.
    pub fn config(&self) -> LoraConfig {
        LoraConfig {
            mode: self.mode,
            rank: self.rank,
            alpha: self.alpha as f32,
            dropout: self.dropout as f32,
            use_rslora: self.use_rslora,
            target_modules: self.target_modules.clone(),
            threshold: self.threshold.map_or(LOTA_THRESHOLD, |threshold| threshold as f32),
        }
    }

    /// How many times `lr`, the recipe's learning rate, a parameter learns with.
    pub(crate) fn rate(&self, parameter: &str, lr: f64) -> f64 {
        let module = self.learning_rates.iter().find(|rate| parameter.contains(rate.module.module()));
        let of_matrix = if parameter.contains("lora_B") { self.lr_ratio_b } else { 1.0 };
        of_matrix * module.map_or(1.0, |rate| rate.lr / lr)
    }
}

/// `[convert]`: quantization that sets in gradually, `x + λ(Q(x) − x)` with λ from 0 to 1, for a base that was trained without; kept
/// where `schedule` is given. Evaluations are always those of the quantized model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Convert {
    /// How λ rises: `"linear"`, `"exponential"`, `"sigmoid"`, or `"none"` (1 from the first step).
    pub schedule: BlendSchedule,
    /// Number of steps over which λ rises; by default 1000, or half the run if that is less.
    pub steps: u64,
    /// `"together"` (the default: all blocks) or `"layers"` (one after the other, from the first).
    pub order: BlendOrder,
}

/// How λ rises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlendSchedule {
    /// It is 1 from the beginning.
    None,
    /// In equal steps.
    Linear,
    /// Slowly at first.
    Exponential,
    /// Slowly at first and in the end.
    Sigmoid,
}

/// Which blocks are quantized when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BlendOrder {
    /// All at once.
    Together,
    /// One after the other.
    Layers,
}

/// `[distill]`: a teacher whose distributions the model learns from: `ce · cross-entropy + kl · T² · KL(teacher ‖ model)`, and with
/// `relation_weight` how tokens relate to each other in one of its layers (BitNet Distillation, arXiv 2510.13998); kept where `teacher` is
/// given.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Distill {
    /// A checkpoint, the directory of a run, a GGUF file, a Hugging Face directory, or an adapter with the base that it names, with the
    /// tokenizer of the model that is trained; with engine `"candle"` a directory in Hugging Face's layout or `hf://OWNER/NAME[@REVISION]`.
    pub teacher: PathBuf,
    /// What runs the teacher: `"tritforge"` (the default) or `"candle"`: candle-transformers, for Llama, Qwen2 and Qwen3 in full precision.
    pub engine: Engine,
    /// Weight of the cross-entropy; by default 1.
    pub ce: f64,
    /// Weight of the KL divergence; by default 1.
    pub kl: f64,
    /// Temperature: both models' logits are divided by it in the KL divergence; by default 1.
    pub temperature: f64,
    /// Number of the teacher's most probable tokens to use; by default 64.
    pub top_k: usize,
    /// Directory in which the teacher's top-k logits are stored, for runs on the same data with the same
    /// seed; by default they are not stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// γ: weight of the attention-relation loss; by default 0 (not computed).
    pub relation_weight: f64,
    /// The model's layer whose queries, keys and values relate the tokens, from 0; by default the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_layer: Option<usize>,
    /// The teacher's layer; by default the one at the same relative depth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_teacher_layer: Option<usize>,
    /// Number of parts into which queries, keys and values are split; by default the greatest common divisor
    /// of both models' key-value heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_heads: Option<usize>,
    /// τ: divides the cosines of both models before the softmax; by default the square root of the width of a
    /// part in the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_temperature: Option<f64>,
    /// α of the queries' relation; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_q: Option<f64>,
    /// α of the keys' relation; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_k: Option<f64>,
    /// α of the values' relation; by default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_v: Option<f64>,
}

/// What runs a teacher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// This project's own models: those of training for a checkpoint, those of inference for a GGUF file.
    #[default]
    Tritforge,
    /// candle-transformers.
    Candle,
}

/// `[dpo]`: direct preference optimization (arXiv 2305.18290) on the pairs of `data.records = "preference"`: `−ln σ(β · margin) + sft ·
/// cross-entropy of the chosen answer`, the margin being by how much more than a reference the model prefers the chosen answer, in nats.
/// A sample of `train.batch_size` is a pair. Kept where the section is given.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Dpo {
    /// DPO's β; by default 0.1.
    pub beta: f64,
    /// Weight of the chosen answer's cross-entropy; by default 0.
    pub sft: f64,
    /// Whether that is the `"mean"` (the default) over the answer's tokens, or their `"sum"`.
    pub sft_loss: SftLoss,
    /// The reference: a model in any of the forms of `distill.teacher`, with the tokenizer of the model; by default the
    /// initial model. Its log-probabilities are computed once and kept in the run's `data/reference.bin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
}

/// What is added of an answer's cross-entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SftLoss {
    /// Its mean over the answer's tokens.
    Mean,
    /// Its sum over them.
    Sum,
}
