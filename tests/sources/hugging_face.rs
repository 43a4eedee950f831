//! Directories in Hugging Face's layout: fields, files and tensors, as `from_pretrained` of transformers
//! takes them.

use std::collections::BTreeMap;
use std::fs;

use serde_json::{Value as Json, json};
use tritforge_checkpoint::{TensorFile, TensorSpec, TensorType, Tensors};

use crate::model::{model, perplexity, refused};
use crate::project::Project;

type Stored = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

fn tensors(project: &Project, name: &str) -> Stored {
    let file = Tensors::open(&project.path(name)).unwrap();
    let names = file.list().unwrap().into_iter().map(|(name, ..)| name);
    names
        .map(|name| {
            let (_, shape, bytes) = file.raw(&name).unwrap();
            (name, (shape, bytes.to_vec()))
        })
        .collect()
}

fn write(project: &Project, name: &str, tensors: &Stored) {
    let spec = |(name, (shape, _)): (&String, &(Vec<usize>, Vec<u8>))| TensorSpec {
        name: name.clone(),
        shape: shape.clone(),
        ty: TensorType::F32,
    };
    let path = project.path(name);
    let _ = fs::remove_file(&path);
    let mut file = TensorFile::create(&path, tensors.iter().map(spec).collect()).unwrap();
    for spec in file.specs().to_vec() {
        file.write(&spec.name, &tensors[&spec.name].1).unwrap();
    }
    file.finish().unwrap();
}

/// Sets fields of a JSON file; null removes one.
fn set(project: &Project, name: &str, fields: &Json) {
    let path = project.path(name);
    let mut json: Json = match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({}),
    };
    for (key, value) in fields.as_object().unwrap() {
        match value {
            Json::Null => drop(json.as_object_mut().unwrap().remove(key)),
            value => json[key] = value.clone(),
        }
    }
    fs::write(path, json.to_string()).unwrap();
}

