//! Adapters through the binary: trained in all modes, resumed, merged, exported, put on a GGUF model, served.

#[path = "project/on_base.rs"]
mod on_base;
mod project;
#[path = "project/refused.rs"]
mod refused;
#[path = "project/served.rs"]
mod served;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use on_base::on_base;
use project::Project;
use refused::refused;
use served::Served;
use tritforge_eval::EvalModel;
use tritforge_infer::{Adapter, ScaledAdapter};

fn recipe() -> String {
    on_base("adapted", "5e-3", "[lora]\nrank = 4\nalpha = 16\n")
}

/// A project with a base model and the recipe of an adapter.
fn project() -> Project {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    fs::write(project.path("lora.toml"), recipe()).unwrap();
    project
}

fn train(project: &Project, out: &str, set: &[&str]) {
    let out = format!("run.out={out}");
    let set = set.iter().flat_map(|key| ["--set", *key]);
    let args: Vec<&str> = ["train", "lora.toml", "--quiet", "--set", &out].into_iter().chain(set).collect();
    project.ok(&args);
}

fn score(project: &Project, model: &str) -> serde_json::Value {
    let printed = project.ok(&["eval", model, "--text", "text.txt", "--tokens", "300", "--json"]);
    serde_json::from_str(&printed).unwrap()
}

fn file(project: &Project, name: &str) -> Vec<u8> {
    fs::read(project.path(name)).unwrap()
}

#[test]
fn an_adapter_inside_the_quantizer_is_merged_exactly_and_verified() {
    let project = project();
    train(&project, "runs/qat", &["lora.mode=qat_lora"]);
    let adapted = score(&project, "runs/qat");
    assert_ne!(adapted, score(&project, "runs/tiny"), "eight steps change something");
    let printed = project.ok(&["merge", "runs/qat", "-o", "merged", "--verbose", "--text", "text.txt"]);
    assert!(printed.contains("14 adapted projections, exact"), "{printed}");
    assert!(printed.contains("+0.00 %") && printed.contains("model.layers.1.mlp.down_proj"), "{printed}");
    assert_eq!(score(&project, "merged"), adapted);
    project.ok(&["export", "merged", "-o", "merged.gguf", "--embeddings", "f32"]);
    let printed = project.ok(&["verify", "merged", "merged.gguf", "--text", "text.txt", "--bound", "0"]);
    assert!(printed.contains("verified"), "{printed}");
    // It has no place beside the weights.
    let refused = project.fails(&["export", "runs/qat", "-o", "adapter.gguf"]);
    assert!(refused.contains("tritforge merge"), "{refused}");
    assert!(!project.path("adapter.gguf").exists());
}

#[test]
fn a_ternary_adapter_is_trained_on_codes_alone_merged_exactly_and_verified() {
    let project = project();
    // A base of which nothing but codes and scales is left.
    project.ok(&["export", "runs/tiny", "-o", "base.gguf", "--embeddings", "f32"]);
    project.ok(&["import", "base.gguf", "-o", "packed"]);
    let lota = ["lora.mode=lota", "lora.rank=8", "lora.alpha=8", "lora.threshold=0.3", "optim.lr=0.1"];
    let packed = [&lota[..], &["model.base=packed"]].concat();
    train(&project, "runs/lota", &packed);
    let adapted = score(&project, "runs/lota");
    let loss = |score: &serde_json::Value| score["loss"].as_f64().unwrap();
    assert!(loss(&adapted) < loss(&score(&project, "packed")), "eight steps teach something");
    let printed = project.ok(&["merge", "runs/lota", "-o", "merged", "--text", "text.txt"]);
    assert!(printed.contains("14 adapted projections, exact") && printed.contains("+0.00 %"), "{printed}");
    assert!(!printed.contains("0.000 % of"), "{printed}");
    assert_eq!(score(&project, "merged"), adapted);
    project.ok(&["export", "merged", "-o", "merged.gguf", "--embeddings", "f32"]);
    let printed = project.ok(&["verify", "merged", "merged.gguf", "--text", "text.txt", "--bound", "0"]);
    assert!(printed.contains("verified"), "{printed}");
    // The base with latent weights has the same codes, and the same adapter comes of it.
    train(&project, "runs/latent", &lota);
    let adapter = |run: &str| file(&project, &format!("{run}/step-000008/adapter_model.safetensors"));
    assert_eq!(adapter("runs/latent"), adapter("runs/lota"));
    project.ok(&["merge", "runs/latent", "-o", "merged-latent"]);
    let weights = |dir: &str| file(&project, &format!("{dir}/model.safetensors"));
    assert_eq!(weights("merged-latent"), weights("merged"));
    // It is no adapter that stands beside a model, here or elsewhere.
    for args in [
        &["export", "runs/lota", "-o", "adapter.gguf"][..],
        &["generate", "base.gguf", "-p", "a", "--lora", "runs/lota"],
    ] {
        let refused = project.fails(args);
        assert!(refused.contains("mode lota") && refused.contains("tritforge merge"), "{refused}");
    }
    let config = fs::read_to_string(project.path("runs/lota/step-000008/adapter_config.json")).unwrap();
    assert!(config.contains("\"LOTA\"") && !config.contains("\"LORA\""), "{config}");
}

