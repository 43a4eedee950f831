//! GGUF files: tensors, keys, ids, and models in several files.

use std::fs;

use tritforge_gguf::{GgmlType, Metadata, TensorSpec, Value};

use crate::model::{Parts, model, perplexity, refused};

#[test]
fn tensors_without_a_place_are_refused_by_every_command() {
    let project = model();
    let sound = Parts::read(&project.path("m.gguf"));
    for (name, len) in [
        ("blk.0.ffn_down.bias", 64),
        ("blk.0.ffn_gate.bias", 96),
        ("blk.0.attn_output.bias", 64),
        ("blk.0.attn_k.bias", 32),
        ("blk.0.attn_q_norm.weight", 32),
        ("blk.0.attn_sub_norm.weight", 64),
        ("blk.0.attn_qkv.weight", 64),
        ("blk.0.attn_q.scale", 1),
        ("blk.0.attn_q.input_scale", 1),
        ("blk.1.attn_norm.weight", 64),
        ("blk.00.attn_norm.weight", 64),
        ("blk.x.attn_norm.weight", 64),
        ("output.bias", 288),
        ("token_embd_norm.weight", 64),
        ("cls.output.weight", 64),
        ("rope_factors_long.weight", 16),
        ("something", 1),
    ] {
        let mut tensors = sound.tensors.clone();
        let spec = TensorSpec { name: name.to_string(), dims: vec![len], ty: GgmlType::F32 };
        tensors.push((spec, 3f32.to_le_bytes().repeat(len as usize)));
        Parts { metadata: sound.metadata.clone(), tensors }.write(&project.path("more.gguf"));
        refused(&project.run(&["eval", "more.gguf", "--text", "text.txt"]), &["more.gguf", name]);
    }
    // The last one, whoever opens the file.
    for args in [
        &["generate", "more.gguf", "-p", "x", "-n", "2"][..],
        &["serve", "more.gguf", "--port", "0"],
        &["import", "more.gguf", "-o", "imported"],
        &["diff", "m.gguf", "more.gguf"],
        &["verify", "c", "more.gguf"],
        &["tokenize", "more.gguf", "--text", "text.txt"],
    ] {
        let error = project.fails(args);
        assert!(error.contains("something"), "{args:?}: {error}");
    }
    assert!(!project.path("imported").exists());
    let printed = project.ok(&["inspect", "more.gguf"]);
    let ours = printed.lines().find(|line| line.contains("tritforge ")).unwrap();
    assert!(ours.contains("no") && ours.contains("something"), "{printed}");
}

