//! The sections of a recipe: what each key means, and what it is if it is not given.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use tritforge_config::{
    ActivationQuant, HiddenAct, LOTA_THRESHOLD, LoraConfig, LoraMode, ModelConfig, Projection, WeightQuant,
};
use tritforge_data::{Format, Packing};
use tritforge_kernels::DenseType;
use tritforge_nn::Backward;
use tritforge_ternary::Packing as TernaryPacking;

use super::samples::Samples;
use crate::optimizer::StoredType;

/// `[run]`: the run itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Run {
    /// Its name; by default that of the recipe's file.
    pub name: String,
    /// Directory of checkpoints and logs, from the working directory; by default `runs/<name>`.
    pub out: PathBuf,
    /// Seed of the initial weights, the order of the data, the split and the samples; by default 0.
    pub seed: u64,
}

/// `[model]`: the architecture, by the names of Hugging Face. In a recipe, `config` may name a file with these keys;
/// keys in the recipe go before it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Model {
    /// A checkpoint, or the directory of a run, to begin with: its weights, its shape and its tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<PathBuf>,
    /// What the base's `config.json` says.
    #[serde(skip)]
    #[schemars(skip)]
    pub(crate) base_config: Option<ModelConfig>,
    /// Rows of the embedding; by default the tokenizer's vocabulary. If given, the tokenizer must have it exactly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocab_size: Option<usize>,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; by default as many as query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; by default `hidden_size / num_attention_heads`.
    pub head_dim: usize,
    /// `"silu"` (the default) or `"relu2"`.
    #[schemars(with = "String")]
    pub hidden_act: HiddenAct,
    /// The longest context; by default `data.seq_len`.
    pub max_position_embeddings: usize,
    /// ε of every RMSNorm; by default 1e-5.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding; by default 10000.
    pub rope_theta: f64,
    /// Whether the output head is the embedding; by default it is.
    pub tie_word_embeddings: bool,
    /// Whether an RMSNorm stands before `o_proj` and `down_proj`; by default it does.
    pub use_sub_norm: bool,
    /// Standard deviation of the initial weights; by default 0.02.
    pub initializer_range: f64,
}

/// `[quant]`: the quantization of the seven projections of each block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Quant {
    /// `"absmean"` (ternary, the default), `"none"`, or `"ternary"`: as `model.base` stores them, never quantized again.
    #[schemars(with = "String")]
    pub weights: WeightQuant,
    /// `"absmax"` (int8, the default) or `"none"`.
    #[schemars(with = "String")]
    pub activations: ActivationQuant,
    /// How training multiplies the gradients of the projections: `"int24"` (rounded to 24 bits and multiplied by integers, about as
    /// precise as f32; in f32 where the forward multiplies no integers), `"f32"`, `"auto"` (the default: `"int24"` where that is faster, on
    /// processors with AVX-512 VNNI, else `"f32"`), or `"int16"` and `"int8"`, faster and noisier: rounded at random. These two need
    /// ternary weights and int8 activations.
    #[serde(serialize_with = "backward_name", skip_serializing_if = "is_auto")]
    #[schemars(with = "String")]
    pub backward: Backward,
}

