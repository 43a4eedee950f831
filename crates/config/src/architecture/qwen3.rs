//! `qwen3`: SiLU gate, norms of queries and keys.

use super::{Architecture, Class};
use crate::{AttentionBias, HiddenAct};

pub(super) static QWEN3: Architecture = Architecture {
    name: "qwen3",
    hidden_act: HiddenAct::Silu,
    reads_hidden_act: false,
    use_sub_norm: false,
    use_qk_norm: true,
    attention_bias: &[AttentionBias::None],
    reads_attention_bias: true,
    tied: false,
    interleaved: false,
    rope_factors: false,
    scale_tensors: true,
    tensor_data_layout: None,
    classes: &[Class {
        model_type: "qwen3",
        name: "Qwen3ForCausalLM",
        hidden_act: "silu",
        rms_norm_eps: 1e-6,
        rope_theta: 10_000.0,
        max_position_embeddings: 32_768,
        head_dim: Some(128),
        reads_head_dim: true,
        num_key_value_heads: Some(32),
        attention_bias: None,
        sliding_window: None,
        max_window_layers: true,
    }],
};
