//! Distillation through the binary: relations of tokens that are learned from a teacher, and a teacher that
//! candle-transformers runs.

#[path = "project/on_base.rs"]
mod on_base;
mod project;
#[path = "project/refused.rs"]
mod refused;

use std::fs;

use on_base::on_base;
use project::Project;
use refused::refused;
use serde_json::Value;

/// A project with a full-precision base, which is the teacher too, and the recipe.
fn project(set: &[&str]) -> Project {
    let project = Project::new();
    let plain = ["quant.weights=none", "quant.activations=none"];
    train(&project, "recipe.toml", "runs/tiny", &[&plain[..], set].concat(), &[]);
    fs::write(project.path("distill.toml"), on_base("distilled", "2e-3", "[quant]\nweights = \"absmean\"\nactivations = \"absmax\"\n[distill]\nteacher = \"runs/tiny\"\ntop_k = 20\n")).unwrap();
    project
}

fn train(project: &Project, recipe: &str, out: &str, set: &[&str], flags: &[&str]) {
    let out = format!("run.out={out}");
    let set = [&[&out[..]], set].concat();
    let set: Vec<&str> = set.iter().flat_map(|key| ["--set", *key]).collect();
    project.ok(&[&["train", recipe, "--quiet"], &set[..], flags].concat());
}

fn distill(project: &Project, out: &str, set: &[&str]) {
    train(project, "distill.toml", out, set, &[]);
}

/// What a run's last weights are, in a word.
fn weights(project: &Project, run: &str) -> String {
    let manifest = fs::read(project.path(&format!("{run}/step-000008/manifest.json"))).unwrap();
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    manifest["files"]["model.safetensors"]["sha256"].as_str().unwrap().to_string()
}

