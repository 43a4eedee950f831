//! Architectures: what a block is made of, and how GGUF files and `config.json` describe it. One file each,
//! one line each in [`ALL`].
//!
//! The block itself is computed in `model` from what [`ModelConfig`] says. An architecture whose block is
//! made of parts that `ModelConfig` knows is therefore data alone.

mod bitnet;
mod bitnet_b158;
mod llama;
mod qwen2;
mod qwen3;
mod refused;
#[cfg(test)]
mod relu2_qk_norm;
pub(crate) mod tritforge;

pub(crate) use refused::reason;

use crate::{AttentionBias, ConfigError, HiddenAct, ModelConfig, RopeScaling};

/// The architectures, in the order in which errors list them.
static ALL: &[&Architecture] = &[
    &bitnet::BITNET,
    &bitnet_b158::BITNET_B158,
    &llama::LLAMA,
    &qwen2::QWEN2,
    &qwen3::QWEN3,
    &tritforge::TRITFORGE,
    #[cfg(test)]
    &relu2_qk_norm::RELU2_QK_NORM,
];

/// An architecture that GGUF files are read and written in, with the classes of `transformers` whose models
/// it holds.
#[derive(Debug, PartialEq)]
pub struct Architecture {
    /// The value of `general.architecture`, with which its metadata keys begin.
    pub(crate) name: &'static str,
    /// The gate's activation.
    pub(crate) hidden_act: HiddenAct,
    /// Whether the key `{name}.hidden_activation` may name another activation.
    pub(crate) reads_hidden_act: bool,
    /// Whether a norm stands before `o_proj` and `down_proj`.
    pub(crate) use_sub_norm: bool,
    /// Whether every head's query and key are normalized.
    pub(crate) use_qk_norm: bool,
    /// The biases with which a model is written as this architecture.
    pub(crate) attention_bias: &'static [AttentionBias],
    /// Whether biases of the attention are read where a file has them; else they have no place.
    pub(crate) reads_attention_bias: bool,
    /// Whether a model is written as this architecture only with the embedding as its head.
    pub(crate) tied: bool,
    /// Whether RoPE rotates neighbours: [`Architecture::interleaves_rope`].
    pub(crate) interleaved: bool,
    /// Whether the tensor [`crate::ROPE_FACTORS`] has a place.
    pub(crate) rope_factors: bool,
    /// Whether scales stand beside ternary weights: [`Architecture::has_scale_tensors`].
    pub(crate) scale_tensors: bool,
    /// The one value that the key `{name}.tensor_data_layout` may have.
    pub(crate) tensor_data_layout: Option<&'static str>,
    /// The classes of `transformers`; the first is that of exports.
    pub(crate) classes: &'static [Class],
}

/// A class of `transformers`: what the fields of `config.json` are where a file leaves them out. Source: the
/// config classes of transformers 5.23. `tie_word_embeddings` is false in all.
#[derive(Debug, PartialEq)]
pub(crate) struct Class {
    pub(crate) model_type: &'static str,
    /// The name under `architectures`.
    pub(crate) name: &'static str,
    pub(crate) hidden_act: &'static str,
    pub(crate) rms_norm_eps: f64,
    pub(crate) rope_theta: f64,
    pub(crate) max_position_embeddings: u64,
    /// None for `hidden_size / num_attention_heads`.
    pub(crate) head_dim: Option<u64>,
    /// Whether the class reads `head_dim` at all.
    pub(crate) reads_head_dim: bool,
    /// None for as many as there are query heads.
    pub(crate) num_key_value_heads: Option<u64>,
    /// The biases that the class always has; none where `attention_bias` says whether all four are there.
    pub(crate) attention_bias: Option<AttentionBias>,
    /// The window of its attention.
    pub(crate) sliding_window: Option<u64>,
    /// Whether the first `max_window_layers` blocks have no window.
    pub(crate) max_window_layers: bool,
}

