//! Key by key: what is read, what is neutral, what is refused. The modules are held against Python's `re`
//! (`tests/golden/make_peft_modules.py`).

use serde_json::{Value, json};

use super::*;
use crate::ModelConfig;

/// What peft 0.21.2 writes for `LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj"])`.
fn written() -> Value {
    json!({
        "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null, "auto_mapping": null,
        "base_model_name_or_path": "base", "bias": "none", "corda_config": null, "ensure_weight_tying": false,
        "eva_config": null, "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true,
        "init_lora_weights": true, "kasa_config": null, "layer_replication": null, "layers_pattern": null,
        "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.05,
        "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core", "modules_to_save": null,
        "monteclora_config": null, "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 8,
        "rank_pattern": {}, "revision": null, "target_modules": ["q_proj"], "target_parameters": null,
        "task_type": "CAUSAL_LM", "trainable_token_indices": null, "use_bdlora": null, "use_dora": false,
        "use_qalora": false, "use_rslora": false, "velora_config": null
    })
}

fn read(key: &str, value: Value) -> Result<AdapterConfig, ConfigError> {
    let mut file = written();
    file[key] = value;
    AdapterConfig::from_json(&file.to_string())
}

fn model(layers: usize) -> ModelConfig {
    ModelConfig { num_hidden_layers: layers, ..ModelConfig::default() }
}

#[test]
fn a_file_of_peft_is_read() {
    let config = AdapterConfig::from_json(&written().to_string()).unwrap();
    assert_eq!((config.mode, config.rank, config.alpha), (LoraMode::Adapter, 8, 16.0));
    assert_eq!(config.base.as_deref(), Some("base"));
    let modules = config.modules(&model(3)).unwrap();
    let names: Vec<String> = modules.iter().map(AdaptedModule::name).collect();
    assert_eq!(names, [0, 1, 2].map(|layer| format!("model.layers.{layer}.self_attn.q_proj")));
    assert!(modules.iter().all(|module| module.rank == 8 && module.scaling == 2.0));
}

#[test]
fn modules_are_those_of_peft() {
    let golden: Value =
        serde_json::from_str(include_str!("../../../../tests/golden/peft_modules.json")).unwrap();
    let layers = golden["layers"].as_u64().unwrap() as usize;
    for case in golden["cases"].as_array().unwrap() {
        let mut file = written();
        for (key, value) in case["config"].as_object().unwrap() {
            file[key] = value.clone();
        }
        let config = AdapterConfig::from_json(&file.to_string()).unwrap();
        let found: Vec<Value> = config
            .modules(&model(layers))
            .unwrap_or_else(|e| panic!("{}: {e}", case["config"]))
            .iter()
            .map(|m| json!([m.layer, m.projection.module(), m.rank, m.scaling]))
            .collect();
        let expected = case["modules"].as_array().unwrap();
        assert_eq!(found.len(), expected.len(), "{}", case["config"]);
        for (found, expected) in found.iter().zip(expected) {
            let [a, b] = [found, expected].map(|module| module[3].as_f64().unwrap());
            assert!((a / b - 1.0).abs() < 1e-6, "{}: {found} {expected}", case["config"]);
            assert_eq!(
                found.as_array().unwrap()[..3],
                expected.as_array().unwrap()[..3],
                "{}",
                case["config"]
            );
        }
    }
}

#[test]
fn values_that_change_nothing_are_accepted() {
    let expected = AdapterConfig::from_json(&written().to_string()).unwrap();
    for (key, value) in [
        ("task_type", Value::Null),
        ("auto_mapping", json!({"base_model_class": "LlamaForCausalLM", "parent_library": "transformers"})),
        ("base_model_name_or_path", json!("base")),
        ("revision", json!("main")),
        ("inference_mode", json!(false)),
        ("init_lora_weights", json!(false)),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("orthogonal")),
        ("init_lora_weights", json!("eva")),
        ("eva_config", json!({"rho": 2.0})),
        ("layers_to_transform", json!([])),
        ("layers_pattern", json!("")),
        ("modules_to_save", json!([])),
        ("megatron_core", json!("other")),
        ("ensure_weight_tying", json!(true)),
        ("runtime_config", json!({"ephemeral_gpu_offload": true})),
        ("qalora_group_size", json!(32)),
        ("loftq_config", Value::Null),
        ("trainable_token_indices", json!([])),
        ("a_key_of_tomorrow", Value::Null),
        ("a_key_of_tomorrow", json!(false)),
    ] {
        let found = read(key, value.clone()).unwrap_or_else(|e| panic!("{key} = {value}: {e}"));
        assert_eq!(found, expected, "{key} = {value}");
    }
}

