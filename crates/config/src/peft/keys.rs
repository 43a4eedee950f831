//! The keys of `adapter_config.json`: which are read, which have no effect, and which have to be neutral.

use serde_json::{Map, Value};

use super::refused;
use crate::ConfigError;

/// What a key means here.
enum Rule {
    /// Read elsewhere, with its type.
    Read,
    /// Says nothing about what the adapter computes.
    NoEffect,
    /// `null`, or a value that the function accepts; otherwise refused with what was expected and why.
    Only(fn(&Value) -> bool, &'static str),
}
use Rule::{NoEffect, Only, Read};

/// The keys of peft's `LoraConfig` with those of its base classes, then those of older versions, then this
/// program's own.
const KEYS: &[(&str, Rule)] = &[
    ("peft_type", Read),
    ("task_type", Only(is_causal, "\"CAUSAL_LM\": an adapter of a model that writes text")),
    ("peft_version", NoEffect),
    (
        "auto_mapping",
        Only(
            of_causal_lm,
            "none, or a base_model_class that ends in ForCausalLM: other classes name their modules otherwise",
        ),
    ),
    ("base_model_name_or_path", Read),
    ("revision", Read),
    ("inference_mode", NoEffect),
    ("r", Read),
    ("target_modules", Read),
    ("exclude_modules", Read),
    ("lora_alpha", Read),
    ("lora_dropout", Read),
    (
        "fan_in_fan_out",
        Only(off, "false: the projections of these models are linear layers, stored as [out, in]"),
    ),
    ("bias", Only(is_none, "\"none\": trained biases are not read, they stay the base's")),
    ("use_rslora", Read),
    ("modules_to_save", Only(off, "none: whole modules beside the adapter are not read")),
    ("init_lora_weights", Only(keeps_base, KEEPS_BASE)),
    ("layers_to_transform", Read),
    ("layers_pattern", Read),
    ("rank_pattern", Read),
    ("alpha_pattern", Read),
    ("megatron_config", Only(off, "none: layers of Megatron are not computed")),
    // Names a module of Python that only `megatron_config` uses.
    ("megatron_core", NoEffect),
    ("trainable_token_indices", Only(off, "none: trained rows of the embedding are not read")),
    ("loftq_config", Only(off, "none: LoftQ replaces the base's weights")),
    ("eva_config", NoEffect),
    ("corda_config", Only(absent, "none: CorDA changes the base's weights")),
    ("lora_ga_config", Only(absent, "none: LoRA-GA changes the base's weights")),
    (
        "use_dora",
        Only(off, "false: DoRA, which scales the rows of the sum by trained magnitudes, is not computed"),
    ),
    ("velora_config", Only(absent, "none: VeLoRA is not computed")),
    (
        "alora_invocation_tokens",
        Only(absent, "none: aLoRA, which begins to act at certain tokens, is not computed"),
    ),
    ("use_qalora", Only(off, "false: QALoRA, which pools the inputs of A, is not computed")),
    // Only `use_qalora` uses it.
    ("qalora_group_size", NoEffect),
    ("monteclora_config", Only(absent, "none: MonteCLoRA is not computed")),
    ("layer_replication", Only(off, "none: the model would have other layers than its file")),
    // peft passes over it when it reads the file.
    ("runtime_config", NoEffect),
    ("lora_bias", Only(off, "false: a bias of B is not computed")),
    ("target_parameters", Only(off, "none: parameters that are no linear layer's weight have no adapter")),
    ("use_bdlora", Only(absent_or_false, "none: BD-LoRA is not computed")),
    ("arrow_config", Only(absent, "none: Arrow, which routes tokens among adapters, is not computed")),
    ("kasa_config", Only(absent, "none: KaSA changes the base's weights")),
    // Ties adapters of embedding and head, which are refused; projections have none to be tied with.
    ("ensure_weight_tying", NoEffect),
    // Of peft before 0.3.
    ("enable_lora", Only(off, "none: adapters of parts of a merged projection are not computed")),
    ("merge_weights", NoEffect),
    ("tritforge_mode", Read),
    ("lota_threshold", Read),
];

const KEEPS_BASE: &str = "true, false, \"gaussian\", \"orthogonal\", \"mica\" or \"eva\": the others change the base's weights when the \
                          adapter is made, and the adapter belongs to these weights. save_pretrained with \
                          path_initial_model_for_weight_conversion makes a plain adapter of it";

/// Refuses keys with a value that is not computed, and keys that are not known.
pub(super) fn check(map: &Map<String, Value>) -> Result<(), ConfigError> {
    for (key, value) in map {
        match KEYS.iter().find(|(name, _)| name == key) {
            Some((_, Read | NoEffect)) => {}
            Some((_, Only(accepts, expected))) => {
                // peft knows no bias of null.
                if !(accepts(value) || (value.is_null() && key != "bias")) {
                    return Err(refused(key, value, expected));
                }
            }
            None if value.is_null() => {}
            None if off(value) => {
                log::warn!("adapter_config.json: {key} = {value}: not a key that is known, taken as off");
            }
            None => {
                let expected = "no such key: what it does to the adapter is not known here, and not computed";
                return Err(refused(key, value, expected));
            }
        }
    }
    Ok(())
}

fn absent(value: &Value) -> bool {
    value.is_null()
}

fn absent_or_false(value: &Value) -> bool {
    matches!(value, Value::Null | Value::Bool(false))
}

/// What Python takes for false, numbers apart.
fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

fn is_causal(value: &Value) -> bool {
    value == "CAUSAL_LM"
}

fn is_none(value: &Value) -> bool {
    value == "none"
}

fn of_causal_lm(value: &Value) -> bool {
    let Some(map) = value.as_object() else { return false };
    match map.get("base_model_class") {
        None | Some(Value::Null) => true,
        Some(class) => class.as_str().is_some_and(|class| class.ends_with("ForCausalLM")),
    }
}

/// Initializations that set A and B and nothing else.
fn keeps_base(value: &Value) -> bool {
    value.is_boolean() || ["gaussian", "orthogonal", "mica", "eva"].iter().any(|name| value == name)
}

/// A key's value; none where it is missing or null.
pub(super) fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

pub(super) fn integer(map: &Map<String, Value>, key: &str) -> Result<Option<usize>, ConfigError> {
    let Some(value) = get(map, key) else { return Ok(None) };
    let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
    number.map(Some).ok_or_else(|| refused(key, value, "a positive integer"))
}

pub(super) fn number(map: &Map<String, Value>, key: &str) -> Result<Option<f32>, ConfigError> {
    let Some(value) = get(map, key) else { return Ok(None) };
    value.as_f64().map(|n| Some(n as f32)).ok_or_else(|| refused(key, value, "a number"))
}

pub(super) fn flag(map: &Map<String, Value>, key: &str) -> Result<bool, ConfigError> {
    let Some(value) = get(map, key) else { return Ok(false) };
    value.as_bool().ok_or_else(|| refused(key, value, "true or false"))
}

pub(super) fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, ConfigError> {
    let Some(value) = get(map, key) else { return Ok(None) };
    value.as_str().map(|text| Some(text.to_string())).ok_or_else(|| refused(key, value, "a string"))
}
