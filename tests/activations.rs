//! Gates and quantizations of activations that no architecture of other programs has, through the binary: trained, resumed,
//! exported, verified, imported, generated with, or refused.

mod project;
#[path = "project/refused.rs"]
mod refused;
#[path = "project/short_run.rs"]
mod short_run;

use std::fs;

use project::Project;
use refused::refused;
use short_run::verified;

/// Trains a few steps.
fn train(project: &Project, out: &str, set: &[&str]) {
    short_run::train(project, out, &[&["model.intermediate_size=512"], set].concat());
}

fn generated(project: &Project, model: &str) -> String {
    project.ok(&["generate", model, "--prompt", "You may ", "--max-tokens", "12", "--temperature", "0"])
}

#[test]
fn files_of_our_own_architecture_compute_what_was_trained() {
    let project = Project::new();
    for (name, set, packings) in [
        ("relu", &["model.hidden_act=relu"][..], &["tq2_0", "i2_s"][..]),
        ("gelu", &["model.hidden_act=gelu", "model.norm=pre"], &["tq2_0"]),
        ("tanh", &["model.hidden_act=gelu_pytorch_tanh", "quant.granularity=row"], &["q2_0"]),
        ("int4", &["quant.activations=int4"], &["tq2_0", "tq1_0", "iq2_bn"]),
        ("normed", &["model.norm=projection", "train.gradient_checkpointing=true"], &["tq2_0", "i2_s"]),
        (
            "normed-int4",
            &[
                "model.norm=projection",
                "quant.activations=int4",
                "model.use_qk_norm=true",
                "quant.backward=int24",
            ],
            &["tq2_0"],
        ),
        ("int4-groups", &["quant.activations=int4", "quant.granularity=64", "model.norm=pre"], &["q2_0"]),
        ("rotated", &["quant.activations=int4", "quant.rotation=hadamard"], &["tq2_0"]),
        ("top-k", &["quant.activation_top_k=0.5", "model.norm=pre"], &["tq2_0", "iq2_bn"]),
        (
            "top-k-rotated-int4",
            &["quant.activation_top_k=0.75", "quant.activations=int4", "quant.rotation=hadamard"],
            &["tq2_0"],
        ),
        (
            "rotated-int8",
            &["quant.rotation=hadamard", "quant.backward=int24", "model.norm=pre"],
            &["tq2_0", "q2_0"],
        ),
    ] {
        let run = format!("runs/{name}");
        train(&project, &run, set);
        for packing in packings {
            let file = format!("{name}-{packing}.gguf");
            project.ok(&["export", &run, "-o", &file, "--format", packing, "--embeddings", "f32"]);
            verified(&project, &run, &file);
            let imported = format!("{name}-{packing}");
            project.ok(&["import", &file, "-o", &imported]);
            verified(&project, &imported, &file);
            let printed = project.ok(&["inspect", &file]);
            assert!(printed.contains("no architecture tritforge"), "{printed}");
        }
        // The text of a few tokens, alone and one token at a time, is that of any packing.
        let texts = packings.iter().map(|packing| generated(&project, &format!("{name}-{packing}.gguf")));
        let texts: Vec<String> = texts.collect();
        assert!(!texts[0].is_empty() && texts.iter().all(|text| *text == texts[0]), "{texts:?}");
        let resolved = fs::read_to_string(project.path(&format!("{run}/step-000006/recipe.toml"))).unwrap();
        for key in set.iter().filter(|key| {
            !key.contains("norm=") && !key.starts_with("train.") && !key.contains("granularity")
        }) {
            let (key, value) = key.split_once('=').unwrap();
            let quote = if key.contains("top_k") { "" } else { "\"" };
            let line = format!("{} = {quote}{value}{quote}", key.split_once('.').unwrap().1);
            assert!(resolved.contains(&line), "{line}: {resolved}");
        }
    }
    // The rotation changes what is computed, and so do 4 bits and the part that is kept.
    let mut texts = ["int4", "rotated", "rotated-int8", "top-k", "top-k-rotated-int4"].map(|run| {
        let printed =
            project.ok(&["eval", &format!("runs/{run}"), "--text", "text.txt", "--tokens", "200", "--json"]);
        serde_json::from_str::<serde_json::Value>(&printed).unwrap()["loss"].to_string()
    });
    texts.sort();
    assert!(texts.windows(2).all(|pair| pair[0] != pair[1]), "{texts:?}");
}