#[test]
fn keys_that_change_the_computation_are_refused_and_others_change_nothing() {
    let project = model();
    let (right, told) = perplexity(&project, &["m.gguf"]);
    assert_eq!(told, "");
    let sound = Parts::read(&project.path("m.gguf"));
    let with = |key: &str, value: Value| {
        let mut metadata = sound.metadata.clone();
        metadata.insert(key, value);
        Parts { metadata, tensors: sound.tensors.clone() }.write(&project.path("changed.gguf"));
        project.run(&["eval", "changed.gguf", "--text", "text.txt", "--tokens", "120", "--json"])
    };
    let changing: [(&str, Value); 20] = [
        ("expert_count", 8u32.into()),
        ("expert_used_count", 2u32.into()),
        ("logit_scale", 0.5f32.into()),
        ("residual_scale", 0.5f32.into()),
        ("embedding_scale", 12f32.into()),
        ("final_logit_softcapping", 30f32.into()),
        ("attention.scale", 0.5f32.into()),
        ("attention.clamp_kqv", 8f32.into()),
        ("attention.max_alibi_bias", 8f32.into()),
        ("attention.causal", false.into()),
        ("attention.sliding_window", 16u32.into()),
        ("attention.value_length", 16u32.into()),
        ("attention.head_count_kv", vec![1u32, 2].into()),
        ("rope.dimension_count", 16u32.into()),
        ("rope.dimension_sections", vec![8i32, 8, 0, 0].into()),
        ("rope.scaling.type", "longrope".into()),
        ("rope.scaling.attn_factor", 2f32.into()),
        ("use_parallel_residual", true.into()),
        ("hidden_activation", "gelu".into()),
        ("ssm.state_size", 16u32.into()),
    ];
    for (key, value) in changing {
        let key = format!("llama.{key}");
        refused(&with(&key, value), &["changed.gguf", &key]);
    }
    for kind in ["adapter", "mmproj", "imatrix"] {
        refused(&with("general.type", kind.into()), &["general.type", kind]);
    }
    let tokens: Vec<String> = (0..300).map(|i| format!("token{i}")).collect();
    refused(&with("tokenizer.ggml.tokens", tokens.into()), &["tokenizer.ggml.tokens", "300", "288"]);
    let neutral: [(&str, Value); 14] = [
        ("llama.expert_count", 0u32.into()),
        ("llama.logit_scale", 1f32.into()),
        ("llama.attention.scale", 0f32.into()),
        ("llama.attention.causal", true.into()),
        ("llama.attention.sliding_window", 64u32.into()),
        ("llama.attention.head_count", vec![2u32].into()),
        ("llama.rope.dimension_sections", vec![0i32; 4].into()),
        ("llama.rope.scaling.finetuned", true.into()),
        ("llama.rope.scaling.type", "none".into()),
        ("llama.hidden_activation", "silu".into()),
        ("llama.tensor_data_layout", "Meta AI original pth".into()),
        ("general.type", "model".into()),
        ("general.sampled_by", "somebody".into()),
        ("publisher.note", "hello".into()),
    ];
    let measured = |output: &std::process::Output| {
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{told}");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        (json["perplexity"].as_f64().unwrap(), told)
    };
    for (key, value) in neutral {
        assert_eq!(measured(&with(key, value)), (right, String::new()), "{key}");
    }
    // Not known, or not applied: told once, by name.
    for (key, value) in [
        ("llama.brand_new", Value::from(1u32)),
        ("qwen2.block_count", 3u32.into()),
        ("general.sampling.temp", 0.6f32.into()),
        ("tokenizer.ggml.brand_new", 1u32.into()),
        ("tokenizer.ggml.add_eos_token", true.into()),
        ("tokenizer.ggml.precompiled_charsmap", vec![1u8].into()),
    ] {
        let (found, told) = measured(&with(key, value));
        assert_eq!(found, right, "{key}");
        assert_eq!(told.matches(key).count(), 1, "{told}");
        assert!(told.starts_with("warning: "), "{told}");
    }
}

#[test]
fn older_names_of_rope_scaling_mean_what_they_meant() {
    let project = model();
    let plain = perplexity(&project, &["m.gguf"]).0;
    let sound = Parts::read(&project.path("m.gguf"));
    let scaled = |keys: &[(&str, Value)]| {
        let mut metadata = sound.metadata.clone();
        metadata.remove("llama.rope.scaling.type");
        metadata.remove("llama.rope.scaling.factor");
        for (key, value) in keys {
            metadata.insert(format!("llama.rope.{key}"), value.clone());
        }
        Parts { metadata, tensors: sound.tensors.clone() }.write(&project.path("scaled.gguf"));
        perplexity(&project, &["scaled.gguf"]).0
    };
    let linear = scaled(&[("scaling.type", "linear".into()), ("scaling.factor", 4f32.into())]);
    assert_ne!(linear, plain);
    // Without a type it is linear, and before that there was one key.
    assert_eq!(scaled(&[("scaling.factor", 4f32.into())]), linear);
    assert_eq!(scaled(&[("scale_linear", 4f32.into())]), linear);
    assert_eq!(scaled(&[("scale_linear", 0f32.into())]), plain);
    assert_eq!(scaled(&[("scaling.type", "none".into()), ("scaling.factor", 4f32.into())]), plain);
    // YaRN's context of pretraining is the model's where it is not said.
    let yarn = |more: &[(&str, Value)]| {
        let keys = [("scaling.type", "yarn".into()), ("scaling.factor", 4f32.into())];
        scaled(&[&keys, more].concat())
    };
    assert_eq!(yarn(&[]), yarn(&[("scaling.original_context_length", 64u32.into())]));
    assert_ne!(yarn(&[]), linear);
}

#[test]
fn ids_that_no_token_has_are_none_and_told() {
    let project = model();
    let right = perplexity(&project, &["m.gguf"]).0;
    let sound = Parts::read(&project.path("m.gguf"));
    for key in ["padding_token_id", "eos_token_id", "eot_token_id", "fim_pad_token_id"] {
        for id in [Value::from(u32::MAX), (-1i32).into(), 288u32.into()] {
            let mut metadata = sound.metadata.clone();
            metadata.insert(format!("tokenizer.ggml.{key}"), id);
            Parts { metadata, tensors: sound.tensors.clone() }.write(&project.path("id.gguf"));
            let (found, told) = perplexity(&project, &["id.gguf"]);
            assert_eq!(found, right, "{key}");
            assert!(told.starts_with("warning: "), "{key}: {told:?}");
            project.ok(&["generate", "id.gguf", "-p", "hello", "-n", "2", "-q"]);
        }
    }
}

