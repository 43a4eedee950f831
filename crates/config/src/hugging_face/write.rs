//! The `config.json` that goes with an export in Hugging Face's layout.

use serde_json::{Map, Value, json};

use crate::architecture::Class;
use crate::{AttentionBias, ConfigError, ModelConfig, RopeScaling, WeightQuant};

impl ModelConfig {
    /// The `config.json` of a Hugging Face checkpoint of this model. `packed` says whether its ternary
    /// weights are packed or latent; `dtype` names the type of all other weights; `extra` is added, such as
    /// the ids of special tokens.
    ///
    /// # Errors
    /// If no class of `transformers` computes this model.
    pub fn to_hugging_face(
        &self,
        packed: bool,
        dtype: &str,
        extra: Map<String, Value>,
    ) -> Result<String, ConfigError> {
        if self.weights != WeightQuant::None && !self.is_bitnet() {
            let table = |name, granularity: Option<_>| granularity.map_or("", |_| name);
            return Err(ConfigError::NoClass(format!(
                "quantizer {}{}, granularity {}{}{}: transformers quantizes by absmean with one scale a tensor, and neither \
                 embedding nor head; export GGUF",
                self.quantizer,
                self.quantizer.kept().map(|sparsity| format!(", sparsity {sparsity}")).unwrap_or_default(),
                self.granularity,
                table(", a ternary embedding", self.ternary_embedding),
                table(", a ternary head", self.ternary_head)
            )));
        }
        if !self.has_plain_activations() {
            return Err(ConfigError::NoClass(format!(
                "{}: transformers quantizes all activations to int8 as they are; export GGUF",
                self.activations_text()
            )));
        }
        if self.projection_norms {
            let message = "projection_norms = true: no class has a norm before each projection; export GGUF";
            return Err(ConfigError::NoClass(message.to_string()));
        }
        let class = Class::of(self)?;
        let mut json = json!({
            "architectures": [class.name],
            "model_type": class.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": self.num_attention_heads,
            "num_key_value_heads": self.num_key_value_heads,
            "head_dim": self.head_dim,
            "hidden_act": self.hidden_act.name(),
            "max_position_embeddings": self.max_position_embeddings,
            "rms_norm_eps": self.rms_norm_eps,
            "rope_theta": self.rope_theta,
            "rope_parameters": self.rope_parameters()?,
            "tie_word_embeddings": self.tie_word_embeddings,
            "attention_bias": self.deployed_bias() == AttentionBias::All,
            "initializer_range": self.initializer_range,
            "dtype": dtype,
        });
        if self.weights != WeightQuant::None {
            let mode = if packed { "offline" } else { "online" };
            json["quantization_config"] = json!({
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": mode,
                "modules_to_not_convert": ["lm_head"],
            });
        }
        for (key, value) in extra {
            json[key] = value;
        }
        Ok(format!("{json:#}\n"))
    }

    fn rope_parameters(&self) -> Result<Value, ConfigError> {
        let theta = self.rope_theta;
        Ok(match &self.rope_scaling {
            None => json!({"rope_type": "default", "rope_theta": theta}),
            Some(RopeScaling::Factors { .. }) => {
                return Err(ConfigError::NoClass(
                    "per-frequency RoPE factors, as stored in GGUF files: transformers has no such type"
                        .to_string(),
                ));
            }
            Some(scaling) => {
                let mut json = serde_json::to_value(scaling).unwrap_or_default();
                json["rope_theta"] = json!(theta);
                json
            }
        })
    }
}
