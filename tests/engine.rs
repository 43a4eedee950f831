//! The same recipe through both engines: the hand-written pass and candle's tape.

mod project;

use std::fs;

use project::Project;
use serde_json::Value;

fn train(project: &Project, out: &str, set: &[&str], flags: &[&str]) {
    let out = format!("run.out=runs/{out}");
    let set = [&[&out[..]], set].concat();
    let set: Vec<&str> = set.iter().flat_map(|key| ["--set", *key]).collect();
    project.ok(&[&["train", "recipe.toml", "--quiet"], &set[..], flags].concat());
}

/// Loss and gradient norm of every step.
fn steps(project: &Project, run: &str) -> Vec<(f64, f64)> {
    let metrics = fs::read_to_string(project.path(&format!("runs/{run}/metrics.jsonl"))).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let number = |line: &Value, key: &str| line[key].as_f64().unwrap();
    lines
        .filter(|line| line["event"] == "train")
        .map(|line| (number(&line, "loss"), number(&line, "grad_norm")))
        .collect()
}

/// What a run's last weights are, in a word.
fn weights(project: &Project, run: &str) -> String {
    let manifest = fs::read(project.path(&format!("runs/{run}/step-000012/manifest.json"))).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["files"]["model.safetensors"]["sha256"].as_str().unwrap().to_string()
}

#[test]
fn both_engines_train_the_same_model() {
    let project = Project::new();
    // On integers a last bit may tip a rounding, which the later steps carry on; without them it stays small.
    let full = ["quant.weights=none", "quant.activations=none"];
    let shape = ["model.use_sub_norm=false", "model.tie_word_embeddings=false", "data.packing=masked"];
    for (name, set, first, later) in [
        ("ternary", &["quant.backward=f32"][..], 1e-5, 2e-2),
        ("full", &full, 1e-5, 1e-3),
        ("shape", &[&full[..], &shape].concat(), 1e-5, 1e-3),
    ] {
        let runs = ["fused", "candle"].map(|engine| {
            let run = format!("{name}-{engine}");
            train(&project, &run, &[set, &[&format!("train.engine={engine}")]].concat(), &[]);
            steps(&project, &run)
        });
        assert_eq!([runs[0].len(), runs[1].len()], [12, 12]);
        for (step, (fused, candle)) in runs[0].iter().zip(&runs[1]).enumerate() {
            let bound = if step == 0 { first } else { later };
            for (a, b) in [(fused.0, candle.0), (fused.1, candle.1)] {
                assert!((a - b).abs() <= bound * a, "{name}, step {step}: {fused:?} {candle:?}");
            }
        }
        assert!(runs[1][11].0 < runs[1][0].0, "{name} learns");
    }
    project.ok(&["export", "runs/ternary-candle", "-o", "tape.gguf"]);
    project.ok(&["verify", "runs/ternary-candle", "tape.gguf"]);
}

#[test]
fn a_run_on_the_tape_resumes_to_the_same_bits() {
    let project = Project::new();
    let set = ["train.engine=candle", "train.keep_last=9"];
    train(&project, "whole", &set, &[]);
    train(&project, "parts", &set, &[]);
    for step in ["08", "10", "12"] {
        fs::remove_dir_all(project.path(&format!("runs/parts/step-0000{step}"))).unwrap();
    }
    let other = ["train", "recipe.toml", "--resume", "--set", "run.out=runs/parts"];
    let error = project.fails(&other);
    assert!(error.contains("train.engine"), "{error}");
    train(&project, "parts", &set, &["--resume"]);
    assert_eq!(weights(&project, "whole"), weights(&project, "parts"));
}

#[test]
fn what_the_tape_does_not_compute_is_refused() {
    let project = Project::new();
    for (set, expected) in [
        ("train.gradient_checkpointing=true", "train.gradient_checkpointing contradicts"),
        ("quant.backward=int8", "quant.backward = \"int8\" contradicts train.engine"),
        ("lora.rank=4", "contradicts [lora]"),
        ("distill.teacher=runs/none", "contradicts [distill]"),
    ] {
        let error = project.fails(&["train", "recipe.toml", "--set", "train.engine=candle", "--set", set]);
        assert!(error.contains(expected), "{set}: {error}");
    }
    let error = project.fails(&["train", "recipe.toml", "--dry-run", "--set", "train.engine=candle"]);
    assert!(error.contains("--dry-run") && error.contains("train.engine=fused"), "{error}");
}
