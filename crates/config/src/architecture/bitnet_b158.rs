//! `bitnet-b1.58` of bitnet.cpp: ReLU² gate, sub-norms, head tied or not. Its class of transformers is that
//! of `bitnet`.

use super::Architecture;
use crate::{AttentionBias, HiddenAct};

pub(super) static BITNET_B158: Architecture = Architecture {
    name: "bitnet-b1.58",
    hidden_act: HiddenAct::Relu2,
    reads_hidden_act: false,
    use_sub_norm: true,
    use_qk_norm: false,
    attention_bias: &[AttentionBias::None],
    reads_attention_bias: false,
    tied: false,
    interleaved: false,
    rope_factors: false,
    scale_tensors: false,
    tensor_data_layout: None,
    classes: &[],
};