/// Keys that are refused when the file is read, or with the modules of a model of two blocks.
#[test]
fn what_is_not_computed_is_refused_by_name() {
    for (key, value) in [
        ("peft_type", json!("LOHA")),
        ("peft_type", Value::Null),
        ("task_type", json!("SEQ_CLS")),
        ("task_type", json!("FEATURE_EXTRACTION")),
        ("auto_mapping", json!({"base_model_class": "LlamaModel"})),
        ("base_model_name_or_path", json!(3)),
        ("revision", json!(3)),
        ("r", json!(0)),
        ("r", json!(-1)),
        ("r", json!(2.5)),
        ("r", json!("8")),
        ("r", json!(1u64 << 40)),
        ("lora_alpha", json!("16")),
        ("lora_alpha", json!(0)),
        ("lora_alpha", json!(1e300)),
        ("lora_dropout", json!(1.5)),
        ("use_rslora", json!("yes")),
        ("use_dora", json!(true)),
        ("fan_in_fan_out", json!(true)),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("bias", Value::Null),
        ("lora_bias", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_16")),
        ("init_lora_weights", json!("olora")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("lora_ga")),
        ("megatron_config", json!({"tensor_model_parallel_size": 2})),
        ("trainable_token_indices", json!([1, 2])),
        ("trainable_token_indices", json!({"embed_tokens": [1]})),
        ("loftq_config", json!({"loftq_bits": 4})),
        ("corda_config", json!({})),
        ("lora_ga_config", json!({})),
        ("velora_config", json!({})),
        ("alora_invocation_tokens", json!([])),
        ("alora_invocation_tokens", json!([1, 2])),
        ("use_qalora", json!(true)),
        ("monteclora_config", json!({})),
        ("layer_replication", json!([[0, 2], [1, 2]])),
        ("target_parameters", json!(["mlp.experts.down_proj"])),
        ("use_bdlora", json!({"nblocks": 2})),
        ("arrow_config", json!({"top_k": 3})),
        ("kasa_config", json!({})),
        ("enable_lora", json!([true, false])),
        ("a_key_of_tomorrow", json!(true)),
        ("a_key_of_tomorrow", json!(0)),
        ("tritforge_mode", json!("dora")),
        ("target_modules", Value::Null),
        ("target_modules", json!([])),
        ("target_modules", json!([""])),
        ("target_modules", json!([7])),
        ("target_modules", json!({"q_proj": 1})),
        ("target_modules", json!("q_proj")),
        ("target_modules", json!(".*")),
        ("target_modules", json!("(q_proj")),
        ("target_modules", json!("[a&&b].*_proj")),
        ("target_modules", json!(["q_proj", "lm_head"])),
        ("target_modules", json!(["q_proj", "embed_tokens"])),
        ("target_modules", json!(["q_proj", "mlp"])),
        ("target_modules", json!(["q_proj", "c_attn"])),
        ("target_modules", json!(["model.layers.2.self_attn.q_proj"])),
        ("exclude_modules", json!(7)),
        ("layers_to_transform", json!([2])),
        ("layers_to_transform", json!(-1)),
        ("layers_to_transform", json!("0")),
        ("layers_to_transform", json!([true])),
        ("layers_pattern", json!("layers")),
        ("layers_pattern", json!([1])),
        ("rank_pattern", json!([4])),
        ("rank_pattern", json!({"q_proj": 0})),
        ("rank_pattern", json!({"q_proj": 2.5})),
        ("rank_pattern", json!({"(": 4})),
        ("alpha_pattern", json!({"q_proj": 0})),
        ("alpha_pattern", json!({"q_proj": "16"})),
        ("alpha_pattern", json!({"[[a]": 4})),
    ] {
        let error = read(key, value.clone()).and_then(|config| config.modules(&model(2)));
        let message = error.expect_err(&format!("{key} = {value}")).to_string();
        assert!(message.contains(key), "{key} = {value}: {message}");
    }
    // Everything excluded.
    let message =
        read("exclude_modules", json!(["q_proj"])).unwrap().modules(&model(2)).unwrap_err().to_string();
    assert!(message.contains("nothing is adapted"), "{message}");
}

#[test]
fn keys_that_contradict_each_other_are_refused() {
    for (keys, name) in [
        (json!({"target_modules": ".*q_proj", "layers_to_transform": [0]}), "layers_to_transform"),
        (json!({"target_modules": "all-linear", "layers_pattern": "layers"}), "layers_pattern"),
        (json!({"tritforge_mode": "lota"}), "peft_type"),
        (json!({"tritforge_mode": "qat_lora", "lora_dropout": 0.1}), "lora_dropout"),
    ] {
        let mut file = written();
        for (key, value) in keys.as_object().unwrap() {
            file[key] = value.clone();
        }
        let message = AdapterConfig::from_json(&file.to_string()).unwrap_err().to_string();
        assert!(message.contains(name), "{keys}: {message}");
    }
}

#[test]
fn an_expression_that_takes_for_ever_is_refused() {
    let config = read("target_modules", json!(r"(?:(\w|\.)+)+\1\1!")).unwrap();
    let message = config.modules(&model(2)).unwrap_err().to_string();
    assert!(message.contains("target_modules"), "{message}");
}

#[test]
fn what_is_no_configuration_is_refused() {
    for text in ["", "[]", "{", "null", "{\"r\": 1e999}", "3"] {
        assert!(AdapterConfig::from_json(text).is_err(), "{text}");
    }
}
