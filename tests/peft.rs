//! Adapters as peft writes them, through the binary: every command that takes adapters takes the directory,
//! and gives what it gives with the adapter of the run that the same matrices come from.

#[path = "project/on_base.rs"]
mod on_base;
mod project;
#[path = "project/served.rs"]
mod served;

use std::fs;

use on_base::on_base;
use project::Project;
use serde_json::{Value, json};
use served::Served;
use tritforge_checkpoint::{TensorView, Tensors, Writer};
use tritforge_config::ADAPTER_MODEL;

/// A base, `runs/tiny`, `base.gguf` and `base-hf`; the adapter of a run, `runs/side` and `side.gguf`; and the
/// same as peft writes it, `peft`.
fn project() -> Project {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    fs::write(project.path("lora.toml"), on_base("side", "2e-2", "[lora]\nrank = 4\nalpha = 16\n")).unwrap();
    project.ok(&["train", "lora.toml", "--quiet"]);
    project.ok(&["export", "runs/tiny", "-o", "base.gguf", "--embeddings", "f32"]);
    project.ok(&["export", "runs/tiny", "-o", "base-hf", "--format", "hf-packed", "--embeddings", "f32"]);
    project.ok(&["export", "runs/side", "-o", "side.gguf"]);
    write_peft(&project, "peft", |_| {});
    project
}

/// Sixteen greedy tokens of the base with an adapter.
fn generate(project: &Project, lora: &str) -> String {
    let fixed = "generate base.gguf -n 16 --temperature 0 --quiet --prompt".split(' ');
    project.ok(&fixed.chain(["You may", "--lora", lora]).collect::<Vec<_>>())
}

/// The adapter of the run in the layout of peft, with a change of its configuration.
fn write_peft(project: &Project, name: &str, change: impl FnOnce(&mut Value)) {
    let (run, dir) = (project.path("runs/side/step-000008"), project.path(name));
    fs::create_dir(&dir).unwrap();
    fs::copy(run.join("adapter_model.safetensors"), dir.join("adapter_model.safetensors")).unwrap();
    let mut config = json!({
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": "runs/tiny", "bias": "none", "eva_config": null,
        "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
        "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 16, "lora_bias": false, "lora_dropout": 0.0,
        "megatron_core": "megatron.core", "modules_to_save": null, "peft_type": "LORA", "peft_version": "0.21.2", "r": 4,
        "rank_pattern": {}, "revision": null, "target_modules": "all-linear", "task_type": "CAUSAL_LM", "use_dora": false,
        "use_rslora": false
    });
    change(&mut config);
    fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
}

fn loss(project: &Project, args: &[&str]) -> f64 {
    let all = [&["eval"][..], args, &["--text", "text.txt", "--tokens", "300", "--json"]].concat();
    let score: Value = serde_json::from_str(&project.ok(&all)).unwrap();
    score["loss"].as_f64().unwrap()
}

