//! Which tensors a GGUF file of a model may have. A tensor without a place would be left out of the
//! computation: it is an error, as in llama.cpp, which refuses files with more tensors than it uses.

use tritforge_gguf::{GgmlType, TensorInfo};
use tritforge_support::counted;
use tritforge_ternary::Packing;

use super::ROPE_FACTORS;
use crate::{Architecture, ConfigError, ModelConfig, Projection};

/// Whether a type is that of packed ternary weights.
pub(super) fn is_ternary(ty: GgmlType) -> bool {
    Packing::in_file(ty.name(), None).is_some()
}

/// Checks that the model has a place for every tensor.
pub(super) fn check(
    config: &ModelConfig,
    architecture: &Architecture,
    tensors: &[TensorInfo],
) -> Result<(), ConfigError> {
    for tensor in tensors {
        if let Some(problem) = problem(config, architecture, tensors, &tensor.name) {
            return Err(ConfigError::GgufTensor { tensor: tensor.name.clone(), problem });
        }
    }
    Ok(())
}

/// Why the model has no place for a tensor, if it has none.
fn problem(
    config: &ModelConfig,
    architecture: &Architecture,
    tensors: &[TensorInfo],
    name: &str,
) -> Option<String> {
    let nothing = || Some(format!("not part of a model of architecture {}", architecture.name()));
    match name {
        "token_embd.weight" | "output_norm.weight" | "output.weight" => return None,
        ROPE_FACTORS if architecture.rope_factors => return None,
        _ => {}
    }
    let Some((layer, part)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) else {
        return nothing();
    };
    // Leading zeros would be another name.
    let number = layer.parse::<usize>().ok().filter(|number| number.to_string() == layer);
    let Some(number) = number else { return nothing() };
    if number >= config.num_hidden_layers {
        return Some(format!(
            "the model has only {} (block_count)",
            counted(config.num_hidden_layers, "block")
        ));
    }
    let norm = match part {
        "attn_norm.weight" | "ffn_norm.weight" => true,
        "attn_sub_norm.weight" | "ffn_sub_norm.weight" => config.use_sub_norm,
        "attn_q_norm.weight" | "attn_k_norm.weight" => config.use_qk_norm,
        _ => false,
    };
    if norm {
        return None;
    }
    for projection in Projection::ALL {
        let weight = projection.gguf_weight(number);
        if name == weight || (name == projection.gguf_bias(number) && config.attention_bias.has(projection)) {
            return None;
        }
        let own_norm = config.projection_norms && projection.sharing().is_some();
        if own_norm && name == projection.gguf_norm(number) {
            return None;
        }
        if name == weight.replace(".weight", ".scale") {
            let ty = tensors.iter().find(|tensor| tensor.name == weight).map(|tensor| tensor.ty);
            return match ty {
                Some(ty) if is_ternary(ty) => None,
                Some(ty) => {
                    Some(format!("it is the scale of {weight}, which is {} and not ternary", ty.name()))
                }
                None => Some(format!("it is the scale of {weight}, which is missing")),
            };
        }
    }
    nothing()
}
