//! The configuration as GGUF metadata, and the choice of the architecture that describes it.
//!
//! llama.cpp's `bitnet` has a SiLU gate, sub-norms and a tied head; bitnet.cpp's `bitnet-b1.58` has a ReLU² gate. A file's
//! architecture therefore follows from the model, it is not the user's to choose.

use tritforge_gguf::{Metadata, Value, optional};

use crate::{ActivationQuant, ConfigError, HiddenAct, ModelConfig, WeightQuant};

/// A GGUF architecture that the project writes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `bitnet` of llama.cpp: SiLU gate, sub-norms, head tied, a `.scale` tensor beside each ternary weight.
    Bitnet,
    /// `bitnet-b1.58` of bitnet.cpp: ReLU² gate, sub-norms, head tied or not.
    BitnetB158,
}

/// A program that loads GGUF files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runtime {
    /// This project's engine.
    Tritforge,
    /// llama.cpp and what is built on it.
    LlamaCpp,
    /// microsoft/BitNet.
    BitnetCpp,
    /// ikawrakow/ik_llama.cpp.
    IkLlamaCpp,
}

impl Runtime {
    /// The name that its users know.
    pub fn name(self) -> &'static str {
        match self {
            Runtime::Tritforge => "tritforge",
            Runtime::LlamaCpp => "llama.cpp",
            Runtime::BitnetCpp => "bitnet.cpp",
            Runtime::IkLlamaCpp => "ik_llama.cpp",
        }
    }
}

impl Architecture {
    /// The architectures, as `general.architecture` spells them.
    pub const ALL: [Architecture; 2] = [Architecture::Bitnet, Architecture::BitnetB158];

    /// The value of `general.architecture`.
    pub fn name(self) -> &'static str {
        match self {
            Architecture::Bitnet => "bitnet",
            Architecture::BitnetB158 => "bitnet-b1.58",
        }
    }

    /// Whether a `<name>.scale` tensor beside each ternary weight is part of the architecture. Where it is not, TQ1_0 and
    /// TQ2_0 hold the scale as f16 in their blocks, and only I2_S holds it exactly.
    pub fn has_scale_tensors(self) -> bool {
        self == Architecture::Bitnet
    }

    /// The architecture of a model.
    ///
    /// # Errors
    /// If none describes it; the message says what to change.
    pub fn of(config: &ModelConfig) -> Result<Self, ConfigError> {
        if !config.use_sub_norm {
            return Err(ConfigError::NoArchitecture(
                "use_sub_norm = false: both BitNet architectures have sub-norms".to_string(),
            ));
        }
        match (config.hidden_act, config.tie_word_embeddings) {
            (HiddenAct::Silu, true) => Ok(Architecture::Bitnet),
            (HiddenAct::Silu, false) => Err(ConfigError::NoArchitecture(
                "hidden_act = \"silu\" with tie_word_embeddings = false: `bitnet` ties its head; tie it, or use relu2"
                    .to_string(),
            )),
            (HiddenAct::Relu2, _) => Ok(Architecture::BitnetB158),
        }
    }

    /// Runtimes that load this architecture with ternary weights of the given GGUF type.
    pub fn runtimes(self, packing: &str) -> Vec<Runtime> {
        use Runtime::{BitnetCpp, IkLlamaCpp, LlamaCpp, Tritforge};
        match (self, packing) {
            (Architecture::Bitnet, "TQ1_0" | "TQ2_0") => vec![Tritforge, LlamaCpp],
            (Architecture::BitnetB158, "TQ1_0" | "TQ2_0" | "I2_S") => vec![Tritforge, BitnetCpp, IkLlamaCpp],
            _ => vec![Tritforge],
        }
    }
}

impl ModelConfig {
    /// The metadata that describes the model: `general.architecture` and everything under `{architecture}.`.
    ///
    /// # Errors
    /// If no architecture describes the model.
    pub fn to_gguf(&self) -> Result<Vec<(String, Value)>, ConfigError> {
        let arch = Architecture::of(self)?.name();
        // `validate` keeps every size far below 2³².
        let sizes = [
            ("vocab_size", self.vocab_size),
            ("context_length", self.max_position_embeddings),
            ("embedding_length", self.hidden_size),
            ("block_count", self.num_hidden_layers),
            ("feed_forward_length", self.intermediate_size),
            ("attention.head_count", self.num_attention_heads),
            ("attention.head_count_kv", self.num_key_value_heads),
            ("attention.key_length", self.head_dim),
            ("attention.value_length", self.head_dim),
            ("rope.dimension_count", self.head_dim),
        ];
        let mut entries = vec![("general.architecture".to_string(), Value::String(arch.to_string()))];
        for (key, size) in sizes {
            entries.push((format!("{arch}.{key}"), Value::U32(size as u32)));
        }
        let numbers = [
            ("attention.layer_norm_rms_epsilon", self.rms_norm_eps),
            ("rope.freq_base", self.rope_theta),
            ("rope.scaling.factor", 1.0),
        ];
        for (key, number) in numbers {
            entries.push((format!("{arch}.{key}"), Value::F32(number)));
        }
        entries.push((format!("{arch}.rope.scaling.type"), Value::String("linear".to_string())));
        Ok(entries)
    }

