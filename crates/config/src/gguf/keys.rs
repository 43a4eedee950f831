//! Which metadata keys of a model take part in what the engine computes, which may have one value only, and
//! which have no effect.
//!
//! Source: the keys of llama.cpp's `llama-arch.cpp` and what `llama-model.cpp` reads of them. A key under
//! `{architecture}.` is read, or refused unless its value changes nothing, or known to have no effect; the
//! user is warned of any other. The same lists are in `docs/formats.md`.

use tritforge_gguf::{Array, Gguf, Metadata, Value};

use tritforge_ternary::{GRANULARITY, I2_S_LAYOUT};

use crate::architecture::tritforge;
use crate::{Architecture, ConfigError, ModelConfig};

/// Keys under `{architecture}.` that [`ModelConfig::from_gguf`] reads.
const READ: [&str; 22] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "hidden_activation",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.attn_factor",
    "rope.scaling.original_context_length",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_attn_factor",
];

/// Keys of this project in files of any architecture: of their ternary tensors.
const OWN_KEYS: [&str; 2] = [GRANULARITY, I2_S_LAYOUT];

/// Keys under `{architecture}.` that change nothing of the next token's probabilities.
const NO_EFFECT: [&str; 4] =
    ["rope.scaling.finetuned", "pooling_type", "classifier.output_labels", "decoder_start_token_id"];

/// Keys of PrismML's files whose weights are folded with a transform of the activations.
const HADAMARD: &str = "prism.hadamard.";

/// The values of a key with which a model is computed as without it.
enum Neutral {
    /// 0, false, or a list of them.
    Zero,
    /// 0 or 1: a factor.
    Factor,
    /// True.
    True,
    /// The factor of the attention's scores that all these architectures have: 1/sqrt(head_dim), or 0 for
    /// that.
    AttentionScale,
    /// 0, or a window that no context is longer than.
    Window,
    /// The width of the model.
    Width,
    /// The one order of rows in which files of the architecture are written.
    Layout,
}

/// Keys under `{architecture}.` that change the computation unless they have these values.
const LIMITED: [(&str, Neutral); 34] = [
    ("use_parallel_residual", Neutral::Zero),
    ("tensor_data_layout", Neutral::Layout),
    ("embedding_length_out", Neutral::Width),
    ("embedding_length_per_layer_input", Neutral::Zero),
    ("leading_dense_block_count", Neutral::Zero),
    ("nextn_predict_layers", Neutral::Zero),
    ("n_deepstack_layers", Neutral::Zero),
    ("interleave_moe_layer_step", Neutral::Zero),
    ("full_attention_interval", Neutral::Zero),
    ("rescale_every_n_layers", Neutral::Zero),
    ("token_shift_count", Neutral::Zero),
    ("swin_norm", Neutral::Zero),
    ("logit_scale", Neutral::Factor),
    ("residual_scale", Neutral::Factor),
    ("embedding_scale", Neutral::Factor),
    ("attn_logit_softcapping", Neutral::Zero),
    ("final_logit_softcapping", Neutral::Zero),
    ("router_logit_softcapping", Neutral::Zero),
    ("attention.scale", Neutral::AttentionScale),
    ("attention.output_scale", Neutral::Factor),
    ("attention.value_scale", Neutral::Factor),
    ("attention.temperature_length", Neutral::Zero),
    ("attention.temperature_scale", Neutral::Zero),
    ("attention.max_alibi_bias", Neutral::Zero),
    ("attention.clamp_kqv", Neutral::Zero),
    ("attention.causal", Neutral::True),
    ("attention.sliding_window", Neutral::Window),
    ("attention.sliding_window_pattern", Neutral::Zero),
    ("attention.shared_kv_layers", Neutral::Zero),
    ("attention.recurrent_layers", Neutral::Zero),
    ("attention.relative_buckets_count", Neutral::Zero),
    ("rope.dimension_sections", Neutral::Zero),
    ("rope.scaling.alpha", Neutral::Zero),
    ("rope.scaling.yarn_log_multiplier", Neutral::Zero),
];

/// Beginnings of keys under `{architecture}.` that belong to parts which these architectures do not have.
const OTHER_PARTS: [&str; 16] = [
    "expert_",
    "experts_",
    "moe_",
    "swiglu_clamp_",
    "ssm.",
    "wkv.",
    "kda.",
    "shortconv.",
    "time_mix_",
    "time_decay_",
    "hyper_connection.",
    "attention.indexer.",
    "attention.q_lora_rank",
    "attention.kv_lora_rank",
    "attention.compress_",
    "attention.output_lora_rank",
];

/// Checks that a file is a model, before anything is read of it.
pub(super) fn check_kind(metadata: &Metadata) -> Result<(), ConfigError> {
    let Some(kind) = metadata.get("general.type") else { return Ok(()) };
    match kind {
        Value::String(kind) if kind == "model" => Ok(()),
        Value::String(kind) => {
            let hint = match kind.as_str() {
                "adapter" => "this is an adapter: pass it with --lora, together with its base model",
                "mmproj" => "a multimodal projector cannot run on its own",
                _ => "expected a model",
            };
            Err(ConfigError::Gguf(format!("general.type = \"{kind}\": {hint}")))
        }
        other => Err(ConfigError::Gguf(format!("general.type = {}: expected \"model\"", shown(other)))),
    }
}

