//! `ModelConfig`: the shape of a decoder, its activation and norms, and how its linears are quantized.

use serde::{Deserialize, Serialize};
use tritforge_ternary::{Granularity, TopK, WeightQuantizer};

use crate::{ActivationQuant, ConfigError, HiddenAct, Projection, RopeScaling, Rotation};

/// How the seven projections of a block are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightQuant {
    /// Ternary, computed from latent weights by [`ModelConfig::quantizer`], which is absmean (BitNet b1.58, arXiv
    /// 2402.17764, eq. 1–3) unless another is named.
    Absmean,
    /// Ternary as stored: every value is −s, 0 or s of its tensor, and nothing is quantized again. What a
    /// model imported from ternary weights is; it runs and is exported, but has no latent weights to train.
    Ternary,
    /// Full precision.
    None,
}

/// Which projections of the attention add a bias to their product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionBias {
    /// None: BitNet, Llama, Qwen3.
    None,
    /// Queries, keys and values: Qwen2.
    Qkv,
    /// Those and the output: `attention_bias = true` of Hugging Face's Llama.
    All,
}

impl AttentionBias {
    /// Whether this projection has one.
    pub fn has(self, projection: Projection) -> bool {
        match self {
            AttentionBias::None => false,
            AttentionBias::Qkv => matches!(projection, Projection::Q | Projection::K | Projection::V),
            AttentionBias::All => {
                matches!(projection, Projection::Q | Projection::K | Projection::V | Projection::O)
            }
        }
    }
}

/// A decoder-only transformer of the BitNet, Llama and Qwen families. Names and meanings are those of Hugging
/// Face configs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the feed-forward network.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides `num_attention_heads`.
    pub num_key_value_heads: usize,
    /// Width of a head; even, since RoPE rotates pairs.
    pub head_dim: usize,
    /// The gate's activation.
    pub hidden_act: HiddenAct,
    /// The longest context.
    pub max_position_embeddings: usize,
    /// ε of every RMSNorm.
    pub rms_norm_eps: f32,
    /// Base of the rotary embedding's frequencies.
    pub rope_theta: f32,
    /// How the rotary embedding's frequencies are changed for contexts longer than those of pretraining.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Whether an RMSNorm stands before `o_proj` and `down_proj` (SubLN).
    pub use_sub_norm: bool,
    /// Whether an RMSNorm with a weight of its own stands before each of the seven projections: before `o_proj` and `down_proj` the
    /// sub-norms, before the others one more behind the norm that they share.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub projection_norms: bool,
    /// Whether every head's query and key go through an RMSNorm of width `head_dim` before RoPE (Qwen3).
    pub use_qk_norm: bool,
    /// Which projections of the attention have a bias.
    pub attention_bias: AttentionBias,
    /// Quantization of the projections' weights.
    pub weights: WeightQuant,
    /// What computes codes and scales of latent weights.
    #[serde(with = "crate::quantizer::by_name")]
    pub quantizer: WeightQuantizer,
    /// Which ternary weights share a scale.
    #[serde(with = "crate::quantizer::granularity")]
    pub granularity: Granularity,
    /// Quantization of the projections' inputs.
    pub activations: ActivationQuant,
    /// Rotation of the projections' inputs.
    #[serde(skip_serializing_if = "Rotation::is_none")]
    pub rotation: Rotation,
    /// The part of each token's inputs of a projection that keep their codes, those of largest magnitude; all of them if it is not
    /// given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_top_k: Option<f32>,
    /// What the sum of the latent weights with code 0 is multiplied by in each row, where it is a bias of the attention's
    /// projections ([`ModelConfig::dead_zone`]; Tequila, arXiv 2509.23809). None if dead weights make no bias.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_zone_bias: Option<f32>,
    /// Standard deviation of the initial weights.
    pub initializer_range: f32,
    /// Which weights of the embedding share a scale, if it is ternary: by the quantizer of the projections, or as stored, as
    /// theirs are. None in full precision.
    #[serde(with = "crate::quantizer::optional_granularity", skip_serializing_if = "Option::is_none")]
    pub ternary_embedding: Option<Granularity>,
    /// The same of a head that is not the embedding. The input of a ternary head is quantized as those of the projections.
    #[serde(with = "crate::quantizer::optional_granularity", skip_serializing_if = "Option::is_none")]
    pub ternary_head: Option<Granularity>,
}

