//! `config.json` of Hugging Face checkpoints: what each field means here, and which fields mean nothing to
//! us.
//!
//! No field is passed over in silence: one that changes the computation in a way that the engine does not
//! know is an error, and one that nobody here has heard of is named in [`HuggingFaceConfig::unknown`].

mod fields;
mod rope;
mod write;

use serde_json::{Map, Value, json};

use crate::architecture::{Class, reason};
use crate::{
    ActivationQuant, AttentionBias, ConfigError, Granularity, HiddenAct, ModelConfig, Rotation, WeightQuant,
    WeightQuantizer,
};

/// How a checkpoint's projections are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantization {
    /// `config.json` does not say: full precision in Llama and Qwen, and an open question in BitNet.
    Unsaid,
    /// Latent weights, made ternary in every forward (`autobitlinear`, `online`).
    Online,
    /// Packed codes, whose `weight_scale` **divides**: 1/mean|W| (`bitlinear`, the default).
    Divides,
    /// Packed codes, whose `weight_scale` **multiplies**: mean|W| (`autobitlinear`, `offline`).
    Multiplies,
}

/// What a `config.json` says.
#[derive(Debug, Clone, PartialEq)]
pub struct HuggingFaceConfig {
    /// The model. Where the quantization is unsaid, it is in full precision.
    pub config: ModelConfig,
    /// `model_type`: the class.
    pub model_type: String,
    /// How the projections are quantized.
    pub quantization: Quantization,
    /// Fields that this program does not know, with their values.
    pub unknown: Vec<String>,
}

/// Fields that [`rope::read`] reads.
const ROPE: [&str; 5] = [
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "original_max_position_embeddings",
];

/// Fields of `quantization_config` that are read, or whose value the tensors show: `rms_norm_eps` belongs to
/// norms that are refused.
const QUANTIZATION: [&str; 6] = [
    "quant_method",
    "linear_class",
    "quantization_mode",
    "modules_to_not_convert",
    "use_rms_norm",
    "rms_norm_eps",
];

impl HuggingFaceConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// If it is no JSON object, of a family that the engine does not run, lacks a size, or asks for something
    /// that the engine does not compute; the message names the field.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let json: Value = serde_json::from_str(text).map_err(|e| ConfigError::Json(e.to_string()))?;
        let Value::Object(fields) = json else {
            return Err(ConfigError::Json("expected an object".to_string()));
        };
        Reader { fields, used: Vec::new() }.read()
    }
}

/// The fields, and which of them were looked at.
struct Reader {
    fields: Map<String, Value>,
    used: Vec<&'static str>,
}

fn wrong(key: &str, found: &Value, expected: &str) -> ConfigError {
    ConfigError::Json(format!("{key} = {found}: {expected}"))
}

impl Reader {
    /// A field that is there and not null.
    fn get(&mut self, key: &'static str) -> Option<Value> {
        self.used.push(key);
        self.fields.get(key).filter(|value| !value.is_null()).cloned()
    }

    fn size(&mut self, key: &'static str, default: Option<u64>) -> Result<usize, ConfigError> {
        match (self.get(key), default) {
            (Some(value), _) => match value.as_u64().and_then(|size| usize::try_from(size).ok()) {
                Some(size) => Ok(size),
                None => Err(wrong(key, &value, "expected a size")),
            },
            (None, Some(default)) => Ok(default as usize),
            (None, None) => Err(ConfigError::Json(format!("{key} is missing"))),
        }
    }

