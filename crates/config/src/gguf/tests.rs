//! Metadata out and back, and what is refused on the way.

use super::*;
use crate::HuggingFaceConfig;

fn metadata(config: &ModelConfig) -> Metadata {
    let mut metadata = Metadata::new();
    for (key, value) in config.to_gguf().unwrap() {
        metadata.insert(key, value);
    }
    metadata
}

/// The tensors by which a file says what metadata does not.
fn tensors(config: &ModelConfig) -> Vec<TensorInfo> {
    let tensor = |name: String, ty| TensorInfo { name, dims: vec![256], ty, offset: 0, nbytes: 0, part: 0 };
    let ternary = config.weights != WeightQuant::None;
    let ty = if ternary { GgmlType::TQ2_0 } else { GgmlType::F16 };
    let mut tensors = vec![tensor(Projection::Q.gguf_weight(0), ty)];
    let biased = Projection::ALL.into_iter().filter(|p| config.attention_bias.has(*p));
    tensors.extend(biased.map(|p| tensor(p.gguf_bias(0), GgmlType::F32)));
    if !config.tie_word_embeddings {
        tensors.push(tensor("output.weight".to_string(), GgmlType::F16));
    }
    tensors
}

#[test]
fn metadata_round_trips() {
    let silu = ModelConfig { weights: WeightQuant::Ternary, ..ModelConfig::default() };
    let relu2 = ModelConfig { hidden_act: HiddenAct::Relu2, tie_word_embeddings: false, ..silu.clone() };
    let llama = ModelConfig { use_sub_norm: false, ..silu.clone() };
    let qwen2 = ModelConfig {
        attention_bias: AttentionBias::Qkv,
        weights: WeightQuant::None,
        activations: ActivationQuant::None,
        ..llama.clone()
    };
    let yarn = RopeScaling::Yarn {
        factor: 4.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
        truncate: true,
        attention_factor: RopeScaling::yarn_attention_factor(4.0),
        original_max_position_embeddings: 128,
    };
    let qwen3 = ModelConfig { use_qk_norm: true, head_dim: 128, rope_scaling: Some(yarn), ..llama.clone() };
    let linear = ModelConfig { rope_scaling: Some(RopeScaling::Linear { factor: 2.0 }), ..llama.clone() };
    let biased = ModelConfig { attention_bias: AttentionBias::All, ..llama.clone() };
    let architectures = [silu, relu2, llama, qwen2, qwen3, linear, biased].map(|config| {
        assert_eq!(ModelConfig::from_gguf(&metadata(&config), &tensors(&config)).unwrap(), config);
        Architecture::of(&config).unwrap().name()
    });
    assert_eq!(architectures, ["bitnet", "bitnet-b1.58", "llama", "qwen2", "qwen3", "llama", "llama"]);
}

#[test]
fn models_without_an_architecture_are_refused() {
    let refused = |config: ModelConfig, part: &str| {
        let error = config.to_gguf().unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    };
    let base = ModelConfig::default();
    refused(ModelConfig { tie_word_embeddings: false, ..base.clone() }, "tie_word_embeddings");
    let relu2 = ModelConfig { use_sub_norm: false, hidden_act: HiddenAct::Relu2, ..base.clone() };
    refused(relu2, "use_sub_norm");
    refused(ModelConfig { use_qk_norm: true, ..base.clone() }, "use_qk_norm");
    let factors = RopeScaling::Factors { factors: vec![1.0; 32] };
    refused(ModelConfig { rope_scaling: Some(factors), ..base }, "per-frequency RoPE factors");
}

#[test]
fn interleaving_is_a_permutation_of_each_head() {
    let config = ModelConfig { head_dim: 6, ..ModelConfig::default() };
    let rows: Vec<usize> = (0..12).map(|row| config.interleaved_row(row)).collect();
    // Halves 0 1 2 | 3 4 5 stand as 0 3 1 4 2 5.
    assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
}

#[test]
fn unknown_architectures_and_missing_keys_are_named() {
    let mut m = metadata(&ModelConfig::default());
    m.remove("bitnet.block_count");
    let error = ModelConfig::from_gguf(&m, &[]).unwrap_err().to_string();
    assert!(error.contains("bitnet.block_count"), "{error}");
    m.insert("general.architecture", "mamba");
    let error = ModelConfig::from_gguf(&m, &[]).unwrap_err().to_string();
    assert!(error.contains("\"mamba\""), "{error}");
    m.insert("general.architecture", "gemma");
    let error = ModelConfig::from_gguf(&m, &[]).unwrap_err().to_string();
    assert!(error.contains("\"gemma\": not supported, since the embedding is multiplied"), "{error}");
    assert!(error.contains("expected bitnet, bitnet-b1.58, llama, qwen2, qwen3"), "{error}");
    let error = HuggingFaceConfig::from_json(r#"{"model_type": "gemma"}"#).unwrap_err().to_string();
    assert!(error.contains("the gate is GELU; expected bitnet, llama, mistral, qwen2, qwen3"), "{error}");
}

#[test]
fn what_is_closest_to_a_model_is_said() {
    let untied = ModelConfig { tie_word_embeddings: false, ..ModelConfig::default() };
    let error = untied.to_gguf().unwrap_err().to_string();
    let closest = "`bitnet` would need tie_word_embeddings = true; `bitnet-b1.58` would need \
                   hidden_act = \"relu2\"; `llama` would need use_sub_norm = false";
    assert!(error.ends_with(closest), "{error}");
    let biased = ModelConfig { use_qk_norm: true, attention_bias: AttentionBias::Qkv, ..untied };
    let biased = ModelConfig { use_sub_norm: false, ..biased };
    let error = biased.to_gguf().unwrap_err().to_string();
    assert!(error.contains("`qwen2` would need use_qk_norm = false"), "{error}");
    assert!(error.contains("`qwen3` would need attention_bias = \"none\""), "{error}");
    let biased = ModelConfig { attention_bias: AttentionBias::Qkv, ..ModelConfig::default() };
    let error = biased.to_hugging_face(false, "float32", serde_json::Map::new()).unwrap_err().to_string();
    assert!(error.contains("`bitnet` would need attention_bias = \"none\" or \"all\""), "{error}");
}
