//! An architecture that only tests have: ReLU² gate, norms of queries and keys, RoPE of neighbours. This file
//! and its line in [`super::ALL`] are all that it takes to read and write its files.

use tritforge_gguf::{GgmlType, Metadata, TensorInfo};

use super::{Architecture, Class};
use crate::{AttentionBias, HiddenAct, HuggingFaceConfig, ModelConfig, Projection, WeightQuant};

pub(super) static RELU2_QK_NORM: Architecture = Architecture {
    name: "relu2-qk-norm",
    hidden_act: HiddenAct::Relu2,
    reads_hidden_act: false,
    use_sub_norm: false,
    use_qk_norm: true,
    attention_bias: &[AttentionBias::Qkv],
    reads_attention_bias: true,
    tied: false,
    interleaved: true,
    rope_factors: false,
    scale_tensors: true,
    tensor_data_layout: None,
    classes: &[Class {
        model_type: "relu2_qk_norm",
        name: "Relu2QkNormForCausalLM",
        hidden_act: "relu2",
        rms_norm_eps: 1e-6,
        rope_theta: 20_000.0,
        max_position_embeddings: 1024,
        head_dim: Some(64),
        reads_head_dim: true,
        num_key_value_heads: Some(2),
        attention_bias: Some(AttentionBias::Qkv),
        sliding_window: None,
        max_window_layers: false,
    }],
};

fn config() -> ModelConfig {
    ModelConfig {
        hidden_act: HiddenAct::Relu2,
        use_sub_norm: false,
        use_qk_norm: true,
        attention_bias: AttentionBias::Qkv,
        tie_word_embeddings: false,
        weights: WeightQuant::Ternary,
        ..ModelConfig::default()
    }
}

#[test]
fn one_file_and_one_line_make_an_architecture_of_gguf() {
    let config = config();
    let architecture = Architecture::of(&config).unwrap();
    assert_eq!(architecture.name(), "relu2-qk-norm");
    assert!(architecture.interleaves_rope() && architecture.has_scale_tensors());
    let mut metadata = Metadata::new();
    for (key, value) in config.to_gguf().unwrap() {
        metadata.insert(key, value);
    }
    assert_eq!(metadata.get_u32("relu2-qk-norm.block_count").unwrap(), 4);
    let tensor = |name: String, ty| TensorInfo { name, dims: vec![256], ty, offset: 0, nbytes: 0, part: 0 };
    let tensors = [
        tensor(Projection::Q.gguf_weight(0), GgmlType::TQ2_0),
        tensor(Projection::Q.gguf_bias(0), GgmlType::F32),
        tensor("output.weight".to_string(), GgmlType::F16),
    ];
    assert_eq!(ModelConfig::from_gguf(&metadata, &tensors).unwrap(), config);
}

#[test]
fn and_a_class_of_config_json() {
    let config = ModelConfig { weights: WeightQuant::Absmean, ..config() };
    let json = config.to_hugging_face(false, "float32", serde_json::Map::new()).unwrap();
    assert!(json.contains("Relu2QkNormForCausalLM"), "{json}");
    assert_eq!(HuggingFaceConfig::from_json(&json).unwrap().config, config);
    // What the file leaves out is the class's.
    let least = r#"{"model_type": "relu2_qk_norm", "vocab_size": 300, "hidden_size": 256, "num_attention_heads": 4,
        "intermediate_size": 512, "num_hidden_layers": 1}"#;
    let read = HuggingFaceConfig::from_json(least).unwrap().config;
    assert_eq!((read.rope_theta, read.num_key_value_heads, read.use_qk_norm), (20_000.0, 2, true));
}
