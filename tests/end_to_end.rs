//! The whole path through the binary: recipe → checkpoint → GGUF → verify → text; faults.

mod project;

use std::fs;

use project::Project;

#[test]
fn every_packing_is_the_trained_model() {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    for (format, bytes_a_block) in [("tq2_0", 66), ("tq1_0", 54), ("i2_s", 64)] {
        let file = format!("{format}.gguf");
        let printed =
            project.ok(&["export", "runs/tiny", "-o", &file, "--format", format, "--embeddings", "f32"]);
        assert!(printed.contains("loads in: tritforge"), "{printed}");
        let printed = project.ok(&["verify", "runs/tiny", &file, "--text", "text.txt", "--bound", "0"]);
        assert!(printed.contains("identical"), "{printed}");
        assert!(printed.contains("verified"), "{printed}");

        let json: serde_json::Value =
            serde_json::from_str(&project.ok(&["inspect", &file, "--json", "--codes-digest"])).unwrap();
        assert_eq!(json["architecture"], "bitnet");
        let q =
            json["tensors"].as_array().unwrap().iter().find(|t| t["name"] == "blk.1.attn_q.weight").unwrap();
        let tail = if format == "i2_s" { 32 } else { 0 };
        assert_eq!(q["bytes"], 256 * bytes_a_block + tail);
        assert_eq!(q["codes_sha256"].as_str().unwrap().len(), 64);
    }
    // The same codes, whatever the packing.
    let digests = |file: &str| -> Vec<String> {
        let json: serde_json::Value =
            serde_json::from_str(&project.ok(&["inspect", file, "--json", "--codes-digest"])).unwrap();
        let tensors = json["tensors"].as_array().unwrap().iter();
        tensors.filter_map(|t| Some(t["codes_sha256"].as_str()?.to_string())).collect()
    };
    assert_eq!(digests("tq2_0.gguf").len(), 14);
    assert_eq!(digests("tq2_0.gguf"), digests("tq1_0.gguf"));
    assert_eq!(digests("tq2_0.gguf"), digests("i2_s.gguf"));

    // Checkpoint and file score a text alike, and greedy text does not depend on threads.
    let score = |model: &str| project.ok(&["eval", model, "--text", "text.txt", "--tokens", "300", "--json"]);
    assert_eq!(score("runs/tiny"), score("tq1_0.gguf"));
    let write = |threads: &str| {
        let args = ["generate", "tq2_0.gguf", "-p", "You may", "-n", "24", "--temperature", "0"];
        project.ok(&[&args[..], &["--quiet", "--threads", threads]].concat())
    };
    assert_eq!(write("1"), write("3"));
}

#[test]
fn relu2_models_use_the_architecture_of_bitnet_cpp() {
    let project = Project::new();
    let set = ["--set", "model.hidden_act=relu2", "--set", "model.tie_word_embeddings=false"];
    project.ok(&[&["train", "recipe.toml", "--quiet", "--set", "train.steps=4"], &set[..]].concat());
    let printed =
        project.ok(&["export", "runs/tiny", "-o", "m.gguf", "--format", "i2_s", "--embeddings", "f32"]);
    // bitnet.cpp ignores a head of its own in this architecture, and ik_llama.cpp only converts I2_S.
    assert!(printed.contains("bitnet-b1.58") && printed.contains("loads in: tritforge\n"), "{printed}");
    project.ok(&["verify", "runs/tiny", "m.gguf", "--bound", "0"]);
    // TQ blocks hold the scale as f16 there: verify says what that changed, and does not pass it.
    let printed = project.ok(&["export", "runs/tiny", "-o", "tq.gguf", "--format", "tq2_0"]);
    assert!(printed.contains("keep scales exact"), "{printed}");
    let output = project.run(&["verify", "runs/tiny", "tq.gguf"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("NOT verified"));
}

#[test]
fn verify_sees_one_changed_code_and_one_changed_scale() {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet", "--set", "train.steps=4"]);
    project.ok(&["export", "runs/tiny", "-o", "m.gguf", "--embeddings", "f32"]);
    let bytes = fs::read(project.path("m.gguf")).unwrap();
    // The last tensor but its scale is blk.1.ffn_down.weight: TQ2_0 data, then 4 bytes of scale padded to 32.
    let mut changed = bytes.clone();
    let at = changed.len() - 32 - 66;
    changed[at] = (changed[at] & !3) | (((changed[at] & 3) + 1) % 3);
    fs::write(project.path("changed.gguf"), &changed).unwrap();
    let output = project.run(&["verify", "runs/tiny", "changed.gguf"]);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("blk.1.ffn_down.weight"), "{printed}");

    let mut changed = bytes;
    let at = changed.len() - 32;
    changed[at] ^= 1;
    fs::write(project.path("changed.gguf"), &changed).unwrap();
    assert_eq!(project.run(&["verify", "runs/tiny", "changed.gguf"]).status.code(), Some(1));
}