/// `[lora]`: a low-rank adapter on `model.base`, which stays as it is; kept where `rank` is given.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Lora {
    /// `"adapter"` (the default: beside the projections, deployed beside the base), `"qat_lora"` (inside the quantizer: merged
    /// exactly, needs latent weights) or, experimental, `"lota"` (ternary, moves codes: merged exactly, codes are enough).
    #[serde(serialize_with = "mode_name")]
    #[schemars(with = "String")]
    pub mode: LoraMode,
    /// Inner width of the two matrices.
    pub rank: usize,
    /// What their product is multiplied by, times `rank`; by default twice the rank. Not for `"lota"`.
    pub alpha: f64,
    /// Share of the adapter's inputs that training drops; by default 0. For `"adapter"` alone.
    pub dropout: f64,
    /// Whether the product is multiplied by `alpha / √rank` instead of `alpha / rank`; by default false. Not for `"lota"`.
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
    /// How many times `optim.lr` the matrices B learn with (LoRA+, arXiv 2402.12354); by default 1.
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
    /// Its peak learning rate, in the place of `optim.lr`.
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
    /// How λ rises: `"linear"`, `"exponential"`, `"sigmoid"`, or `"none"`: it is 1 from the beginning.
    pub schedule: BlendSchedule,
    /// The steps in which it rises; by default 1000, at most half the run.
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
    /// A checkpoint, the directory of a run, or a GGUF file, with the tokenizer of the model that is trained; with engine `"candle"` a
    /// directory in Hugging Face's layout or `hf://OWNER/NAME[@REVISION]`.
    pub teacher: PathBuf,
    /// What runs the teacher: `"tritforge"` (the default) or `"candle"`: candle-transformers, for Llama, Qwen2 and Qwen3 in full precision.
    pub engine: Engine,
    /// Weight of the cross-entropy; by default 1.
    pub ce: f64,
    /// Weight of the divergence; by default 1.
    pub kl: f64,
    /// What both models' logits are divided by in the divergence; by default 1.
    pub temperature: f64,
    /// The teacher's likeliest tokens that count; by default 64.
    pub top_k: usize,
    /// Directory in which they are kept for runs on the same data with the same seed; by default they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// γ: weight of the attention-relation loss; by default 0: it is not computed.
    pub relation_weight: f64,
    /// The model's layer whose queries, keys and values relate the tokens, from 0; by default the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_layer: Option<usize>,
    /// The teacher's layer; by default the one as deep in it, the last for the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_teacher_layer: Option<usize>,
    /// Parts that queries, keys and values are cut into; by default the greatest common divisor of both models' key-value heads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub relation_heads: Option<usize>,
    /// τ: what the cosines of both models are divided by before softmax; by default the root of the width of a part in the model.
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
    /// β: how soon a margin is enough; by default 0.1.
    pub beta: f64,
    /// Weight of the chosen answer's cross-entropy; by default 0.
    pub sft: f64,
    /// Whether that is the `"mean"` (the default) over the answer's tokens, or their `"sum"`.
    pub sft_loss: SftLoss,
    /// The reference: a checkpoint, or the directory of a run, with the tokenizer of the model; by default the model as it begins. Its
    /// log-probabilities are computed once and kept in the run's `data/reference.bin`.
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

/// `[tokenizer]`: where the tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tokenizer {
    /// By default `"bpe"`, or `"base"` where `model.base` is given.
    pub kind: TokenizerKind,
    /// For `"bpe"`: size of the vocabulary to train; by default `model.vocab_size`, and without that 4096. 0 for the
    /// other kinds, whose size the text or the file determines.
    #[serde(skip_serializing_if = "is_zero")]
    pub vocab_size: usize,
    /// For `"file"`: a `tokenizer.json`, sentencepiece model or tiktoken file, the directory of one, or `hf://OWNER/NAME` for the
    /// `tokenizer.json` of a repository of the Hugging Face Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// Kinds of tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// `"bpe"`: a byte-level BPE, trained on the training text.
    Bpe,
    /// `"characters"`: one token for each character of the text.
    Characters,
    /// `"file"`: a Hugging Face `tokenizer.json`, a sentencepiece model or a tiktoken file.
    File,
    /// `"base"`: that of `model.base`.
    Base,
}

