//! `llama`: SiLU gate, no sub-norms. In GGUF files RoPE rotates neighbours, so that rows of queries and keys
//! are permuted (`LlamaModel.permute` of llama.cpp's `convert_hf_to_gguf.py`). Mistral's models are of this
//! architecture too.

use super::{Architecture, Class};
use crate::{AttentionBias, HiddenAct};

pub(super) static LLAMA: Architecture = Architecture {
    name: "llama",
    hidden_act: HiddenAct::Silu,
    reads_hidden_act: false,
    use_sub_norm: false,
    use_qk_norm: false,
    attention_bias: &[AttentionBias::None, AttentionBias::All],
    reads_attention_bias: true,
    tied: false,
    interleaved: true,
    rope_factors: true,
    scale_tensors: true,
    tensor_data_layout: Some("Meta AI original pth"),
    classes: &[
        Class {
            model_type: "llama",
            name: "LlamaForCausalLM",
            hidden_act: "silu",
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            max_position_embeddings: 2048,
            head_dim: None,
            reads_head_dim: true,
            num_key_value_heads: None,
            attention_bias: None,
            sliding_window: None,
            max_window_layers: false,
        },
        Class {
            model_type: "mistral",
            name: "MistralForCausalLM",
            hidden_act: "silu",
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            max_position_embeddings: 131_072,
            head_dim: None,
            reads_head_dim: true,
            num_key_value_heads: Some(8),
            attention_bias: None,
            sliding_window: Some(4096),
            max_window_layers: false,
        },
    ],
};