#[test]
fn every_command_that_takes_adapters_takes_the_directory() {
    let project = project();
    let expected = loss(&project, &["runs/side"]);
    assert!((expected - loss(&project, &["runs/tiny"])).abs() > 1e-3, "the adapter changes something");
    for args in [
        &["peft"][..],
        &["base.gguf", "--lora", "peft"],
        &["base.gguf", "--lora", "runs/side"],
        &["base.gguf", "--lora", "side.gguf"],
        &["runs/tiny", "--lora", "peft"],
        &["base-hf", "--lora", "peft"],
        &["base-hf", "--lora", "peft:0.25", "--lora", "runs/side:0.75"],
    ] {
        let found = loss(&project, args);
        assert!((found - expected).abs() < 1e-4, "{args:?}: {found}, expected {expected}");
    }

    let generate = |lora: &str| generate(&project, lora);
    assert_eq!(generate("peft"), generate("side.gguf"));
    assert_ne!(generate("peft:0"), generate("peft:40"));
    fs::write(
        project.path("prompts.jsonl"),
        "{\"prompt\": \"You may\", \"max_tokens\": 16, \"temperature\": 0}\n",
    )
    .unwrap();
    let batch = |lora: &str| {
        project.ok(&["generate", "base.gguf", "--batch", "prompts.jsonl", "--lora", lora, "--quiet"])
    };
    assert_eq!(batch("peft:40"), batch("side.gguf:40"));

    // The same file comes of both.
    project.ok(&["export", "peft", "-o", "peft.gguf"]);
    assert!(fs::read(project.path("peft.gguf")).unwrap() == fs::read(project.path("side.gguf")).unwrap());
    project.ok(&["export", "peft", "-o", "by-base.gguf", "--base", "base-hf"]);
    assert!(fs::read(project.path("by-base.gguf")).unwrap() == fs::read(project.path("side.gguf")).unwrap());

    // And the same merged model.
    let refused = project.fails(&["merge", "peft", "-o", "merged"]);
    assert!(refused.contains("--requantize"), "{refused}");
    project.ok(&["merge", "peft", "-o", "merged", "--requantize"]);
    project.ok(&["merge", "runs/side", "-o", "merged-run", "--requantize"]);
    let weights = |dir: &str| fs::read(project.path(&format!("{dir}/model.safetensors"))).unwrap();
    assert!(weights("merged") == weights("merged-run"));

    let printed = project.ok(&["verify", "peft", "runs/side", "--text", "text.txt", "--bound", "0"]);
    assert!(printed.contains("verified") && !printed.contains("NOT"), "{printed}");
    let printed = project.ok(&["inspect", "peft", "--tensors"]);
    assert!(
        printed.contains("layout of peft") && printed.contains("layers.1.mlp.down_proj.lora_B"),
        "{printed}"
    );
    // What is made of models alone says what to do.
    for args in [
        &["diff", "peft", "runs/tiny"][..],
        &["train", "lora.toml", "--quiet", "--set", "model.base=peft", "--set", "run.out=runs/on"],
        &["import", "peft", "-o", "imported"],
    ] {
        let refused = project.fails(args);
        assert!(
            refused.contains("adapter") && refused.to_lowercase().contains("merge"),
            "{args:?}: {refused}"
        );
    }
}

#[test]
fn directories_that_cannot_be_read_are_refused_everywhere() {
    let project = project();
    write_peft(&project, "dora", |config| config["use_dora"] = json!(true));
    write_peft(&project, "fewer", |config| config["target_modules"] = json!(["q_proj"]));
    write_peft(&project, "pickle", |_| {});
    let pickle = project.path("pickle");
    fs::rename(pickle.join("adapter_model.safetensors"), pickle.join("adapter_model.bin")).unwrap();
    for (dir, named) in [("dora", "use_dora"), ("fewer", "target_modules"), ("pickle", "adapter_model.bin")] {
        for args in [
            &["eval", dir, "--text", "text.txt"][..],
            &["eval", "base.gguf", "--text", "text.txt", "--lora", dir],
            &["eval", "runs/tiny", "--text", "text.txt", "--lora", dir],
            &["generate", "base.gguf", "-p", "a", "--lora", dir],
            &["serve", "base.gguf", "--port", "0", "--lora", dir],
            &["merge", dir, "-o", "made", "--requantize"],
            &["export", dir, "-o", "made"],
            &["verify", dir, "runs/tiny"],
        ] {
            let refused = project.fails(args);
            assert!(refused.contains(named), "{args:?}: {refused}");
            assert!(!project.path("made").exists(), "{args:?} left something");
        }
    }
    // A base that is elsewhere.
    write_peft(&project, "hub", |config| config["base_model_name_or_path"] = json!("someone/model"));
    let refused = project.fails(&["merge", "hub", "-o", "made", "--requantize"]);
    assert!(refused.contains("someone/model") && refused.contains("--base"), "{refused}");
    project.ok(&["merge", "hub", "-o", "made", "--requantize", "--base", "runs/tiny"]);
    // Codes alone cannot take anything up, whatever form they have; nothing is left beside the output.
    let refused = project.fails(&["merge", "hub", "-o", "packed", "--base", "base-hf"]);
    assert!(refused.contains("no latent weights"), "{refused}");
    let left = fs::read_dir(project.path("")).unwrap().flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert!(!left.iter().any(|name| name.starts_with(".tritforge") || name == "packed"), "{left:?}");
}