    /// Reads the description back. `untied` says whether the file has an `output.weight`.
    ///
    /// # Errors
    /// If the architecture is unknown, a key is missing or ill-typed, or the model is impossible.
    pub fn from_gguf(metadata: &Metadata, untied: bool) -> Result<Self, ConfigError> {
        let fault = |e: tritforge_gguf::Error| ConfigError::Gguf(e.to_string());
        let name = metadata.get_str("general.architecture").map_err(fault)?;
        let Some(architecture) = Architecture::ALL.into_iter().find(|a| a.name() == name) else {
            let known = Architecture::ALL.map(Architecture::name).join(", ");
            return Err(ConfigError::Gguf(format!(
                "general.architecture = \"{name}\": this engine runs {known}"
            )));
        };
        let key = |suffix: &str| format!("{name}.{suffix}");
        let size = |suffix: &str| metadata.get_usize(&key(suffix)).map_err(fault);
        let size_or = |suffix: &str, default: usize| {
            optional(metadata.get_usize(&key(suffix))).map(|v| v.unwrap_or(default)).map_err(fault)
        };
        let number_or = |suffix: &str, default: f32| {
            optional(metadata.get_f32(&key(suffix))).map(|v| v.unwrap_or(default)).map_err(fault)
        };
        let scaling = number_or("rope.scaling.factor", 1.0)?;
        if scaling != 1.0 {
            return Err(ConfigError::Gguf(format!(
                "{} = {scaling}: this engine runs unscaled RoPE only",
                key("rope.scaling.factor")
            )));
        }
        let hidden_size = size("embedding_length")?;
        let num_attention_heads = size("attention.head_count")?;
        if num_attention_heads == 0 {
            return Err(ConfigError::Gguf(format!("{} = 0", key("attention.head_count"))));
        }
        let head_dim = size_or("rope.dimension_count", hidden_size / num_attention_heads)?;
        let key_length = size_or("attention.key_length", head_dim)?;
        if key_length != head_dim {
            return Err(ConfigError::Gguf(format!(
                "{} = {key_length}, {} = {head_dim}: this engine rotates whole heads only",
                key("attention.key_length"),
                key("rope.dimension_count")
            )));
        }
        let vocab_size = match optional(metadata.get_usize(&key("vocab_size"))).map_err(fault)? {
            Some(size) => size,
            None => metadata.get_str_array("tokenizer.ggml.tokens").map_err(fault)?.len(),
        };
        let config = Self {
            vocab_size,
            hidden_size,
            intermediate_size: size("feed_forward_length")?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads,
            num_key_value_heads: size_or("attention.head_count_kv", num_attention_heads)?,
            head_dim,
            hidden_act: match architecture {
                Architecture::Bitnet => HiddenAct::Silu,
                Architecture::BitnetB158 => HiddenAct::Relu2,
            },
            max_position_embeddings: size("context_length")?,
            rms_norm_eps: metadata.get_f32(&key("attention.layer_norm_rms_epsilon")).map_err(fault)?,
            rope_theta: number_or("rope.freq_base", 10_000.0)?,
            tie_word_embeddings: !untied,
            use_sub_norm: true,
            weights: WeightQuant::Absmean,
            activations: ActivationQuant::Absmax,
            initializer_range: ModelConfig::default().initializer_range,
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(config: &ModelConfig) -> Metadata {
        let mut metadata = Metadata::new();
        for (key, value) in config.to_gguf().unwrap() {
            metadata.insert(key, value);
        }
        metadata
    }

    #[test]
    fn metadata_round_trips() {
        let silu = ModelConfig::default();
        assert_eq!(ModelConfig::from_gguf(&metadata(&silu), false).unwrap(), silu);
        let relu2 = ModelConfig { hidden_act: HiddenAct::Relu2, tie_word_embeddings: false, ..silu };
        assert_eq!(ModelConfig::from_gguf(&metadata(&relu2), true).unwrap(), relu2);
    }

    #[test]
    fn models_without_an_architecture_are_refused() {
        let untied = ModelConfig { tie_word_embeddings: false, ..ModelConfig::default() };
        assert!(untied.to_gguf().unwrap_err().to_string().contains("tie_word_embeddings"));
        let plain = ModelConfig { use_sub_norm: false, ..ModelConfig::default() };
        assert!(plain.to_gguf().unwrap_err().to_string().contains("use_sub_norm"));
    }

    #[test]
    fn unknown_architectures_and_missing_keys_are_named() {
        let mut m = metadata(&ModelConfig::default());
        m.remove("bitnet.block_count");
        let error = ModelConfig::from_gguf(&m, false).unwrap_err().to_string();
        assert!(error.contains("bitnet.block_count"), "{error}");
        m.insert("general.architecture", "mamba");
        let error = ModelConfig::from_gguf(&m, false).unwrap_err().to_string();
        assert!(error.contains("\"mamba\""), "{error}");
    }
}