/// The relation loss of every step; none where the metrics have none.
fn relations(project: &Project, run: &str) -> Vec<Option<f64>> {
    let metrics = fs::read_to_string(project.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter(|line| line["event"] == "train").map(|line| line["relation"].as_f64()).collect()
}

fn held_out_loss(project: &Project, run: &str) -> f64 {
    let printed = project.ok(&["eval", run, "--text", "text.txt", "--tokens", "300", "--json"]);
    serde_json::from_str::<Value>(&printed).unwrap()["loss"].as_f64().unwrap()
}

#[test]
fn relations_come_nearer_to_the_teachers() {
    let project = project(&[]);
    let relation = ["distill.relation_weight=1000", "distill.relation_temperature=0.2"];
    let more = ["distill.ce=0", "distill.kl=0", "train.steps=30", "train.gradient_checkpointing=true"];
    distill(&project, "runs/related", &[&relation[..], &more].concat());
    let found: Vec<f64> = relations(&project, "runs/related").into_iter().flatten().collect();
    assert_eq!(found.len(), 30);
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (first, last) = (mean(&found[..4]), mean(&found[26..]));
    assert!(last < 0.7 * first, "{first} {last}");
    let table = fs::read_to_string(project.path("runs/related/metrics.csv")).unwrap();
    assert!(table.lines().next().unwrap().ends_with(",relation"), "{table}");
    assert!(fs::read_to_string(project.path("runs/related/report.html")).unwrap().contains("Relation"));

    distill(&project, "runs/unrelated", &[]);
    assert_eq!(relations(&project, "runs/unrelated"), [None; 8]);
}

#[test]
fn a_run_that_is_cut_goes_on_to_the_same_bits_whatever_is_cached() {
    let project = project(&[]);
    let set = [
        "distill.relation_weight=100",
        "distill.cache=words",
        "data.packing=documents",
        "train.save_every=2",
    ];
    distill(&project, "runs/whole", &set);
    // The words are read from the cache now, queries, keys and values are computed anew.
    let set = [&set[..], &["train.keep_last=9"]].concat();
    distill(&project, "runs/parts", &set);
    for step in [4, 6, 8] {
        fs::remove_dir_all(project.path(&format!("runs/parts/step-00000{step}"))).unwrap();
    }
    train(&project, "distill.toml", "runs/parts", &set, &["--resume"]);
    assert_eq!(weights(&project, "runs/whole"), weights(&project, "runs/parts"));
    assert_eq!(relations(&project, "runs/whole"), relations(&project, "runs/parts"));
}

#[test]
fn the_teacher_may_be_a_gguf_file_or_of_another_shape() {
    let project = project(&[]);
    project.ok(&["export", "runs/tiny", "-o", "teacher.gguf", "--format", "f32", "--embeddings", "f32"]);
    let set = ["distill.relation_weight=100", "distill.relation_temperature=0.5"];
    distill(&project, "runs/checkpoint", &set);
    distill(&project, "runs/gguf", &[&set[..], &["distill.teacher=teacher.gguf"]].concat());
    // Before its first step the student is the same; from there it goes its own way, as the engine sums in
    // another order.
    let [a, b] = ["runs/checkpoint", "runs/gguf"].map(|run| relations(&project, run)[0].unwrap());
    assert!((a - b).abs() < 1e-4 * a, "{a} {b}");

    // Of a ternary teacher both engines give the same bits.
    train(&project, "recipe.toml", "runs/ternary", &[], &[]);
    project.ok(&["export", "runs/ternary", "-o", "ternary.gguf", "--format", "i2_s", "--embeddings", "f32"]);
    for (out, teacher) in [("runs/latent", "runs/ternary"), ("runs/packed", "ternary.gguf")] {
        distill(&project, out, &[&set[..], &[&format!("distill.teacher={teacher}")]].concat());
    }
    assert_eq!(relations(&project, "runs/latent"), relations(&project, "runs/packed"));
    assert_eq!(weights(&project, "runs/latent"), weights(&project, "runs/packed"));

    let wide = ["model.hidden_size=192", "model.num_attention_heads=6", "model.num_key_value_heads=3"];
    let wide =
        [&wide[..], &["model.num_hidden_layers=3", "quant.weights=none", "quant.activations=none"]].concat();
    train(&project, "recipe.toml", "runs/wide", &[&wide[..], &["export.format=iq2_bn"]].concat(), &[]);
    distill(&project, "runs/taught", &[&set[..], &["distill.teacher=runs/wide"]].concat());
    assert!(relations(&project, "runs/taught").iter().all(|x| x.is_some_and(|x| x > 0.0)));
    let refused = |more: &[&str]| {
        let set = [&set[..], &["distill.teacher=runs/wide"], more].concat();
        refused(&project, "distill.toml", &set)
    };
    let found = refused(&["distill.relation_heads=128"]);
    assert!(found.contains("256 wide in the model and 192 in the teacher"), "{found}");
    let found = refused(&["distill.relation_teacher_layer=3"]);
    assert!(found.contains("distill.relation_teacher_layer = 3: the teacher has layers 0 to 2"), "{found}");
}

#[test]
fn another_teacher_of_the_same_name_and_length_is_another_teacher() {
    let project = project(&[]);
    let export = |run: &str| {
        let _ = fs::remove_file(project.path("teacher.gguf"));
        project.ok(&["export", run, "-o", "teacher.gguf", "--format", "f32", "--embeddings", "f32"]);
        fs::metadata(project.path("teacher.gguf")).unwrap().len()
    };
    let set = ["distill.teacher=teacher.gguf", "distill.cache=words"];
    let length = export("runs/tiny");
    distill(&project, "runs/first", &set);
    let other = ["run.seed=99", "quant.weights=none", "quant.activations=none"];
    train(&project, "recipe.toml", "runs/other", &other, &[]);
    assert_eq!(export("runs/other"), length);
    distill(&project, "runs/cached", &set);
    distill(&project, "runs/computed", &set[..1]);
    assert_eq!(weights(&project, "runs/cached"), weights(&project, "runs/computed"));
    assert_ne!(weights(&project, "runs/cached"), weights(&project, "runs/first"));
    let found = project.fails(&[
        "train",
        "distill.toml",
        "--quiet",
        "--resume",
        "--set",
        "run.out=runs/first",
        "--set",
        "distill.teacher=teacher.gguf",
    ]);
    assert!(found.contains("cannot resume: distill.teacher is not the teacher"), "{found}");
}

#[test]
fn a_dry_run_counts_the_teacher() {
    let project = project(&[]);
    let dry = |teacher| ["train", "distill.toml", "--dry-run", "--set", teacher];
    let printed = project.ok(&dry("distill.teacher=runs/tiny"));
    let row = printed.lines().find(|line| line.starts_with("teacher or reference"));
    assert!(row.is_some_and(|row| row.contains("MiB")), "{printed}");
    let error = project.fails(&dry("distill.teacher=nowhere"));
    assert!(error.contains("distill.teacher: nowhere: no such file or directory"), "{error}");
}

#[test]
fn candle_teaches_what_the_own_engine_teaches() {
    let project = project(&["model.use_sub_norm=false"]);
    project.ok(&["export", "runs/tiny", "-o", "teacher", "--format", "hf-f32"]);
    distill(&project, "runs/own", &["distill.kl=3"]);
    let candle = ["distill.kl=3", "distill.engine=candle", "distill.teacher=teacher"];
    distill(&project, "runs/candle", &[&candle[..], &["distill.cache=words"]].concat());
    let apart = held_out_loss(&project, "runs/own") - held_out_loss(&project, "runs/candle");
    assert!(apart.abs() < 1e-3, "{apart}");
    distill(&project, "runs/again", &[&candle[..], &["distill.cache=words"]].concat());
    assert_eq!(weights(&project, "runs/candle"), weights(&project, "runs/again"));

    let refused = |set: &[&str]| refused(&project, "distill.toml", set);
    let found = refused(&["distill.engine=candle"]);
    assert!(found.contains("a Hugging Face directory"), "{found}");
    // The same weights in the layout of Hugging Face are the same teacher.
    distill(&project, "runs/layout", &["distill.kl=3", "distill.teacher=teacher"]);
    assert_eq!(weights(&project, "runs/own"), weights(&project, "runs/layout"));
}

#[test]
fn an_adapter_teaches_with_its_base() {
    let project = project(&[]);
    let lora = "[lora]\nrank = 4\nalpha = 16\n";
    fs::write(project.path("lora.toml"), on_base("distilled", "2e-3", lora)).unwrap();
    train(&project, "lora.toml", "runs/adapter", &["optim.lr=2e-2"], &[]);
    project.ok(&["merge", "runs/adapter", "-o", "merged"]);
    let alone = ["distill.ce=0", "distill.kl=1"];
    let taught_by = |teacher: &str, out: &str| {
        let teacher = format!("distill.teacher={teacher}");
        distill(&project, out, &[&alone[..], &[&teacher]].concat());
        held_out_loss(&project, out)
    };
    let [adapter, merged] = [taught_by("runs/adapter", "runs/a"), taught_by("merged", "runs/m")];
    assert!((adapter - merged).abs() < 1e-3, "{adapter} {merged}");
    let base = taught_by("runs/tiny", "runs/b");
    assert!((adapter - base).abs() > 2e-3, "{adapter} {base}: the adapter taught nothing");
}

#[test]
fn divergences_between_both_directions_teach_and_differ() {
    let project = project(&[]);
    let of = |out: &str, beta: &str| -> (f64, f64) {
        let beta = format!("distill.jsd_beta={beta}");
        distill(
            &project,
            out,
            &["distill.ce=0", "distill.kl=1", "train.steps=24", "train.eval_every=24", &beta],
        );
        let metrics = fs::read_to_string(project.path(&format!("{out}/metrics.jsonl"))).unwrap();
        let lines = metrics.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let train = lines.filter(|line| line["event"] == "train").map(|line| line["loss"].as_f64().unwrap());
        let losses: Vec<f64> = train.collect();
        let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
        assert!(losses.iter().all(|loss| *loss >= 0.0), "{losses:?}");
        (mean(&losses[..6]), mean(&losses[losses.len() - 6..]))
    };
    let found = [of("runs/forward", "0"), of("runs/half", "0.5"), of("runs/reverse", "1")];
    for (first, last) in found {
        assert!(last < 0.9 * first, "{found:?}");
    }
    // The same model is as far away as each of them says.
    assert!((found[0].0 - found[2].0).abs() > 1e-4 && found[1].0 < found[0].0, "{found:?}");
    for (set, place) in [
        (&["distill.jsd_beta=1.5"][..], "distill.jsd_beta = 1.5: expected a number from 0 to 1"),
        (&["distill.jsd_beta=1", "distill.kl=0"], "distill.jsd_beta: has no effect with distill.kl = 0"),
        (&["distill.jsd_beta=1", "distill.top_k=1"], "distill.top_k = 1"),
    ] {
        let set: Vec<&str> = set.iter().flat_map(|key| ["--set", *key]).collect();
        let message =
            project.fails(&[&["train", "distill.toml", "--set", "run.out=runs/refused"], &set[..]].concat());
        assert!(message.contains(place), "{message}");
    }
}