#[test]
fn the_service_loads_directories_at_its_start_and_while_it_runs() {
    let project = project();
    fs::create_dir(project.path("allowed")).unwrap();
    write_peft(&project, "allowed/late", |_| {});
    fs::create_dir(project.path("allowed/linked")).unwrap();
    for name in ["adapter_config.json", "adapter_model.safetensors"] {
        let to = project.path(&format!("allowed/linked/{name}"));
        std::os::unix::fs::symlink(project.path(&format!("peft/{name}")), to).unwrap();
    }
    let served =
        Served::start(&project, &["base.gguf", "--lora", "early=peft", "--allow-runtime-lora", "allowed"]);
    let load = |name: &str, path: &str| {
        served.post("/v1/load_lora_adapter", &json!({"lora_name": name, "lora_path": path}))
    };
    assert_eq!(load("late", "late").0, 200);
    // Outside of the directory that is allowed: above it, or at the end of a link.
    for path in ["../peft", "linked", ".", "nowhere"] {
        let (status, body) = load("other", path);
        assert_eq!((status, &body["error"]["code"]), (404, &json!("adapter_not_found")), "{path}: {body}");
    }
    assert_eq!(served.text("early"), served.text("late"));
    let alone = generate(&project, "peft");
    assert!(alone.contains(served.text("early").trim()), "{alone}");
}

/// The adapter of the run with the last two ranks of its values' matrices cut off.
fn write_narrow_values(project: &Project, name: &str) {
    write_peft(project, name, |config| {
        config["rank_pattern"] = json!({ r"layers\.\d+\.self_attn\.v_proj": 2 });
        config["alpha_pattern"] = json!({ "v_proj": 3 });
    });
    let stored = Tensors::open(&project.path(name).join(ADAPTER_MODEL)).unwrap();
    let mut cut = Vec::new();
    for (tensor, mut shape, _) in stored.list().unwrap() {
        let mut values = stored.f32(&tensor, &shape).unwrap().into_owned();
        if tensor.contains("v_proj") {
            if tensor.contains("lora_A") {
                values.truncate(2 * shape[1]);
                shape[0] = 2;
            } else {
                values = values.chunks(4).flat_map(|row| row[..2].to_vec()).collect();
                shape[1] = 2;
            }
        }
        cut.push((tensor, shape, values));
    }
    let mut writer = Writer::create(&project.path("cut")).unwrap();
    let views: Vec<_> =
        cut.iter().map(|(name, shape, values)| TensorView::new(name, shape, values)).collect();
    writer.write_tensors(ADAPTER_MODEL, &views).unwrap();
    writer.commit().unwrap();
    drop(stored);
    fs::rename(project.path("cut").join(ADAPTER_MODEL), project.path(name).join(ADAPTER_MODEL)).unwrap();
}

#[test]
fn ranks_and_scalings_of_their_own_survive_every_way() {
    let project = project();
    write_narrow_values(&project, "mixed");
    let expected = loss(&project, &["mixed"]);
    assert!((expected - loss(&project, &["peft"])).abs() > 1e-4, "the patterns change something");
    let printed = project.ok(&["export", "mixed", "-o", "mixed.gguf"]);
    assert!(printed.contains("rank 4 on 14 projections"), "{printed}");
    for args in [
        &["base.gguf", "--lora", "mixed"][..],
        &["base.gguf", "--lora", "mixed.gguf"],
        &["base-hf", "--lora", "mixed"],
        &["runs/tiny", "--lora", "mixed:0.5", "--lora", "mixed:0.5"],
    ] {
        let found = loss(&project, args);
        assert!((found - expected).abs() < 1e-4, "{args:?}: {found}, expected {expected}");
    }
    // Without the pattern the matrices are of another rank than the file says.
    let config = project.path("mixed/adapter_config.json");
    let text = fs::read_to_string(&config).unwrap().replace("rank_pattern", "rank_patterns");
    fs::write(&config, &text).unwrap();
    let refused = project.fails(&["export", "mixed", "-o", "other.gguf"]);
    assert!(refused.contains("rank_patterns"), "{refused}");
    fs::write(&config, text.replace("rank_patterns", "lora_config")).unwrap();
    let refused = project.fails(&["export", "mixed", "-o", "other.gguf"]);
    assert!(refused.contains("lora_config") && !project.path("other.gguf").exists(), "{refused}");
}