/// The weights of a base are folded with a rotation that it did not have, so that what it computes stays.
#[test]
fn a_base_without_the_rotation_is_folded_with_it() {
    let project = Project::new();
    let plain = ["quant.weights=none", "quant.activations=none"];
    train(&project, "base", &plain);
    let recipe = fs::read_to_string(project.path("recipe.toml")).unwrap();
    let (model, rest) = (recipe.find("[model]").unwrap(), recipe.find("[data]").unwrap());
    let text = format!("{}[model]\nbase = \"base\"\n{}", &recipe[..model], &recipe[rest..]);
    fs::write(project.path("next.toml"), text).unwrap();
    let next = |out: &str, base: &str, rotation: &str| {
        let out = format!("run.out={out}");
        let (base, rotation) = (format!("model.base={base}"), format!("quant.rotation={rotation}"));
        // A step that moves nothing to speak of.
        let set = [out.as_str(), &base, &rotation, "train.steps=1", "optim.lr=1e-12", "optim.warmup_steps=0"];
        let set = set.into_iter().chain(plain).flat_map(|key| ["--set", key]);
        project.ok(&["train", "next.toml", "--quiet"].into_iter().chain(set).collect::<Vec<_>>());
    };
    next("rotated", "base", "hadamard");
    next("back", "rotated", "none");
    let loss = |run: &str| {
        let printed = project.ok(&["eval", run, "--text", "text.txt", "--tokens", "300", "--json"]);
        serde_json::from_str::<serde_json::Value>(&printed).unwrap()["loss"].as_f64().unwrap()
    };
    let [base, rotated, back] = ["base", "rotated", "back"].map(loss);
    assert!((base - rotated).abs() < 1e-5 && (base - back).abs() < 1e-5, "{base} {rotated} {back}");
}

#[test]
fn what_others_would_compute_otherwise_is_refused() {
    let project = Project::new();
    let refused = |set: &[&str]| refused(&project, "recipe.toml", set);
    for (set, expected) in [
        (&["quant.activations=int4", "train.engine=candle"][..], "which candle's tape computes"),
        (&["quant.rotation=hadamard", "train.engine=candle"], "which candle's tape computes"),
        (&["quant.activations=int5"], "\"int4\""),
        (&["quant.rotation=hadamrd"], "did you mean \"hadamard\"?"),
        (&["model.hidden_act=gelu_tanh"], "\"gelu_pytorch_tanh\""),
        (&["model.norm=post"], "\"pre\" or \"sub\" or \"projection\""),
        (&["model.norm=projection", "model.use_sub_norm=false"], "contradicts model.use_sub_norm = false"),
        (&["model.norm=projection", "train.engine=candle"], "which candle's tape computes"),
    ] {
        let error = refused(set);
        assert!(error.contains(expected), "{set:?}: {error}");
    }
    train(&project, "runs/int4", &["quant.activations=int4"]);
    let error = project.fails(&["export", "runs/int4", "-o", "hf", "--format", "hf-f32"]);
    assert!(error.contains("activations int4") && error.contains("export GGUF"), "{error}");
    assert!(!project.path("hf").exists());
    train(&project, "runs/normed", &["model.norm=projection"]);
    let error = project.fails(&["export", "runs/normed", "-o", "hf", "--format", "hf-f32"]);
    assert!(error.contains("no class has a norm before each projection"), "{error}");
    // transformers has the gates: a directory in its layout is one of its models.
    train(&project, "runs/gelu", &["model.hidden_act=gelu", "model.norm=pre"]);
    project.ok(&["export", "runs/gelu", "-o", "hf-gelu", "--format", "hf-f32"]);
    let config = fs::read_to_string(project.path("hf-gelu/config.json")).unwrap();
    assert!(config.contains("\"hidden_act\": \"gelu\""), "{config}");
    verified(&project, "runs/gelu", "hf-gelu");
}

/// A scale of all tokens is none that a decoder could have: refused by name.
#[test]
fn one_scale_for_all_tokens_is_refused_with_the_reason() {
    let project = Project::new();
    for name in ["tensor", "int8_tensor", "per_tensor", "sequence"] {
        let error = refused(&project, "recipe.toml", &[&format!("quant.activations={name}")]);
        let expected = format!(
            "quant.activations = {name}: one scale for all tokens of a sequence or a batch cannot be deployed"
        );
        assert!(error.replace('"', "").contains(&expected), "{error}");
        assert!(error.contains("one token at a time") && error.contains("a scale a token"), "{error}");
    }
    // A name that means nothing is told what there is.
    let error = refused(&project, "recipe.toml", &["quant.activations=int5"]);
    assert!(error.contains("\"int4\"") && !error.contains("cannot be deployed"), "{error}");
}