/// `[data]`: the text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Data {
    /// `"files"` (the default where `train` is given) or `"rust-sources"`.
    pub source: DataSource,
    /// Files, directories, patterns and `hf://datasets/…` addresses of text, for `"files"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub train: Vec<PathBuf>,
    /// Column with the text in the JSON, JSONL, CSV and Parquet files of `train`; by default `"text"`.
    #[serde(skip_serializing_if = "is_text")]
    pub column: String,
    /// Share of the text that is held out for evaluation; by default 0.1.
    pub held_out: f64,
    /// `"contiguous"` (the default of text: the end is held out) or `"document"` (the default of `records`: whole documents are,
    /// chosen by a hash).
    pub split: SplitKind,
    /// Tokens of a training sample; by default 256.
    pub seq_len: usize,
    /// `"concat"` (the default: documents follow each other), `"masked"` (they follow each other, but none sees another) or
    /// `"documents"` (a sample holds tokens of one document and is padded). Evaluation always concatenates. For `records`:
    /// `"masked"` (the default: whole samples share a row, none sees another) or `"documents"` (one a row); evaluation packs
    /// masked. For `[dpo]` `"documents"` is the default, and all there is.
    #[serde(skip_serializing_if = "is_concat")]
    #[schemars(with = "String")]
    pub packing: Packing,
    /// Tokens after which the next document begins another file of tokens; by default 2²⁸.
    #[serde(skip_serializing_if = "is_shard_tokens")]
    pub shard_tokens: usize,
    /// Examples to learn answers from.
    #[serde(flatten)]
    pub samples: Samples,
    /// `[[data.sources]]`, in the place of `train`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceText>,
}

/// Tokens of a file of tokens where the recipe does not say.
pub(super) const SHARD_TOKENS: usize = 1 << 28;

/// `[[data.sources]]`: one text of several.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SourceText {
    /// A file, a directory, a pattern, or an `hf://datasets/…` address.
    pub path: PathBuf,
    /// Share of the training samples, relative to the others'. All sources have one, or none has: then they are one text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// `"auto"` (the default: by the extension), `"text"`, `"json"`, `"jsonl"`, `"csv"` or `"parquet"`.
    #[schemars(with = "String")]
    pub format: Format,
    /// The column with the text; by default `"text"`.
    pub column: String,
}

/// Where text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataSource {
    /// `"files"`: `data.train`.
    Files,
    /// `"rust-sources"`: the Rust sources of the project's own dependencies.
    RustSources,
}

/// How the text is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// `"contiguous"`.
    Contiguous,
    /// `"document"`.
    Document,
}

/// `[optim]`: the optimizer and its learning rate.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Optim {
    /// `"adamw"` (the default), `"lion"`, or `"muon"` for the projections with AdamW for the rest. `"t-sign-sgd"` for
    /// `lora.mode = "lota"`, and for nothing else.
    pub kind: OptimKind,
    /// The peak learning rate; by default 1e-3, for Lion 1e-4. For `"t-sign-sgd"` the share of a matrix's elements that move in a step; by
    /// default 0.05.
    pub lr: f64,
    /// Decay rates of the two moments; by default 0.9 and 0.95. For Lion the momentum's weight in the update and its decay
    /// rate; by default 0.9 and 0.99.
    pub betas: (f64, f64),
    /// Added to the root of AdamW's second moment; by default 1e-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
    /// For `"muon"`: decay rate of the momentum; by default 0.95.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Decoupled weight decay of the projections; by default 0.1, for Lion 1, for `"t-sign-sgd"` 0, which has none. Embeddings and
    /// norms do not decay.
    pub weight_decay: f64,
    /// The largest norm of all gradients together; 0 does not clip. By default 1.
    pub grad_clip: f64,
    /// Steps in which the learning rate rises to `lr`; by default a twentieth of the run, at most 500; for `"t-sign-sgd"` 0.
    pub warmup_steps: u64,
    /// `"cosine"` (the default), `"linear"`, `"constant"`, `"wsd"` (constant, then a linear decay), `"two-stage"` (linear,
    /// with a lower rate and without weight decay from `stage2_at` on) or `"lota"` (the default of `"t-sign-sgd"`: linearly to a
    /// fiftieth over the first four fifths of the run, then to a five-hundredth).
    pub schedule: Schedule,
    /// Where a decaying schedule ends, as a share of its peak; by default 0.1.
    pub min_lr_ratio: f64,
    /// For `"wsd"`: the steps of the final decay; by default a fifth of the run.
    #[serde(skip_serializing_if = "is_zero_u64")]
    pub decay_steps: u64,
    /// For `"two-stage"`: what takes the place of `lr` in the second stage; by default two thirds of `lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage2_lr: Option<f64>,
    /// For `"two-stage"`: where the second stage begins, as a share of the run; by default 0.5.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage2_at: Option<f64>,
    /// The share of the run after which weight decay is 0; by default 1, for `"two-stage"` `stage2_at`.
    pub weight_decay_until: f64,
    /// How moments and momenta are kept: `"f32"` (the default), or `"bf16"`, rounded stochastically, in half the memory.
    pub state_dtype: StoredType,
    /// How weights are kept: `"f32"` (the default), or `"bf16"`, rounded stochastically after every step, in half the
    /// disk space.
    pub master_dtype: StoredType,
}

/// Optimizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OptimKind {
    /// `"adamw"` (arXiv 1711.05101).
    AdamW,
    /// `"lion"` (arXiv 2302.06675).
    Lion,
    /// `"muon"` (arXiv 2502.16982) for the projections, AdamW for the rest.
    Muon,
    /// `"t-sign-sgd"` (arXiv 2505.18724), for the ternary matrices of `lora.mode = "lota"`.
    #[serde(rename = "t-sign-sgd")]
    TSignSgd,
}

/// What the learning rate does after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// It falls linearly to the end of the run.
    Linear,
    /// It falls along half a cosine.
    Cosine,
    /// It stays, and falls linearly in the last `decay_steps`: warm-up, stable, decay.
    Wsd,
    /// It falls linearly to the end of the run, and drops to a lower line on the way ("The Era of 1-bit LLMs: Training
    /// Tips, Code and FAQ").
    TwoStage,
    /// It falls linearly to a fiftieth at four fifths of the run, and to a five-hundredth at its end: the share of gradients that t-SignSGD
    /// takes (arXiv 2505.18724: 5 %, 0.1 %, 0.01 %).
    Lota,
}

/// `[train]`: the loop.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Train {
    /// Optimizer steps.
    pub steps: u64,
    /// Samples of a micro-batch, or pairs of answers; by default 8.
    pub batch_size: usize,
    /// Micro-batches of a step; by default 1.
    pub gradient_accumulation: usize,
    /// Whether the backward computes activations again instead of keeping them: less memory, the same bits. By default false.
    pub gradient_checkpointing: bool,
    /// Steps between evaluations; by default a tenth of the run.
    pub eval_every: u64,
    /// Held-out tokens that an evaluation on the way scores, about; by default all, as the last one always does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_tokens: Option<usize>,
    /// Steps between checkpoints; by default `eval_every`.
    pub save_every: u64,
    /// The newest checkpoints that are kept; by default 2.
    pub keep_last: usize,
    /// Whether the checkpoint with the lowest held-out loss is written and kept too; by default it is not.
    pub keep_best: bool,
    /// Evaluations without a lower held-out loss after which the run ends; by default it goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// By how much, in nats, a held-out loss must be lower to count for `patience`; by default 0.
    pub min_delta: f64,
    /// What to do when loss or gradient is NaN or infinite: `"stop"` (the default), or `"skip"` the step's update. A run
    /// that skips 20 steps in a row stops.
    pub on_nonfinite: OnFault,
    /// A gradient norm this many times its running mean is a spike; by default none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spike_threshold: Option<f64>,
    /// What to do at a spike: `"skip"` the step's update (the default), or `"stop"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_spike: Option<OnFault>,
    /// Steps between log lines; by default 10.
    pub log_every: u64,
}

/// What to do about a step whose numbers cannot be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnFault {
    /// The run ends with an error; the last good checkpoint stays.
    Stop,
    /// The step's data is passed over: weights and optimizer stay as they are.
    Skip,
}