#[test]
fn an_adapter_beside_its_base_is_deployed_beside_it() {
    let project = project();
    let half = ["lora.dropout=0.1", "lora.use_rslora=true", "lora.lr_ratio_b=4"];
    train(&project, "runs/side", &half);
    project.ok(&["export", "runs/tiny", "-o", "base.gguf", "--embeddings", "f32"]);
    let printed = project.ok(&["export", "runs/side", "-o", "adapter.gguf"]);
    assert!(printed.contains("rank 4 on 14 projections"), "{printed}");

    let trained = EvalModel::open(&project.path("runs/side/step-000008")).unwrap();
    let ids = trained
        .tokenizer()
        .unwrap()
        .encode("You may reproduce and distribute copies of the Work", false)
        .unwrap();
    let EvalModel::Deployed(model) = EvalModel::open(&project.path("base.gguf")).unwrap() else {
        unreachable!()
    };
    let adapter = Arc::new(Adapter::open(&project.path("adapter.gguf"), &model).unwrap());
    assert_eq!((adapter.rank(), adapter.projections()), (4, 14));
    let logits = |scales: &[f32]| {
        let applied: Vec<ScaledAdapter> = scales
            .iter()
            .map(|scale| ScaledAdapter { adapter: Arc::clone(&adapter), scale: *scale })
            .collect();
        model.set_adapters(applied);
        EvalModel::Deployed(Arc::clone(&model)).logits(&ids).unwrap()
    };
    let apart = |a: &[f32], b: &[f32]| a.iter().zip(b).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    let (with, without) = (trained.logits(&ids).unwrap(), logits(&[]));
    assert!(apart(&logits(&[1.0]), &with) < 1e-4, "the engine and training agree");
    assert!(apart(&without, &with) > 1e-2, "the adapter changes something");
    assert!(apart(&logits(&[0.25, 0.75]), &with) < 1e-4, "two parts are a whole");
    assert!(apart(&logits(&[0.0]), &without) < 1e-6);

    let generate = [
        "generate",
        "base.gguf",
        "-p",
        "You may",
        "-n",
        "16",
        "--temperature",
        "1",
        "--seed",
        "1",
        "--quiet",
    ];
    let plain = project.ok(&generate);
    assert_eq!(plain, project.ok(&[&generate[..], &["--lora", "adapter.gguf:0"]].concat()));
    assert_ne!(plain, project.ok(&[&generate[..], &["--lora", "adapter.gguf:1000"]].concat()));

    // llama.cpp multiplies gate and up by the weight's scale after it has added the adapter: its file is
    // another.
    project.ok(&["export", "runs/side", "-o", "llama.gguf", "--for", "llama.cpp"]);
    let floats = |file: &str, tensor: &str| -> Vec<f32> {
        let gguf = tritforge_gguf::Gguf::open(project.path(file)).unwrap();
        let bytes = gguf.data(gguf.tensor(tensor).unwrap()).to_vec();
        bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    let scale = floats("base.gguf", "blk.1.ffn_up.scale")[0];
    let (ours, theirs) =
        ["adapter.gguf", "llama.gguf"].map(|f| floats(f, "blk.1.ffn_up.weight.lora_b")).into();
    assert!(ours.iter().zip(&theirs).all(|(a, b)| (a - b * scale).abs() <= 1e-6 * a.abs()), "{scale}");
    for tensor in ["blk.1.ffn_up.weight.lora_a", "blk.0.attn_q.weight.lora_b", "blk.0.ffn_down.weight.lora_b"]
    {
        assert_eq!(floats("adapter.gguf", tensor), floats("llama.gguf", tensor));
    }
    let refused = project.fails(&["generate", "base.gguf", "-p", "a", "--lora", "llama.gguf"]);
    assert!(refused.contains("made for llama.cpp"), "{refused}");

    // Ternary weights cannot take it up without loss, and nobody is left in the dark about that.
    let refused = project.fails(&["merge", "runs/side", "-o", "merged"]);
    assert!(refused.contains("--requantize") && refused.contains("GGUF adapter"), "{refused}");
    let printed = project.ok(&["merge", "runs/side", "-o", "merged", "--requantize", "--text", "text.txt"]);
    assert!(printed.contains("LOSSY") && printed.contains("perplexity"), "{printed}");
}

#[test]
fn a_resumed_adapter_has_the_bits_of_one_that_ran_through() {
    let project = project();
    // A learning rate that is also a share of elements.
    fs::write(project.path("lora.toml"), recipe().replace("alpha = 16\n", "").replace("5e-3", "5e-2"))
        .unwrap();
    for mode in ["adapter", "qat_lora", "lota"] {
        let (mode, whole, parts) =
            (format!("lora.mode={mode}"), format!("runs/{mode}-whole"), format!("runs/{mode}-parts"));
        train(&project, &whole, &[&mode]);
        // The schedule is that of eight steps: the run is cut, not shortened.
        train(&project, &parts, &[&mode]);
        fs::remove_dir_all(project.path(&format!("{parts}/step-000008"))).unwrap();
        let out = format!("run.out={parts}");
        project.ok(&["train", "lora.toml", "--quiet", "--resume", "--set", &out, "--set", &mode]);
        let last = |run: &str| file(&project, &format!("{run}/step-000008/adapter_model.safetensors"));
        assert_eq!(last(&whole), last(&parts));
        let other = project.fails(&[
            "train",
            "lora.toml",
            "--quiet",
            "--resume",
            "--set",
            &out,
            "--set",
            &mode,
            "--set",
            "lora.rank=5",
        ]);
        assert!(other.contains("cannot resume") && other.contains("rank"), "{other}");
    }
}

#[test]
fn another_base_of_the_same_shape_is_refused() {
    let project = project();
    fs::write(project.path("lora.toml"), recipe()).unwrap();
    let mode = "lora.mode=qat_lora";
    train(&project, "runs/adapter", &[mode]);
    // Another model under the same name, with the same number of steps.
    project.ok(&["train", "recipe.toml", "--quiet", "--overwrite", "--set", "run.seed=99"]);
    let merged = project.fails(&["merge", "runs/adapter", "-o", "merged"]);
    assert!(merged.contains("is not the checkpoint that it was trained on"), "{merged}");
    let eval = project.fails(&["eval", "runs/adapter", "--text", "text.txt"]);
    assert!(eval.contains("is not the checkpoint that it was trained on"), "{eval}");
    assert!(!project.path("merged").exists());
    let out = "run.out=runs/adapter";
    let resumed = project.fails(&["train", "lora.toml", "--quiet", "--resume", "--set", out, "--set", mode]);
    assert!(resumed.contains("cannot resume: model.base is not the checkpoint"), "{resumed}");
}

#[test]
fn bases_and_adapters_that_do_not_fit_are_refused() {
    let project = project();
    let refused = |set: &[&str]| refused(&project, "lora.toml", set);
    assert!(refused(&["model.base=nowhere"]).contains("nowhere"));
    assert!(refused(&["lora.rank=0"]).contains("lora.rank"));
    assert!(refused(&["lora.mode=qat_lora", "lora.dropout=0.1"]).contains("lora_dropout"));
    assert!(refused(&["lora.mode=lota"]).contains("lora.alpha"));
    assert!(refused(&["lora.mode=lota", "lora.alpha=4", "optim.kind=adamw"]).contains("t-sign-sgd"));
    assert!(refused(&["optim.kind=t-sign-sgd"]).contains("must be used together"));
    assert!(refused(&["lora.threshold=0.5"]).contains("lora.threshold"));
    assert!(refused(&["lora.target_modules=[\"q_proj\", \"lm_head\"]"]).contains("lora.target_modules"));
    train(&project, "runs/side", &["train.steps=1"]);
    assert!(refused(&["model.base=runs/side"]).contains("tritforge merge"));

    project.ok(&["export", "runs/tiny", "-o", "base.gguf"]);
    project.ok(&["export", "runs/side", "-o", "adapter.gguf"]);
    let model = project.fails(&["generate", "base.gguf", "-p", "a", "--lora", "base.gguf"]);
    assert!(model.contains("general.type = model"), "{model}");
    let directory = project.fails(&["generate", "base.gguf", "-p", "a", "--lora", "runs/tiny"]);
    assert!(directory.contains("no adapter in it"), "{directory}");
    project.ok(&[
        "train",
        "recipe.toml",
        "--quiet",
        "--set",
        "run.out=runs/wide",
        "--set",
        "model.intermediate_size=512",
        "--set",
        "train.steps=4",
    ]);
    project.ok(&["export", "runs/wide", "-o", "wide.gguf"]);
    let shape = project.fails(&["generate", "wide.gguf", "-p", "a", "--lora", "adapter.gguf"]);
    assert!(shape.contains("lora_b") && shape.contains("512"), "{shape}");
    let merged = project.fails(&["merge", "runs/tiny", "-o", "merged"]);
    assert!(merged.contains("adapter_model.safetensors"), "{merged}");
    assert!(!Path::new(&project.path("merged")).exists());
}

#[test]
fn a_base_is_trained_on_from_where_it_was() {
    let project = project();
    let recipe = recipe().replace("[lora]\nrank = 4\nalpha = 16\n", "");
    fs::write(project.path("on.toml"), recipe).unwrap();
    project.ok(&["train", "on.toml", "--quiet", "--set", "run.out=runs/on", "--set", "optim.lr=1e-3"]);
    let loss = |model: &str| score(&project, model)["loss"].as_f64().unwrap();
    assert!(loss("runs/on") < loss("runs/tiny"));
    let tokenizer = |run: &str| file(&project, &format!("{run}/tokenizer.json"));
    assert_eq!(tokenizer("runs/on/step-000008"), tokenizer("runs/tiny/step-000012"));
}

#[test]
fn served_adapters_write_what_generate_writes_with_them() {
    let project = project();
    train(&project, "runs/side", &[]);
    project.ok(&["export", "runs/tiny", "-o", "base.gguf"]);
    project.ok(&["export", "runs/side", "-o", "adapter.gguf"]);
    let strong = ["--lora", "strong=adapter.gguf:40", "--lora", "weak=adapter.gguf:0.5"];
    let served = Served::start(&project, &[&["base.gguf"], &strong[..]].concat());
    let generate = |lora: &[&str]| {
        let args = ["generate", "base.gguf", "-p", "You may", "-n", "16", "--temperature", "0", "--quiet"];
        project.ok(&[&args[..], lora].concat())
    };
    for (model, lora) in [("strong", "adapter.gguf:40"), ("weak", "adapter.gguf:0.5")] {
        let (text, printed) = (served.text(model), generate(&["--lora", lora]));
        assert!(!text.is_empty() && printed.trim_end().ends_with(text.trim_end()), "{text:?} {printed:?}");
    }
    assert_ne!(served.text("strong"), served.text("weak"));

    let missing = project.fails(&["serve", "base.gguf", "--lora", "a=nowhere.gguf"]);
    assert!(missing.contains("nowhere.gguf"), "{missing}");
    let twice =
        project.fails(&["serve", "base.gguf", "--lora", "a=adapter.gguf", "--lora", "a=adapter.gguf"]);
    assert!(twice.contains("already loaded"), "{twice}");
    let nowhere = project.fails(&["serve", "base.gguf", "--allow-runtime-lora", "nowhere"]);
    assert!(nowhere.contains("not a directory"), "{nowhere}");
}
