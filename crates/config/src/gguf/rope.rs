//! RoPE scaling as the metadata of an architecture says it, and as llama.cpp reads it (`load_hparams`).

use tritforge_gguf::{Metadata, optional};

use crate::{ConfigError, RopeScaling};

/// The scaling of a file whose architecture is `arch`, in a context of `context_length` tokens.
///
/// # Errors
/// If a key has another type than expected, or asks for what the engine does not compute.
pub(super) fn from_metadata(
    metadata: &Metadata,
    arch: &str,
    context_length: usize,
) -> Result<Option<RopeScaling>, ConfigError> {
    let fault = |e: tritforge_gguf::Error| ConfigError::Gguf(e.to_string());
    let key = |suffix: &str| format!("{arch}.rope.scaling.{suffix}");
    let number = |key: &str| optional(metadata.get_f32(key)).map_err(fault);
    let number_or = |suffix: &str, default: f32| number(&key(suffix)).map(|v| v.unwrap_or(default));
    let ty = optional(metadata.get_str(&key("type"))).map_err(fault)?.unwrap_or("linear");
    // The older name counts where the newer is missing; 0 means no scaling.
    let older = format!("{arch}.rope.scale_linear");
    let factor = match (number(&key("factor"))?, number(&older)?) {
        (Some(factor), Some(old)) if factor != old => {
            return Err(ConfigError::Gguf(format!(
                "{} = {factor} contradicts {older} = {old}, its older name: expected the same value",
                key("factor")
            )));
        }
        (newer, old) => newer.or(old).unwrap_or(0.0),
    };
    let factor = if factor == 0.0 { 1.0 } else { factor };
    let attn_factor = number_or("attn_factor", 1.0)?;
    let (ext_factor, yarn_attn_factor) =
        (number_or("yarn_ext_factor", -1.0)?, number_or("yarn_attn_factor", 1.0)?);
    // Below 0 stands for the type's own: 1 for YaRN, else 0.
    let own = if ty == "yarn" { 1.0 } else { 0.0 };
    for (suffix, value, good, expected) in [
        ("yarn_ext_factor", ext_factor, ext_factor < 0.0 || ext_factor == own, format!("{own}")),
        ("yarn_attn_factor", yarn_attn_factor, yarn_attn_factor == 1.0, "1".to_string()),
        ("attn_factor", attn_factor, attn_factor == 1.0 || (ty == "yarn" && factor != 1.0), "1".to_string()),
    ] {
        if !good {
            return Err(ConfigError::Gguf(format!(
                "{} = {value} with scaling type {ty} and factor {factor}: not supported; expected \
                 {expected}, or no such key",
                key(suffix)
            )));
        }
    }
    match ty {
        "none" => Ok(None),
        "linear" | "yarn" if factor == 1.0 => Ok(None),
        "linear" => Ok(Some(RopeScaling::Linear { factor })),
        "yarn" => Ok(Some(RopeScaling::Yarn {
            factor,
            beta_fast: number_or("yarn_beta_fast", 32.0)?,
            beta_slow: number_or("yarn_beta_slow", 1.0)?,
            truncate: true,
            attention_factor: RopeScaling::yarn_attention_factor(factor) * attn_factor,
            original_max_position_embeddings: optional(metadata.get_usize(&key("original_context_length")))
                .map_err(fault)?
                .unwrap_or(context_length),
        })),
        other => {
            Err(ConfigError::Gguf(format!("{} = \"{other}\": expected none, linear or yarn", key("type"))))
        }
    }
}
