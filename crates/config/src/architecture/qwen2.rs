//! `qwen2`: SiLU gate, biases of queries, keys and values.

use super::{Architecture, Class};
use crate::{AttentionBias, HiddenAct};

pub(super) static QWEN2: Architecture = Architecture {
    name: "qwen2",
    hidden_act: HiddenAct::Silu,
    reads_hidden_act: false,
    use_sub_norm: false,
    use_qk_norm: false,
    attention_bias: &[AttentionBias::Qkv],
    reads_attention_bias: true,
    tied: false,
    interleaved: false,
    rope_factors: false,
    scale_tensors: false,
    tensor_data_layout: None,
    classes: &[Class {
        model_type: "qwen2",
        name: "Qwen2ForCausalLM",
        hidden_act: "silu",
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        max_position_embeddings: 32_768,
        head_dim: None,
        reads_head_dim: false,
        num_key_value_heads: Some(32),
        attention_bias: Some(AttentionBias::Qkv),
        sliding_window: None,
        max_window_layers: true,
    }],
};