#[test]
fn a_split_model_is_one_model_for_every_command() {
    let project = model();
    let right = perplexity(&project, &["m.gguf"]).0;
    let whole = Parts::read(&project.path("m.gguf"));
    let half = whole.tensors.len() / 2;
    let part = |no: u16, metadata: &Metadata, tensors: &[(TensorSpec, Vec<u8>)]| {
        let mut metadata = metadata.clone();
        metadata.insert("split.no", no);
        metadata.insert("split.count", 2u16);
        metadata.insert("split.tensors.count", whole.tensors.len() as i32);
        let path = project.path(&format!("s-{:05}-of-00002.gguf", no + 1));
        Parts { metadata, tensors: tensors.to_vec() }.write(&path);
    };
    part(0, &whole.metadata, &whole.tensors[..half]);
    part(1, &Metadata::new(), &whole.tensors[half..]);
    let (first, second) = ("s-00001-of-00002.gguf", "s-00002-of-00002.gguf");
    assert_eq!(perplexity(&project, &[first]).0, right);
    let text =
        |model: &str| project.ok(&["generate", model, "-p", "hello", "-n", "8", "--temperature", "0", "-q"]);
    assert_eq!(text(first), text("m.gguf"));
    project.ok(&["import", first, "-o", "imported"]);
    // A checkpoint runs through the training forward, whose float products add up in another order.
    let imported = perplexity(&project, &["imported"]).0;
    assert!((imported / right - 1.0).abs() < 1e-5, "{imported} {right}");
    assert!(project.ok(&["inspect", first]).contains("in 2 files"));
    project.ok(&["verify", "c", first, "--tokens", "32", "--greedy-tokens", "4"]);
    assert!(project.ok(&["diff", "imported", first]).contains("the models are identical"));

    for args in [
        &["eval", second, "--text", "text.txt"][..],
        &["import", second, "-o", "other"],
        &["inspect", second],
        &["diff", second, first],
    ] {
        refused(&project.run(args), &[second, "split.no", "part 2 of 2", first]);
    }
    fs::remove_file(project.path(second)).unwrap();
    refused(&project.run(&["eval", first, "--text", "text.txt"]), &["split.count", second, "missing"]);
}

#[test]
fn a_file_without_a_pre_tokenizer_can_be_told_it() {
    let project = model();
    let right = perplexity(&project, &["m.gguf"]).0;
    let mut parts = Parts::read(&project.path("m.gguf"));
    let Some(Value::String(pre)) = parts.metadata.remove("tokenizer.ggml.pre") else {
        panic!("no pre-tokenizer")
    };
    parts.write(&project.path("without.gguf"));
    let option = format!("tokenizer.ggml.pre=str:{pre}");
    refused(
        &project.run(&["eval", "without.gguf", "--text", "text.txt"]),
        &["tokenizer.ggml.pre", "--override-kv tokenizer.ggml.pre=str:NAME"],
    );
    assert_eq!(perplexity(&project, &["without.gguf", "--override-kv", &option]).0, right);
    project.ok(&["generate", "without.gguf", "-p", "x", "-n", "2", "-q", "--override-kv", &option]);
    project.ok(&["tokenize", "without.gguf", "--text", "text.txt", "--override-kv", &option]);
    project.ok(&["import", "without.gguf", "-o", "imported", "--override-kv", &option]);
    // A checkpoint runs through the training forward, whose float products add up in another order.
    let imported = perplexity(&project, &["imported"]).0;
    assert!((imported / right - 1.0).abs() < 1e-5, "{imported} {right}");

    let wrong = |model: &str, option: &str, parts: &[&str]| {
        refused(&project.run(&["import", model, "-o", "other", "--override-kv", option]), parts);
    };
    wrong("without.gguf", "tokenizer.ggml.pre=str:nonsense", &["tokenizer.ggml.pre", "nonsense"]);
    wrong("without.gguf", "tokenizer.ggml.pre=nonsense", &["--override-kv", "KEY=TYPE:VALUE"]);
    wrong("m.gguf", "split.count=int:1", &["split.count"]);
    wrong("hf", &option, &["--override-kv", "GGUF"]);
    refused(
        &project.run(&["eval", "c", "--text", "text.txt", "--override-kv", &option]),
        &["--override-kv", "only to GGUF files"],
    );
}
