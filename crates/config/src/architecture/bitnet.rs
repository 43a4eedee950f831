//! `bitnet` of llama.cpp: SiLU gate, sub-norms, head tied, a `.scale` tensor beside each ternary weight.
//!
//! Of the architectures here llama.cpp reads `hidden_activation` in this one alone, where SiLU is what older
//! files mean. `BitNetForCausalLM` of transformers has either gate.

use super::{Architecture, Class};
use crate::{AttentionBias, HiddenAct};

pub(super) static BITNET: Architecture = Architecture {
    name: "bitnet",
    hidden_act: HiddenAct::Silu,
    reads_hidden_act: true,
    use_sub_norm: true,
    use_qk_norm: false,
    attention_bias: &[AttentionBias::None],
    reads_attention_bias: false,
    tied: true,
    interleaved: false,
    rope_factors: false,
    scale_tensors: true,
    tensor_data_layout: None,
    classes: &[Class {
        model_type: "bitnet",
        name: "BitNetForCausalLM",
        hidden_act: "relu2",
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        max_position_embeddings: 2048,
        head_dim: None,
        reads_head_dim: true,
        num_key_value_heads: Some(5),
        attention_bias: None,
        sliding_window: None,
        max_window_layers: false,
    }],
};