/// Imports the directory and measures the checkpoint; with it what the import told.
fn imported(project: &Project) -> (f64, String) {
    let _ = fs::remove_dir_all(project.path("imported"));
    let output = project.run(&["import", "hf", "-o", "imported"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    let (found, more) = perplexity(project, &["imported"]);
    assert_eq!(more, "");
    (found, told)
}

fn import_refused(project: &Project, parts: &[&str]) {
    refused(&project.run(&["import", "hf", "-o", "refused"]), parts);
    assert!(!project.path("refused").exists());
    // Whoever else opens the directory says the same.
    refused(&project.run(&["eval", "hf", "--text", "text.txt"]), parts);
}

#[test]
fn tokens_outside_the_vocabulary_are_no_tokens() {
    let project = model();
    let (right, told) = imported(&project);
    assert_eq!(told, "");
    for role in ["pad_token", "eos_token"] {
        set(&project, "hf/tokenizer_config.json", &json!({ role: "<|NOT_THERE|>" }));
        let (found, told) = imported(&project);
        assert_eq!(found, right);
        assert!(told.contains(role) && told.contains("<|NOT_THERE|>"), "{told}");
        set(&project, "hf/tokenizer_config.json", &json!({ role: null }));
    }
    set(&project, "hf/config.json", &json!({"pad_token_id": -1, "eos_token_id": 4_000_000}));
    set(&project, "hf/generation_config.json", &json!({"eos_token_id": [-1, 4_000_000]}));
    assert_eq!(imported(&project).0, right);
}

#[test]
fn a_head_beside_a_tied_embedding_counts_if_it_differs() {
    let project = model();
    let untied = imported(&project).0;
    set(&project, "hf/config.json", &json!({"tie_word_embeddings": true}));
    let (found, told) = imported(&project);
    assert_eq!(found, untied);
    assert!(told.contains("tie_word_embeddings") && told.contains("lm_head.weight"), "{told}");
    assert_eq!(perplexity(&project, &["hf"]).0, untied);

    let mut stored = tensors(&project, "hf/model.safetensors");
    let embedding = stored["model.embed_tokens.weight"].clone();
    stored.insert("lm_head.weight".to_string(), embedding);
    write(&project, "hf/model.safetensors", &stored);
    let (tied, told) = imported(&project);
    assert_eq!(told, "");
    assert_ne!(tied, untied);
    stored.remove("lm_head.weight");
    write(&project, "hf/model.safetensors", &stored);
    assert_eq!(imported(&project).0, tied);
    // A head that is said to be there and is not.
    set(&project, "hf/config.json", &json!({"tie_word_embeddings": false}));
    import_refused(&project, &["lm_head.weight", "missing"]);
}

#[test]
fn tensors_without_a_place_are_refused() {
    let project = model();
    let sound = tensors(&project, "hf/model.safetensors");
    for (name, len) in [
        ("model.layers.0.mlp.down_proj.bias", 64),
        ("model.layers.0.self_attn.q_proj.bias", 64),
        ("model.layers.1.input_layernorm.weight", 64),
        ("model.layers.0.self_attn.q_norm.weight", 32),
        ("model.layers.0.self_attn.q_proj.weight_scale", 1),
        ("score.weight", 64),
    ] {
        let mut stored = sound.clone();
        stored.insert(name.to_string(), (vec![len], 1f32.to_le_bytes().repeat(len)));
        write(&project, "hf/model.safetensors", &stored);
        import_refused(&project, &[name]);
    }
    refused(&project.run(&["diff", "c", "hf"]), &["score.weight"]);
    // Buffers of older versions of transformers, which it passes over too.
    let mut stored = sound;
    stored.insert("model.layers.0.self_attn.rotary_emb.inv_freq".to_string(), (vec![16], vec![0; 64]));
    write(&project, "hf/model.safetensors", &stored);
    assert_eq!(imported(&project).1, "");
}

#[test]
fn fields_that_change_the_computation_are_refused() {
    let project = model();
    let right = imported(&project).0;
    let sound = fs::read(project.path("hf/config.json")).unwrap();
    for (field, value) in [
        ("logit_scale", json!(0.5)),
        ("logits_scaling", json!(8)),
        ("embedding_multiplier", json!(12.0)),
        ("residual_multiplier", json!(0.22)),
        ("final_logit_softcapping", json!(30.0)),
        ("num_experts", json!(8)),
        ("num_local_experts", json!(8)),
        ("use_parallel_residual", json!(true)),
        ("no_rope_layers", json!([1, 0])),
        ("vision_config", json!({"depth": 2})),
        ("mlp_bias", json!(true)),
        ("partial_rotary_factor", json!(0.5)),
        ("rope_scaling", json!({"type": "dynamic", "factor": 2.0})),
        ("layer_types", json!(["sliding_attention"])),
        ("hidden_act", json!("mish")),
        ("is_encoder_decoder", json!(true)),
    ] {
        set(&project, "hf/config.json", &json!({ field: value }));
        import_refused(&project, &["config.json", field]);
        fs::write(project.path("hf/config.json"), &sound).unwrap();
    }
    // Fields of published models that change nothing.
    let usual = json!({"logit_scale": 1.0, "num_experts": 0, "partial_rotary_factor": 1, "sliding_window": 16,
        "use_sliding_window": false, "max_window_layers": 28, "pretraining_tp": 1, "initializer_range": 0.02, "use_cache": true,
        "attention_dropout": 0.0, "transformers_version": "4.51.0", "auto_map": {}, "_name_or_path": "x", "torch_dtype": "bfloat16",
        "id2label": {"0": "LABEL_0"}, "temperature": 0.6, "bad_words_ids": null, "layer_types": ["full_attention"], "mlp_bias": false});
    set(&project, "hf/config.json", &usual);
    assert_eq!(imported(&project), (right, String::new()));
    set(
        &project,
        "hf/config.json",
        &json!({"brand_new": [1], "rope_scaling": {"type": "default", "also_new": 2}}),
    );
    let (found, told) = imported(&project);
    assert_eq!(found, right);
    assert!(told.contains("brand_new = [1]") && told.contains("rope_scaling.also_new = 2"), "{told}");
}

/// Puts the weights into two shards with an index.
fn shard(project: &Project) -> [Stored; 2] {
    let all = tensors(project, "hf/model.safetensors");
    fs::remove_file(project.path("hf/model.safetensors")).unwrap();
    let (first, second): (Stored, Stored) = all.into_iter().partition(|(name, _)| name.contains("mlp"));
    let mut map = serde_json::Map::new();
    for (shard, name) in [(&first, FIRST), (&second, SECOND)] {
        write(project, &format!("hf/{name}"), shard);
        map.extend(shard.keys().map(|tensor| (tensor.clone(), json!(name))));
    }
    fs::write(project.path(INDEX), json!({ "weight_map": map }).to_string()).unwrap();
    [first, second]
}

const FIRST: &str = "model-00001-of-00002.safetensors";
const SECOND: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "hf/model.safetensors.index.json";

#[test]
fn an_index_and_its_shards_have_to_agree() {
    let project = model();
    let right = imported(&project).0;
    let [first, second] = shard(&project);
    assert_eq!(imported(&project), (right, String::new()));
    refused(&project.run(&["import", &format!("hf/{FIRST}"), "-o", "refused"]), &["shard 1 of 2"]);

    let index = fs::read_to_string(project.path(INDEX)).unwrap();
    let map = |change: &dyn Fn(&mut serde_json::Map<String, Json>)| {
        let mut json: Json = serde_json::from_str(&index).unwrap();
        change(json["weight_map"].as_object_mut().unwrap());
        fs::write(project.path(INDEX), json.to_string()).unwrap();
    };
    let norm = "model.norm.weight";
    map(&|map| drop(map.remove(norm)));
    import_refused(&project, &[SECOND, norm, "not in model.safetensors.index.json"]);
    map(&|map| drop(map.insert(norm.into(), json!(FIRST))));
    import_refused(&project, &[norm, FIRST, SECOND]);
    map(&|map| drop(map.insert("model.more.weight".into(), json!(FIRST))));
    import_refused(&project, &["model.more.weight", FIRST]);
    map(&|map| drop(map.insert("model.more.weight".into(), json!("model-00003-of-00003.safetensors"))));
    import_refused(&project, &["model-00003-of-00003.safetensors", "not in"]);
    map(&|map| drop(map.insert("model.more.weight".into(), json!("../elsewhere.safetensors"))));
    import_refused(&project, &["model.more.weight", "../elsewhere.safetensors"]);
    map(&|map| drop(map.insert("model.more.weight".into(), json!(3))));
    import_refused(&project, &["model.more.weight", "3"]);
    fs::write(project.path(INDEX), &index).unwrap();

    let mut twice = second.clone();
    let (name, value) = first.first_key_value().unwrap();
    twice.insert(name.clone(), value.clone());
    write(&project, &format!("hf/{SECOND}"), &twice);
    import_refused(&project, &[name, FIRST, SECOND]);
    write(&project, &format!("hf/{SECOND}"), &second);

    // A shard of another download is passed over, and told.
    fs::copy(project.path(&format!("hf/{FIRST}")), project.path("hf/model-00001-of-00003.safetensors"))
        .unwrap();
    let (found, told) = imported(&project);
    assert_eq!(found, right);
    assert!(told.contains("model-00001-of-00003.safetensors"), "{told}");
    fs::remove_file(project.path(INDEX)).unwrap();
    import_refused(&project, &[FIRST, "index"]);
}

#[test]
fn a_single_file_goes_before_an_index() {
    let project = model();
    let right = imported(&project).0;
    let single = fs::read(project.path("hf/model.safetensors")).unwrap();
    let [_, mut second] = shard(&project);
    second.get_mut("model.norm.weight").unwrap().1 = 7f32.to_le_bytes().repeat(64);
    write(&project, &format!("hf/{SECOND}"), &second);
    assert_ne!(imported(&project).0, right);
    fs::write(project.path("hf/model.safetensors"), single).unwrap();
    let (found, told) = imported(&project);
    assert_eq!(found, right);
    assert!(told.contains("reading model.safetensors") && told.contains("index"), "{told}");
}

#[test]
fn files_that_would_be_passed_over_are_named() {
    let project = model();
    let right = imported(&project).0;
    fs::write(project.path("hf/adapter_config.json"), "{}").unwrap();
    import_refused(&project, &["adapter_config.json"]);
    fs::remove_file(project.path("hf/adapter_config.json")).unwrap();

    set(&project, "hf/generation_config.json", &json!({"temperature": 0.6, "top_p": 0.9}));
    fs::create_dir(project.path("hf/additional_chat_templates")).unwrap();
    let (found, told) = imported(&project);
    assert_eq!(found, right);
    for part in ["temperature = 0.6", "top_p = 0.9", "additional_chat_templates"] {
        assert!(told.contains(part), "{told}");
    }
    fs::remove_dir(project.path("hf/additional_chat_templates")).unwrap();

    let tokenizer = project.path("hf/tokenizer.json");
    let kept = fs::read(&tokenizer).unwrap();
    fs::remove_file(&tokenizer).unwrap();
    fs::write(project.path("hf/vocab.json"), "{}").unwrap();
    import_refused(&project, &["vocab.json", "tokenizer.json"]);
    fs::remove_file(project.path("hf/vocab.json")).unwrap();
    fs::write(&tokenizer, kept).unwrap();

    fs::remove_file(project.path("hf/model.safetensors")).unwrap();
    for (name, part) in [
        ("pytorch_model.bin", "pytorch_model.bin"),
        ("consolidated.00.pth", "consolidated.00.pth"),
        ("model.fp16.safetensors", "model.fp16.safetensors"),
        ("tf_model.h5", "tf_model.h5"),
        ("other.gguf", "other.gguf"),
    ] {
        fs::write(project.path(&format!("hf/{name}")), "x").unwrap();
        import_refused(&project, &[part]);
        fs::remove_file(project.path(&format!("hf/{name}"))).unwrap();
    }
    import_refused(&project, &["model.safetensors"]);
}
