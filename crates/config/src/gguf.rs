//! The configuration as GGUF metadata. A file's architecture follows from the model
//! ([`Architecture::of`]), it is not the user's to choose.

mod granularity;
mod keys;
mod rope;
mod tensors;
#[cfg(test)]
mod tests;

use tritforge_gguf::{GgmlType, Gguf, Metadata, TensorInfo, Value, optional};

use self::granularity::{EMBEDDING, HEAD};
use crate::architecture::{reason, tritforge};
use crate::{
    ActivationQuant, Architecture, AttentionBias, ConfigError, HiddenAct, ModelConfig, Projection,
    RopeScaling, Rotation, WeightQuant, WeightQuantizer,
};

/// The tensor that holds the divisors of the rotary frequencies, [head_dim / 2].
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

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
        let numbers =
            [("attention.layer_norm_rms_epsilon", self.rms_norm_eps), ("rope.freq_base", self.rope_theta)];
        for (key, number) in numbers {
            entries.push((format!("{arch}.{key}"), Value::F32(number)));
        }
        entries.extend(self.rope_to_gguf(arch));
        if Architecture::of(self)?.is_own() {
            entries.extend(tritforge::to_metadata(self));
        }
        Ok(entries)
    }

    /// RoPE scaling as metadata. Divisors of single frequencies are a tensor: [`ModelConfig::rope_factors`].
    fn rope_to_gguf(&self, arch: &str) -> Vec<(String, Value)> {
        let key = |suffix: &str| format!("{arch}.rope.scaling.{suffix}");
        let scaling = |ty: &str, factor| {
            vec![(key("factor"), Value::F32(factor)), (key("type"), Value::String(ty.to_string()))]
        };
        match &self.rope_scaling {
            Some(RopeScaling::Linear { factor }) => scaling("linear", *factor),
            Some(RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                original_max_position_embeddings,
                ..
            }) => {
                let mut entries = scaling("yarn", *factor);
                let original = *original_max_position_embeddings as u32;
                entries.push((key("original_context_length"), Value::U32(original)));
                entries.push((key("yarn_beta_fast"), Value::F32(*beta_fast)));
                entries.push((key("yarn_beta_slow"), Value::F32(*beta_slow)));
                // Runtimes multiply YaRN's own factor by this.
                let own = RopeScaling::yarn_attention_factor(*factor);
                entries.push((key("attn_factor"), Value::F32(attention_factor / own)));
                entries
            }
            None | Some(RopeScaling::Llama3 { .. } | RopeScaling::Factors { .. }) => scaling("linear", 1.0),
        }
    }

    /// The divisors of the rotary frequencies, [head_dim / 2], where GGUF keeps them as a tensor:
    /// [`ROPE_FACTORS`].
    pub fn rope_factors(&self) -> Option<Vec<f32>> {
        match &self.rope_scaling {
            Some(RopeScaling::Factors { factors }) => Some(factors.clone()),
            Some(scaling @ RopeScaling::Llama3 { .. }) => {
                let frequency = |i: usize| self.rope_theta.powf(-((2 * i) as f32) / self.head_dim as f32);
                let plain: Vec<f32> = (0..self.head_dim / 2).map(frequency).collect();
                let mut scaled = plain.clone();
                scaling.apply(&mut scaled, self.rope_theta);
                Some(plain.iter().zip(scaled).map(|(plain, scaled)| plain / scaled).collect())
            }
            _ => None,
        }
    }

    /// Where row `row` of a query or key weight stands in a file whose architecture [interleaves
    /// RoPE](Architecture::interleaves_rope): row 2i + k of a head there is row k·head_dim/2 + i here.
    pub fn interleaved_row(&self, row: usize) -> usize {
        let (head, within) = (row / self.head_dim, row % self.head_dim);
        let half = self.head_dim / 2;
        head * self.head_dim + 2 * (within % half) + within / half
    }

    /// Reads the description of a file's model, and checks that nothing of the file is left out of it. Of
    /// keys that have no known meaning it warns.
    ///
    /// # Errors
    /// As [`ModelConfig::from_gguf`]; if the file is not a model but an adapter or the like, has a tensor
    /// that the model has no place for, or a key that asks for what the engine does not compute; or if the
    /// tensor `rope_freqs.weight` is none of divisors.
    pub fn from_gguf_file(gguf: &Gguf) -> Result<Self, ConfigError> {
        let metadata = gguf.metadata();
        keys::check_kind(metadata)?;
        let mut config = Self::from_gguf(metadata, gguf.tensors())?;
        let name = metadata.get_str("general.architecture").unwrap_or_default();
        if let Some(architecture) = Architecture::from_name(name) {
            keys::check(gguf, &config, architecture)?;
            tensors::check(&config, architecture, gguf.tensors())?;
        }
        let tokens = metadata.get_str_array("tokenizer.ggml.tokens").map_or(0, <[String]>::len);
        if tokens > config.vocab_size {
            return Err(ConfigError::Gguf(format!(
                "tokenizer.ggml.tokens has {tokens} tokens, {name}.vocab_size = {}: the embedding has too \
                 few rows",
                config.vocab_size
            )));
        }
        if let Some(info) = gguf.tensor(ROPE_FACTORS) {
            if config.rope_scaling.is_some() {
                let message = format!(
                    "{ROPE_FACTORS} together with {name}.rope.scaling: only one of them is \
                             supported"
                );
                return Err(ConfigError::Gguf(message));
            }
            if info.ty != GgmlType::F32 {
                let message = format!("tensor {ROPE_FACTORS}: type {}, expected F32", info.ty.name());
                return Err(ConfigError::Gguf(message));
            }
            let bytes = gguf.data(info).as_chunks().0;
            let factors = bytes.iter().map(|b| f32::from_le_bytes(*b)).collect();
            config.rope_scaling = Some(RopeScaling::Factors { factors });
            config.validate()?;
        }
        Ok(config)
    }

    /// Reads the description back: what metadata does not say, the file's tensors do. Divisors of single
    /// frequencies are in a tensor's data: [`ModelConfig::from_gguf_file`] reads them too.
    ///
    /// # Errors
    /// If the architecture is unknown, a key is missing or ill-typed, or the model is impossible.
    pub fn from_gguf(metadata: &Metadata, tensors: &[TensorInfo]) -> Result<Self, ConfigError> {
        let fault = |e: tritforge_gguf::Error| ConfigError::Gguf(e.to_string());
        let name = metadata.get_str("general.architecture").map_err(fault)?;
        let Some(architecture) = Architecture::from_name(name) else {
            let known = Architecture::names();
            let reason =
                reason(name).map(|reason| format!("not supported, since {reason}; ")).unwrap_or_default();
            let message = format!("general.architecture = \"{name}\": {reason}expected {known}");
            return Err(ConfigError::Gguf(message));
        };
        let key = |suffix: &str| format!("{name}.{suffix}");
        let size = |suffix: &str| metadata.get_usize(&key(suffix)).map_err(fault);
        let size_or = |suffix: &str, default: usize| {
            optional(metadata.get_usize(&key(suffix))).map(|v| v.unwrap_or(default)).map_err(fault)
        };
        let number_or = |suffix: &str, default: f32| {
            optional(metadata.get_f32(&key(suffix))).map(|v| v.unwrap_or(default)).map_err(fault)
        };
        let hidden_size = size("embedding_length")?;
        let each = |suffix: &str| size_of_blocks(metadata, &key(suffix));
        let context_length = size("context_length")?;
        let num_attention_heads = each("attention.head_count")?.ok_or_else(|| {
            ConfigError::Gguf(format!("metadata key `{}` is missing", key("attention.head_count")))
        })?;
        if num_attention_heads == 0 {
            return Err(ConfigError::Gguf(format!("{} = 0", key("attention.head_count"))));
        }
        let whole = hidden_size / num_attention_heads;
        let head_dim = size_or("attention.key_length", whole)?;
        let widths = [
            ("attention.value_length", size_or("attention.value_length", whole)?),
            ("rope.dimension_count", size_or("rope.dimension_count", head_dim)?),
        ];
        if let Some((suffix, width)) = widths.into_iter().find(|(_, width)| *width != head_dim) {
            return Err(ConfigError::Gguf(format!(
                "{} = {head_dim}, {} = {width}: keys and values must have the same width, and RoPE must \
                 cover whole heads",
                key("attention.key_length"),
                key(suffix)
            )));
        }
        let hidden_act = activation(metadata, architecture)?;
        let vocab_size = match optional(metadata.get_usize(&key("vocab_size"))).map_err(fault)? {
            Some(size) => size,
            None => metadata.get_str_array("tokenizer.ggml.tokens").map_err(fault)?.len(),
        };
        let has = |name: &str| tensors.iter().any(|tensor| tensor.name == name);
        let ternary = tensors.iter().any(|tensor| {
            tensors::is_ternary(tensor.ty) && Projection::ALL.iter().any(|p| tensor.name == p.gguf_weight(0))
        });
        // Beside full-precision projections a ternary table holds numbers like any other type.
        let table = |name: &str| {
            let packed = |tensor: &TensorInfo| tensor.name == name && tensors::is_ternary(tensor.ty);
            match ternary && tensors.iter().any(packed) {
                true => Ok(Some(ModelConfig::said_table_granularity(metadata, name)?.unwrap_or_default())),
                false => Ok::<_, ConfigError>(None),
            }
        };
        let mut config = Self {
            vocab_size,
            hidden_size,
            intermediate_size: each("feed_forward_length")?.ok_or_else(|| {
                ConfigError::Gguf(format!("metadata key `{}` is missing", key("feed_forward_length")))
            })?,
            num_hidden_layers: size("block_count")?,
            num_attention_heads,
            num_key_value_heads: each("attention.head_count_kv")?.unwrap_or(num_attention_heads),
            head_dim,
            hidden_act,
            max_position_embeddings: context_length,
            rms_norm_eps: metadata.get_f32(&key("attention.layer_norm_rms_epsilon")).map_err(fault)?,
            rope_theta: number_or("rope.freq_base", 10_000.0)?,
            rope_scaling: rope::from_metadata(metadata, name, context_length)?,
            tie_word_embeddings: !has("output.weight"),
            use_sub_norm: architecture.use_sub_norm,
            projection_norms: false,
            use_qk_norm: architecture.use_qk_norm,
            attention_bias: match (has("blk.0.attn_q.bias"), has("blk.0.attn_output.bias")) {
                _ if !architecture.reads_attention_bias => AttentionBias::None,
                (true, true) => AttentionBias::All,
                (true, false) => AttentionBias::Qkv,
                (false, _) => AttentionBias::None,
            },
            weights: if ternary { WeightQuant::Ternary } else { WeightQuant::None },
            quantizer: WeightQuantizer::default(),
            granularity: granularity::said(metadata)?.unwrap_or_default(),
            ternary_embedding: table(EMBEDDING)?,
            ternary_head: table(HEAD)?,
            activations: if ternary { ActivationQuant::Absmax } else { ActivationQuant::None },
            rotation: Rotation::None,
            activation_top_k: None,
            dead_zone_bias: None,
            initializer_range: ModelConfig::default().initializer_range,
        };
        if architecture.is_own() {
            tritforge::from_metadata(metadata, &mut config)?;
        }
        config.validate()?;
        Ok(config)
    }
}