impl Default for ModelConfig {
    /// A small model whose widths every packing can hold.
    fn default() -> Self {
        Self {
            vocab_size: 4096,
            hidden_size: 256,
            intermediate_size: 768,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            head_dim: 64,
            hidden_act: HiddenAct::Silu,
            max_position_embeddings: 512,
            rms_norm_eps: 1e-5,
            rope_theta: 10_000.0,
            rope_scaling: None,
            tie_word_embeddings: true,
            use_sub_norm: true,
            projection_norms: false,
            use_qk_norm: false,
            attention_bias: AttentionBias::None,
            weights: WeightQuant::Absmean,
            quantizer: WeightQuantizer::default(),
            granularity: Granularity::Tensor,
            activations: ActivationQuant::Absmax,
            rotation: Rotation::None,
            activation_top_k: None,
            dead_zone_bias: None,
            initializer_range: 0.02,
            ternary_embedding: None,
            ternary_head: None,
        }
    }
}

impl ModelConfig {
    /// Which part of the inputs' codes is kept, if not all are.
    pub fn top_k(&self) -> Option<TopK> {
        self.activation_top_k.and_then(TopK::new)
    }

    /// Whether activations are quantized as those of BitNet b1.58, all of a token to int8 as they are, or not at all: what
    /// other programs compute.
    pub fn has_plain_activations(&self) -> bool {
        self.activations != ActivationQuant::Int4
            && self.rotation == Rotation::None
            && self.activation_top_k.is_none()
    }

    /// How activations are quantized, in words.
    pub fn activations_text(&self) -> String {
        let top_k = self.activation_top_k.map(|part| format!(", top-k {part}")).unwrap_or_default();
        format!("activations {}, rotation {}{top_k}", self.activations.name(), self.rotation.name())
    }

    /// Whether ternary weights have one scale a tensor and, if they are latent, absmean computes it, and embedding and
    /// head are in full precision: what runtimes of BitNet models compute.
    pub fn is_bitnet(&self) -> bool {
        let absmean = self.weights != WeightQuant::Absmean || self.quantizer == WeightQuantizer::default();
        let dense_tables = self.ternary_embedding.is_none() && self.ternary_head.is_none();
        absmean && self.granularity == Granularity::Tensor && dense_tables
    }

    /// Which weights of what makes logits share a scale, if it is ternary: the head, or the embedding where they are
    /// tied.
    pub fn output_granularity(&self) -> Option<Granularity> {
        if self.tie_word_embeddings { self.ternary_embedding } else { self.ternary_head }
    }

    /// Whether every projection has scales that are trained, beside its latent weights.
    pub fn learns_scales(&self) -> bool {
        self.weights == WeightQuant::Absmean && self.quantizer.learned().is_some()
    }

    /// The projection whose learned scales have this name in a checkpoint, and its layer.
    pub fn learned_scales(&self, name: &str) -> Option<(usize, Projection)> {
        if !self.learns_scales() || !name.ends_with(".weight_clip_val") {
            return None;
        }
        let layers = (0..self.num_hidden_layers).flat_map(|layer| Projection::ALL.map(|p| (layer, p)));
        layers.into_iter().find(|(layer, projection)| projection.hf_clip_val(*layer) == name)
    }

    /// Width of the queries: `num_attention_heads · head_dim`.
    pub fn q_size(&self) -> usize {
        self.num_attention_heads * self.head_dim
    }

    /// Width of the keys and of the values: `num_key_value_heads · head_dim`.
    pub fn kv_size(&self) -> usize {
        self.num_key_value_heads * self.head_dim
    }