/// Refuses keys that ask for what the engine does not compute, and warns of those that nobody here knows.
pub(super) fn check(
    gguf: &Gguf,
    config: &ModelConfig,
    architecture: &Architecture,
) -> Result<(), ConfigError> {
    let name = architecture.name();
    let warn = |message: String| match gguf.paths().next() {
        Some(path) => log::warn!("{}: {message}", path.display()),
        None => log::warn!("{message}"),
    };
    for (key, value) in gguf.metadata().iter() {
        if let Some(suffix) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) {
            // The prefix of this project's own architecture is also that of keys that its files of others have.
            let own = architecture.is_own() && (tritforge::KEYS.contains(&suffix) || OWN_KEYS.contains(&key));
            if READ.contains(&suffix) || NO_EFFECT.contains(&suffix) || own {
                continue;
            }
            let limited = LIMITED.iter().find(|(limited, _)| *limited == suffix).map(|(_, neutral)| neutral);
            let part = OTHER_PARTS.iter().any(|beginning| suffix.starts_with(beginning));
            match limited.or(part.then_some(&Neutral::Zero)) {
                Some(neutral) => neutral.check(key, value, config, architecture)?,
                None => warn(format!("metadata key {key} = {}: unknown and ignored", shown(value))),
            }
        } else if key.starts_with(HADAMARD) {
            return Err(ConfigError::Gguf(format!(
                "{key} = {}: not supported, since the weights are multiplied by Hadamard matrices, with which the engine \
                 does not transform activations; expected no key that begins with {HADAMARD}",
                shown(value)
            )));
        } else if key.starts_with("general.sampling.") {
            warn(format!(
                "{key} = {}: the file's recommended sampling parameters are not applied; set them as options",
                shown(value)
            ));
        } else if let Some(other) = Architecture::all()
            .filter(|other| !other.is_own())
            .find(|other| key.strip_prefix(other.name).is_some_and(|k| k.starts_with('.')))
        {
            warn(format!(
                "metadata key {key}: ignored, since the file's architecture is {name}, not {}",
                other.name()
            ));
        }
    }
    Ok(())
}

impl Neutral {
    fn check(
        &self,
        key: &str,
        value: &Value,
        config: &ModelConfig,
        architecture: &Architecture,
    ) -> Result<(), ConfigError> {
        let scale = 1.0 / (config.head_dim as f64).sqrt();
        let one = number(value);
        let (good, expected) = match self {
            Neutral::Zero => (all_zero(value), "0, or no such key".to_string()),
            Neutral::Factor => (one.is_some_and(|x| x == 0.0 || x == 1.0), "1, or no such key".to_string()),
            Neutral::True => (one == Some(1.0), "true, or no such key".to_string()),
            Neutral::AttentionScale => (
                one.is_some_and(|x| x == 0.0 || (x / scale - 1.0).abs() < 1e-6),
                format!("1/sqrt(head_dim) = {scale}, or no such key"),
            ),
            Neutral::Window => (
                one.is_some_and(|x| x == 0.0 || x >= config.max_position_embeddings as f64),
                format!(
                    "0, or at least the context length of {} tokens, since sliding-window attention is not \
                     supported",
                    config.max_position_embeddings
                ),
            ),
            Neutral::Width => (
                one == Some(config.hidden_size as f64),
                format!("embedding_length = {}, or no such key", config.hidden_size),
            ),
            Neutral::Layout => (
                matches!(value, Value::String(layout) if architecture.tensor_data_layout == Some(layout)),
                "no such key".to_string(),
            ),
        };
        match good {
            true => Ok(()),
            false => Err(ConfigError::Gguf(format!(
                "{key} = {}: not supported; expected {expected}",
                shown(value)
            ))),
        }
    }
}

/// A number or a truth value as a number.
fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(b) => Some(f64::from(u8::from(*b))),
        Value::F32(x) => Some(f64::from(*x)),
        Value::F64(x) => Some(*x),
        other => other.as_integer().map(|i| i as f64),
    }
}

/// Whether a value is 0 or false, or a list of nothing else.
fn all_zero(value: &Value) -> bool {
    match value {
        Value::Array(array) => match array {
            Array::U8(v) => v.iter().all(|x| *x == 0),
            Array::I8(v) => v.iter().all(|x| *x == 0),
            Array::U16(v) => v.iter().all(|x| *x == 0),
            Array::I16(v) => v.iter().all(|x| *x == 0),
            Array::U32(v) => v.iter().all(|x| *x == 0),
            Array::I32(v) => v.iter().all(|x| *x == 0),
            Array::U64(v) => v.iter().all(|x| *x == 0),
            Array::I64(v) => v.iter().all(|x| *x == 0),
            Array::F32(v) => v.iter().all(|x| *x == 0.0),
            Array::F64(v) => v.iter().all(|x| *x == 0.0),
            Array::Bool(v) => v.iter().all(|x| !x),
            Array::String(v) => v.is_empty(),
        },
        one => number(one) == Some(0.0),
    }
}

/// A value in a message.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        Value::Array(array) => format!("a list of {}", array.len()),
        Value::Bool(b) => b.to_string(),
        Value::F32(x) => x.to_string(),
        Value::F64(x) => x.to_string(),
        other => other.as_integer().map(|i| i.to_string()).unwrap_or_default(),
    }
}