    fn flag(&mut self, key: &'static str, default: bool) -> Result<bool, ConfigError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(key, &other, "expected true or false")),
        }
    }

    fn number(&mut self, key: &'static str, default: f64) -> Result<f32, ConfigError> {
        match self.get(key) {
            None => Ok(default as f32),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(number as f32),
                None => Err(wrong(key, &value, "expected a number")),
            },
        }
    }

    /// Refuses a field that has any other value than this.
    fn only(&mut self, key: &'static str, value: &Value, what: &str) -> Result<(), ConfigError> {
        match self.get(key) {
            Some(found) if found != *value => {
                Err(wrong(key, &found, &format!("not supported ({what}); expected {value}")))
            }
            _ => Ok(()),
        }
    }

    fn read(mut self) -> Result<HuggingFaceConfig, ConfigError> {
        let Some(Value::String(model_type)) = self.get("model_type") else {
            return Err(ConfigError::Json(
                "model_type is missing: is this a Hugging Face checkpoint?".to_string(),
            ));
        };
        // The 3B of 1bitLLM names its class with a small n, and its family in one of two ways.
        let old_bitnet = self.get("architectures").is_some_and(|a| a[0] == "BitnetForCausalLM");
        let name = if old_bitnet || model_type == "bitnet_b1_58" { "bitnet" } else { &model_type };
        let Some((architecture, class)) = Class::from_model_type(name) else {
            let known = Class::model_types();
            let reason =
                reason(name).map(|reason| format!("not supported, since {reason}; ")).unwrap_or_default();
            let message = format!("model_type = \"{model_type}\": {reason}expected {known}");
            return Err(ConfigError::Json(message));
        };
        let hidden_size = self.size("hidden_size", None)?;
        let num_attention_heads = self.size("num_attention_heads", None)?;
        if num_attention_heads == 0 {
            return Err(ConfigError::Json("num_attention_heads = 0".to_string()));
        }
        let head_dim = class.head_dim.unwrap_or((hidden_size / num_attention_heads) as u64);
        let hidden_act = self.get("hidden_act").unwrap_or_else(|| class.hidden_act.into());
        let hidden_act = hidden_act.as_str().unwrap_or_default();
        let Some(hidden_act) = HiddenAct::from_name(if hidden_act == "swish" { "silu" } else { hidden_act })
        else {
            let known = HiddenAct::names();
            return Err(ConfigError::Json(format!("hidden_act = \"{hidden_act}\": expected one of {known}")));
        };
        // A class's default counts where the field is missing, null means one head of keys a head of queries.
        let num_key_value_heads = match self.fields.get("num_key_value_heads") {
            None => self.size(
                "num_key_value_heads",
                class.num_key_value_heads.or(Some(num_attention_heads as u64)),
            )?,
            Some(_) => self.size("num_key_value_heads", Some(num_attention_heads as u64))?,
        };
        let attention_bias = match (class.attention_bias, self.flag("attention_bias", false)?) {
            (Some(own), _) => own,
            (None, true) => AttentionBias::All,
            (None, false) => AttentionBias::None,
        };
        self.only("mlp_bias", &json!(false), "biases of the feed-forward network")?;
        self.only("rope_interleaved", &json!(false), "interleaved RoPE of Hugging Face checkpoints")?;
        fields::check(&self.fields)?;
        let max_position_embeddings =
            self.size("max_position_embeddings", Some(class.max_position_embeddings))?;
        let num_hidden_layers = self.size("num_hidden_layers", None)?;
        self.window(class, num_hidden_layers, max_position_embeddings)?;
        let rope = rope::read(&self.fields, class.rope_theta, max_position_embeddings)?;
        self.used.extend(ROPE);
        let quantization = self.quantization()?;
        let (weights, activations) = match quantization {
            Quantization::Unsaid => (WeightQuant::None, ActivationQuant::None),
            Quantization::Online => (WeightQuant::Absmean, ActivationQuant::Absmax),
            Quantization::Divides | Quantization::Multiplies => {
                (WeightQuant::Ternary, ActivationQuant::Absmax)
            }
        };
        let config = ModelConfig {
            vocab_size: self.size("vocab_size", None)?,
            hidden_size,
            intermediate_size: self.size("intermediate_size", None)?,
            num_hidden_layers,
            num_attention_heads,
            num_key_value_heads,
            head_dim: self.size("head_dim", Some(head_dim))?,
            hidden_act,
            max_position_embeddings,
            rms_norm_eps: self.number("rms_norm_eps", class.rms_norm_eps)?,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            tie_word_embeddings: self.flag("tie_word_embeddings", false)?,
            use_sub_norm: architecture.use_sub_norm,
            projection_norms: false,
            use_qk_norm: architecture.use_qk_norm,
            attention_bias,
            weights,
            quantizer: WeightQuantizer::default(),
            granularity: Granularity::Tensor,
            ternary_embedding: None,
            ternary_head: None,
            activations,
            rotation: Rotation::None,
            activation_top_k: None,
            dead_zone_bias: None,
            initializer_range: self.number("initializer_range", 0.02)?,
        };
        config.validate()?;
        let known = |key: &str| {
            let listed = fields::CHANGES.iter().any(|(changes, _)| *changes == key);
            self.used.contains(&key) || fields::NO_EFFECT.contains(&key) || listed
        };
        let unknown = self.fields.iter().filter(|(key, value)| !known(key) && !value.is_null());
        let mut unknown: Vec<String> = unknown.map(|(key, value)| format!("{key} = {value}")).collect();
        unknown.extend(rope.unknown);
        unknown.extend(self.unknown_of_quantization());
        Ok(HuggingFaceConfig { config, model_type, quantization, unknown })
    }

    /// Refuses attention that looks at a window of the past only: one shorter than the context, in any block.
    fn window(&mut self, class: &Class, blocks: usize, context: usize) -> Result<(), ConfigError> {
        let uses = self.flag("use_sliding_window", class.sliding_window.is_some())?;
        let first = self.size("max_window_layers", Some(0))?;
        let uses = uses && !(class.max_window_layers && first >= blocks);
        let shorter = |window: &Value| window.as_u64().is_none_or(|window| (window as usize) < context);
        let absent = !self.fields.contains_key("sliding_window");
        let own = class.sliding_window.filter(|_| absent).map(|window| json!(window));
        let window = self.get("sliding_window").or(own);
        if let Some(window) = window.filter(|window| uses && shorter(window)) {
            return Err(wrong(
                "sliding_window",
                &window,
                "sliding-window attention is not supported; expected null",
            ));
        }
        match self.get("layer_types") {
            Some(Value::Array(types)) if types.iter().any(|ty| ty != "full_attention") => {
                Err(wrong("layer_types", &Value::Array(types), "only full_attention is supported"))
            }
            Some(other) if !other.is_array() => Err(wrong("layer_types", &other, "expected a list")),
            _ => Ok(()),
        }
    }

    /// Keys of `quantization_config` that are not known.
    fn unknown_of_quantization(&self) -> Vec<String> {
        let known = |key: &str| QUANTIZATION.contains(&key);
        let fields = self.fields.get("quantization_config").and_then(Value::as_object);
        let unknown = fields.into_iter().flatten().filter(|(key, value)| !known(key) && !value.is_null());
        unknown.map(|(key, value)| format!("quantization_config.{key} = {value}")).collect()
    }

    fn quantization(&mut self) -> Result<Quantization, ConfigError> {
        let bits = (self.get("weight_bits"), self.get("input_bits"));
        let Some(quantization) = self.get("quantization_config") else {
            return match bits {
                // 1bitLLM's checkpoints: latent weights.
                (Some(weights), Some(inputs)) if weights == 1 && inputs == 8 => Ok(Quantization::Online),
                (None, None) => Ok(Quantization::Unsaid),
                (weights, inputs) => Err(ConfigError::Json(format!(
                    "weight_bits = {}, input_bits = {}: expected 1 and 8",
                    weights.unwrap_or_default(),
                    inputs.unwrap_or_default()
                ))),
            };
        };
        let text = |key: &str, default: &'static str| match &quantization[key] {
            Value::String(text) => text.clone(),
            _ => default.to_string(),
        };
        let method = text("quant_method", "");
        if method != "bitnet" {
            return Err(ConfigError::Json(format!(
                "quantization_config.quant_method = \"{method}\": only bitnet is supported; use the model's \
                 full-precision checkpoint"
            )));
        }
        if quantization["use_rms_norm"] == true {
            return Err(ConfigError::Json(
                "quantization_config.use_rms_norm = true: RMSNorm inside linear layers is not supported"
                    .to_string(),
            ));
        }
        let kept = quantization["modules_to_not_convert"].as_array();
        let odd = |module: &&Value| **module != "lm_head" && **module != "embed_tokens";
        if let Some(module) = kept.into_iter().flatten().find(odd) {
            return Err(wrong(
                "quantization_config.modules_to_not_convert",
                module,
                "either all projections are ternary or none; expected lm_head only",
            ));
        }
        match (text("linear_class", "bitlinear").as_str(), text("quantization_mode", "offline").as_str()) {
            ("bitlinear", "offline") => Ok(Quantization::Divides),
            ("autobitlinear", "offline") => Ok(Quantization::Multiplies),
            ("autobitlinear", "online") => Ok(Quantization::Online),
            (class, mode) => Err(ConfigError::Json(format!(
                "quantization_config: linear_class = \"{class}\" with quantization_mode = \"{mode}\"; expected bitlinear \
                 with offline, or autobitlinear with online or offline"
            ))),
        }
    }
}