/// `[ema]`: an average of the weights over the steps, kept where the section is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Ema {
    /// Decay rate a step; less at the beginning of the run, (1 + step) / (10 + step).
    pub decay: f64,
    /// Whether the average is the model: what is evaluated, and what a checkpoint's `model.safetensors` holds for export.
    /// By default it is; otherwise it is stored beside, in `ema.safetensors`.
    pub deploy: bool,
}

/// `[sample]`: the text that is written at every evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Sample {
    /// What it begins with; by default a line feed.
    pub prompt: String,
    /// Tokens; by default 64. 0 writes none.
    pub tokens: usize,
    /// By default 0.8; 0 takes the most probable token.
    pub temperature: f64,
    /// Only the `top_k` most probable tokens; by default 40, 0 is all.
    pub top_k: usize,
    /// Only the most probable tokens that together have this probability; by default 0.95, 1 is all.
    pub top_p: f64,
}

/// `[export]`: the GGUF file that the trained model is to become.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Export {
    /// The packing (`docs/formats.md`); by default the first of `"tq2_0"` and `"i2_s"` whose blocks fit the widths.
    #[serde(serialize_with = "packing_name")]
    #[schemars(with = "String")]
    pub format: TernaryPacking,
    /// How embedding and head are stored: `"f16"` (the default), `"f32"` or `"q8_0"`.
    #[serde(serialize_with = "dense_name")]
    #[schemars(with = "String")]
    pub embeddings: DenseType,
}

impl Default for Quant {
    fn default() -> Self {
        Self { weights: WeightQuant::Absmean, activations: ActivationQuant::Absmax, backward: Backward::Auto }
    }
}

impl Default for Optim {
    fn default() -> Self {
        Self {
            kind: OptimKind::AdamW,
            lr: 1e-3,
            betas: (0.9, 0.95),
            eps: Some(1e-8),
            momentum: None,
            weight_decay: 0.1,
            grad_clip: 1.0,
            warmup_steps: 0,
            schedule: Schedule::Cosine,
            min_lr_ratio: 0.1,
            decay_steps: 0,
            stage2_lr: None,
            stage2_at: None,
            weight_decay_until: 1.0,
            state_dtype: StoredType::F32,
            master_dtype: StoredType::F32,
        }
    }
}

impl Default for Sample {
    fn default() -> Self {
        Self { prompt: "\n".to_string(), tokens: 64, temperature: 0.8, top_k: 40, top_p: 0.95 }
    }
}

impl Default for Export {
    fn default() -> Self {
        Self { format: TernaryPacking::Tq2_0, embeddings: DenseType::F16 }
    }
}

/// The name of a packing in recipes.
pub(super) fn recipe_name(packing: TernaryPacking) -> String {
    packing.name().to_ascii_lowercase()
}

fn packing_name<S: Serializer>(packing: &TernaryPacking, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&recipe_name(*packing))
}

fn dense_name<S: Serializer>(format: &DenseType, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(format.name())
}

fn backward_name<S: Serializer>(backward: &Backward, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(backward.name())
}

fn mode_name<S: Serializer>(mode: &LoraMode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mode.name())
}

fn module_name<S: Serializer>(module: &Projection, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(module.module())
}

fn module_names<S: Serializer>(modules: &[Projection], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(modules.iter().map(|module| module.module()))
}

// serde hands references to `skip_serializing_if`.
fn is_zero(n: &usize) -> bool {
    *n == 0
}

fn is_text(column: &str) -> bool {
    column == "text"
}

fn is_concat(packing: &Packing) -> bool {
    *packing == Packing::Concat
}

fn is_auto(backward: &Backward) -> bool {
    *backward == Backward::Auto
}

fn is_shard_tokens(n: &usize) -> bool {
    *n == SHARD_TOKENS
}

fn is_zero_u64(n: &u64) -> bool {
    *n == 0
}