#[test]
fn faults_are_named() {
    let project = Project::new();
    let message = project.fails(&["train", "recipe.toml", "--set", "optim.learning_rate=1"]);
    assert!(message.contains("optim.learning_rate"), "{message}");
    let message = project.fails(&["train", "absent.toml"]);
    assert!(message.contains("absent.toml"), "{message}");
    let message = project.fails(&["generate", "text.txt", "-p", "x"]);
    assert!(message.contains("text.txt") && message.contains("neither GGUF nor safetensors"), "{message}");
    let message = project.fails(&["export", "absent", "-o", "x.gguf"]);
    assert!(message.contains("absent"), "{message}");
    project.ok(&["train", "recipe.toml", "--quiet", "--set", "train.steps=4"]);
    let message = project.fails(&["train", "recipe.toml", "--quiet"]);
    assert!(message.contains("--resume"), "{message}");
    project.ok(&["export", "runs/tiny", "-o", "m.gguf"]);
    let message = project.fails(&["generate", "m.gguf", "-p", "x", "--context", "100000"]);
    assert!(message.contains("context"), "{message}");
    let message = project.fails(&["generate", "m.gguf", "-p", "x", "--top-p", "2"]);
    assert!(message.contains("'2' for '--top-p"), "{message}");
    let whole = fs::read(project.path("m.gguf")).unwrap();
    fs::write(project.path("cut.gguf"), &whole[..whole.len() / 2]).unwrap();
    let message = project.fails(&["generate", "cut.gguf", "-p", "x"]);
    assert!(message.contains("cut.gguf"), "{message}");
    // A full-precision model is no ternary GGUF.
    let set = ["--set", "quant.weights=none", "--set", "run.out=full"];
    project.ok(&[&["train", "recipe.toml", "--quiet", "--set", "train.steps=4"], &set[..]].concat());
    let message = project.fails(&["export", "full", "-o", "full.gguf"]);
    assert!(message.contains("weights = \"none\""), "{message}");
    assert!(!project.path("full.gguf").exists());
}

#[test]
fn a_synthetic_model_runs_and_is_the_same_for_the_same_seed() {
    let project = Project::new();
    let shape = "vocab_size = 300\nhidden_size = 256\nintermediate_size = 512\nnum_hidden_layers = 1";
    fs::write(project.path("shape.toml"), shape).unwrap();
    let synth = |out: &str, seed: &str| {
        project.ok(&["synth", "shape.toml", "-o", out, "--format", "tq1_0", "--seed", seed]);
        fs::read(project.path(out)).unwrap()
    };
    let first = synth("a.gguf", "1");
    assert!(first == synth("b.gguf", "1"));
    assert!(first != synth("c.gguf", "2"));
    project.ok(&["generate", "a.gguf", "-p", "fn", "-n", "4", "--ignore-eos", "--quiet"]);
    fs::write(project.path("shape.toml"), "hidden_size = 100").unwrap();
    let message = project.fails(&["synth", "shape.toml", "-o", "d.gguf"]);
    assert!(message.contains("shape.toml") && message.contains("attn_sub_norm"), "{message}");
}

#[test]
fn a_dry_run_trains_nothing() {
    let project = Project::new();
    let printed = project.ok(&["train", "recipe.toml", "--dry-run"]);
    for part in [
        "parameters",
        "with gradient checkpointing",
        "activations",
        "peak memory",
        "FLOPs per token",
        "tokens/s",
    ] {
        assert!(printed.contains(part), "{part}:\n{printed}");
    }
    assert!(printed.contains("hidden_size = 256"), "{printed}");
    assert!(!project.path("runs").exists());
    // Without its text the rest is said all the same.
    fs::remove_file(project.path("text.txt")).unwrap();
    let printed = project.ok(&["train", "recipe.toml", "--dry-run", "--quiet"]);
    assert!(printed.contains("since the text is not available") && printed.contains("text.txt"), "{printed}");
}