impl Architecture {
    /// The architectures that are read and written.
    pub fn all() -> impl Iterator<Item = &'static Architecture> {
        ALL.iter().copied()
    }

    /// The names of all architectures in a message.
    pub(crate) fn names() -> String {
        let names: Vec<&str> = Self::all().map(Architecture::name).collect();
        names.join(", ")
    }

    /// The value of `general.architecture`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The architecture that a file names, if it is known.
    pub fn from_name(name: &str) -> Option<&'static Self> {
        Self::all().find(|architecture| architecture.name == name)
    }

    /// Whether RoPE rotates element 2i of a head with element 2i + 1 (`llama`) and not element i with i +
    /// head_dim/2: rows of the query and key weights then stand in another order,
    /// [`ModelConfig::interleaved_row`].
    pub fn interleaves_rope(&self) -> bool {
        self.interleaved
    }

    /// Whether a `<name>.scale` tensor beside each ternary weight is part of the architecture. llama.cpp's
    /// loader looks for one beside any projection, and its graph of these architectures multiplies it; that
    /// of `qwen2` passes over those of the feed-forward network (0.3.36 of llama-cpp-python). Where it is
    /// not, TQ1_0 and TQ2_0 hold the scale as f16 in their blocks, and only I2_S holds it exactly.
    pub fn has_scale_tensors(&self) -> bool {
        self.scale_tensors
    }

    /// The architecture of a model.
    ///
    /// # Errors
    /// If none describes it; the message says what to change.
    pub fn of(config: &ModelConfig) -> Result<&'static Self, ConfigError> {
        if let Some(RopeScaling::Yarn { truncate: false, .. }) = &config.rope_scaling {
            return Err(ConfigError::NoArchitecture(
                "rope_scaling = yarn with truncate = false: GGUF has no key for it".to_string(),
            ));
        }
        if tritforge::describes(config) {
            return Ok(&tritforge::TRITFORGE);
        }
        let others = Self::all().filter(|architecture| !architecture.is_own());
        let needs: Vec<(&Architecture, Vec<String>)> = others.map(|a| (a, a.needs(config))).collect();
        match needs.iter().find(|(_, needs)| needs.is_empty()) {
            Some((architecture, _)) => Ok(architecture),
            None => Err(ConfigError::NoArchitecture(closest(
                needs.into_iter().map(|(architecture, needs)| (architecture.name, needs)),
            ))),
        }
    }

    /// What would have to be different of a model so that this architecture describes it.
    fn needs(&self, config: &ModelConfig) -> Vec<String> {
        let mut needs = self.needs_of_norms(config);
        let mut need = |good: bool, what: String| {
            if !good {
                needs.push(what);
            }
        };
        let hidden_act = format!("hidden_act = \"{}\"", self.hidden_act.name());
        need(config.hidden_act == self.hidden_act, hidden_act);
        let biases: Vec<String> = self.attention_bias.iter().map(|bias| format!("\"{bias:?}\"")).collect();
        let biases = format!("attention_bias = {}", biases.join(" or ")).to_lowercase();
        need(self.attention_bias.contains(&config.deployed_bias()), biases);
        need(config.tie_word_embeddings || !self.tied, "tie_word_embeddings = true".to_string());
        let factors =
            matches!(config.rope_scaling, Some(RopeScaling::Llama3 { .. } | RopeScaling::Factors { .. }));
        need(self.rope_factors || !factors, "no per-frequency RoPE factors".to_string());
        needs
    }

    /// What would have to be different of a model's norms.
    fn needs_of_norms(&self, config: &ModelConfig) -> Vec<String> {
        [
            ("use_sub_norm", config.use_sub_norm, self.use_sub_norm),
            ("use_qk_norm", config.use_qk_norm, self.use_qk_norm),
        ]
        .into_iter()
        .filter(|(_, found, own)| found != own)
        .map(|(key, _, own)| format!("{key} = {own}"))
        .collect()
    }
}

impl Class {
    /// The class with this `model_type`, and its architecture.
    pub(crate) fn from_model_type(model_type: &str) -> Option<(&'static Architecture, &'static Class)> {
        Self::all().find(|(_, class)| class.model_type == model_type)
    }

    /// The names of all classes in a message.
    pub(crate) fn model_types() -> String {
        let names: Vec<&str> = Self::all().map(|(_, class)| class.model_type).collect();
        names.join(", ")
    }

    fn all() -> impl Iterator<Item = (&'static Architecture, &'static Class)> {
        Architecture::all()
            .flat_map(|architecture| architecture.classes.iter().map(move |c| (architecture, c)))
    }

    /// The class that computes a model.
    ///
    /// # Errors
    /// If none does; the message says what to change.
    pub(crate) fn of(config: &ModelConfig) -> Result<&'static Class, ConfigError> {
        let needs = |(architecture, class): (&Architecture, &'static Class)| {
            let mut needs = architecture.needs_of_norms(config);
            match class.attention_bias {
                Some(own) if own != config.deployed_bias() => {
                    needs.push(format!("attention_bias = \"{own:?}\"").to_lowercase());
                }
                None if config.deployed_bias() == AttentionBias::Qkv => {
                    needs.push("attention_bias = \"none\" or \"all\"".to_string());
                }
                _ => {}
            }
            let whole = config.q_size() == config.hidden_size;
            if !class.reads_head_dim && !whole {
                needs.push("heads that are hidden_size / num_attention_heads wide".to_string());
            }
            (class, needs)
        };
        let needs: Vec<(&'static Class, Vec<String>)> = Self::all().map(needs).collect();
        match needs.iter().find(|(_, needs)| needs.is_empty()) {
            Some((class, _)) => Ok(class),
            None => Err(ConfigError::NoClass(closest(
                needs.into_iter().map(|(class, needs)| (class.model_type, needs)),
            ))),
        }
    }
}

/// What the closest of some descriptions would need, each with its name.
fn closest<'a>(needs: impl Iterator<Item = (&'a str, Vec<String>)>) -> String {
    let needs: Vec<(&str, Vec<String>)> = needs.collect();
    let least = needs.iter().map(|(_, needs)| needs.len()).min().unwrap_or_default();
    let closest = needs.iter().filter(|(_, needs)| needs.len() == least);
    let closest: Vec<String> =
        closest.map(|(name, needs)| format!("`{name}` would need {}", needs.join(" and "))).collect();
    closest.join("; ")
}