/// A size that a file may give as one number or block by block; it has to be the same in all.
fn size_of_blocks(metadata: &Metadata, key: &str) -> Result<Option<usize>, ConfigError> {
    let fault = |e: tritforge_gguf::Error| ConfigError::Gguf(e.to_string());
    if !matches!(metadata.get(key), Some(Value::Array(_))) {
        return optional(metadata.get_usize(key)).map_err(fault);
    }
    let sizes = metadata.get_i64_array(key).map_err(fault)?;
    match sizes.split_first() {
        Some((first, rest)) if rest.iter().all(|size| size == first) => usize::try_from(*first)
            .map(Some)
            .map_err(|_| ConfigError::Gguf(format!("{key} = {first}: expected a size"))),
        _ => {
            Err(ConfigError::Gguf(format!("{key} = {sizes:?}: blocks of different sizes are not supported")))
        }
    }
}

/// The gate's activation: the architecture's own, or what the file says in one that may have others.
fn activation(metadata: &Metadata, architecture: &Architecture) -> Result<HiddenAct, ConfigError> {
    let own = architecture.hidden_act;
    let key = format!("{}.hidden_activation", architecture.name());
    let found = optional(metadata.get_str(&key)).map_err(|e| ConfigError::Gguf(e.to_string()))?;
    let activation = match found {
        None => return Ok(own),
        Some("silu" | "swish" | "swiglu") => Some(HiddenAct::Silu),
        Some("relu2" | "relu_sqr" | "relu_squared") => Some(HiddenAct::Relu2),
        Some(name) => HiddenAct::from_name(name).filter(|_| architecture.is_own()),
    };
    match activation {
        Some(activation) if activation == own || architecture.reads_hidden_act => Ok(activation),
        _ if architecture.is_own() => Err(ConfigError::Gguf(format!(
            "{key} = \"{}\": expected one of {}",
            found.unwrap_or_default(),
            HiddenAct::names()
        ))),
        _ => Err(ConfigError::Gguf(format!(
            "{key} = \"{}\": expected {} for architecture {}",
            found.unwrap_or_default(),
            match own {
                _ if architecture.reads_hidden_act => "silu or relu2",
                own => own.name(),
            },
            architecture.name()
        ))),
    }
}
