//! `[model]` and `[quant]`: the architecture and how it is quantized.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::{ActivationQuant, Granularity, HiddenAct, ModelConfig, WeightQuant, WeightQuantizer};
use tritforge_model::GradPrecision;

use super::serialize::{backward_name, display, granularity, is_auto, is_default};

/// `[model]`: the architecture, by the names of Hugging Face. In a recipe, `config` may name a file with these keys;
/// keys in the recipe go before it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Model {
    /// A checkpoint or the directory of a run to start from: its weights, shape and tokenizer.
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
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Number of query heads.
    pub num_attention_heads: usize,
    /// Number of key and value heads; by default the number of query heads.
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
    /// Whether the output head shares the embedding's weights; by default true.
    pub tie_word_embeddings: bool,
    /// Whether to apply an RMSNorm before `o_proj` and `down_proj` (sub-norms); by default true.
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
    /// What computes the codes and scales of latent weights, where `weights = "absmean"`: `"absmean"` (the default), `"absmedian"`,
    /// `"twn"` (threshold 0.75 · mean|W|, scale the mean of what is above it), `"rms"` (1.2240 · √(mean W²), of least squared error on a
    /// Gaussian) or `"least_squares"` (the codes of absmean with the scale of least squared error).
    #[serde(serialize_with = "display", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub scale: WeightQuantizer,
    /// Which weights share a scale: `"tensor"` (one scale, the default), `"row"` (one an output), or groups of 32, 64, 128 or 256
    /// consecutive inputs, which must divide every width. Scales of rows and groups are f16 numbers.
    #[serde(serialize_with = "granularity", skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub granularity: Granularity,
    /// `"absmax"` (int8, the default) or `"none"`.
    #[schemars(with = "String")]
    pub activations: ActivationQuant,
    /// How training multiplies the gradients of the projections: `"int24"` (rounded to 24 bits and multiplied by integers, about as
    /// precise as f32; in f32 where the forward multiplies no integers), `"f32"`, `"auto"` (the default: `"int24"` where that is faster, on
    /// processors with AVX-512 VNNI, else `"f32"`), or `"int16"` and `"int8"`, faster and noisier: rounded at random. These two need
    /// ternary weights and int8 activations.
    #[serde(serialize_with = "backward_name", skip_serializing_if = "is_auto")]
    #[schemars(with = "String")]
    pub backward: GradPrecision,
}

impl Default for Quant {
    fn default() -> Self {
        Self {
            weights: WeightQuant::Absmean,
            scale: WeightQuantizer::default(),
            granularity: Granularity::Tensor,
            activations: ActivationQuant::Absmax,
            backward: GradPrecision::Auto,
        }
    }
}