    /// Reads a shape from TOML, as in the `configs` directory.
    ///
    /// # Errors
    /// If it is not TOML, has an unknown or ill-typed key, or describes an impossible model; the message
    /// names the line.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|e| ConfigError::Toml(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Reads `config.json`.
    ///
    /// # Errors
    /// If it is not JSON, has an unknown or ill-typed key, or describes an impossible model.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let parser = &mut serde_json::Deserializer::from_str(json);
        let config: Self = serde_path_to_error::deserialize(&mut *parser)
            .map_err(|e| ConfigError::Json(format!("{}: {}", e.path(), e.inner())))?;
        parser.end().map_err(|e| ConfigError::Json(e.to_string()))?;
        config.validate()?;
        Ok(config)
    }

    /// Writes `config.json`.
    pub fn to_json(&self) -> String {
        // A struct of numbers, strings and booleans always serializes.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tritforge_ternary::QuantizerSettings;

    use super::*;

    #[test]
    fn json_round_trips() {
        let config =
            ModelConfig { rope_theta: 500_000.0, hidden_act: HiddenAct::Relu2, ..Default::default() };
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        for granularity in [Granularity::Row, Granularity::Group(128)] {
            let quantizer = "twn".parse().unwrap();
            let config = ModelConfig { granularity, quantizer, ..Default::default() };
            assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        }
        // Models without a ternary table are written as ever.
        assert!(!config.to_json().contains("ternary_"));
        let tables = ModelConfig {
            ternary_embedding: Some(Granularity::Group(64)),
            ternary_head: Some(Granularity::Row),
            tie_word_embeddings: false,
            ..Default::default()
        };
        assert_eq!(ModelConfig::from_json(&tables.to_json()).unwrap(), tables);
        let written = ModelConfig::from_toml(
            "ternary_embedding = 64\nternary_head = \"row\"\ntie_word_embeddings = false",
        );
        assert_eq!(written.unwrap(), tables);
        for (name, threshold, sparsity) in [("threshold", 0.5, None), ("twn", 0.7, Some("2:4"))] {
            let quantizer: WeightQuantizer = name.parse().unwrap();
            let sparsity = sparsity.map(|text| text.parse().unwrap());
            let quantizer = quantizer.with(QuantizerSettings { threshold, sparsity });
            let config = ModelConfig { quantizer, ..Default::default() };
            assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        }
        let error = ModelConfig::from_json(r#"{"quantizer": {"name": "twn", "sparsity": "4:2"}}"#);
        assert!(error.unwrap_err().to_string().contains("sparsity 4:2: expected N:M"));
        let error = ModelConfig::from_json(r#"{"quantizer": {"name": "twn", "sparsity": "2:5"}}"#);
        let error = error.unwrap_err().to_string();
        assert_eq!(
            error,
            "sparsity = 2:5: self_attn.q_proj: windows of sparsity 2:5 do not divide a row of 256 weights"
        );
        let error = ModelConfig::from_json(r#"{"quantizer": {"name": "threshold", "threshold": -1}}"#);
        assert!(error.unwrap_err().to_string().contains("threshold = -1"));
        let error = ModelConfig::from_json(r#"{"granularity": 48}"#).unwrap_err().to_string();
        assert!(error.contains("granularity: granularity 48: expected tensor, row, or a group"), "{error}");
    }

    #[test]
    fn toml_names_the_line_of_a_fault() {
        let config = ModelConfig::from_toml("hidden_size = 512\nnum_attention_heads = 8").unwrap();
        assert_eq!((config.hidden_size, config.num_attention_heads), (512, 8));
        let error = ModelConfig::from_toml("vocab_size = 300\nhidden_sise = 3").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("hidden_sise"), "{error}");
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = ModelConfig::from_json(r#"{"hidden_sise": 3}"#).unwrap_err().to_string();
        assert!(error.contains("hidden_sise"), "{error}");
    }
}
