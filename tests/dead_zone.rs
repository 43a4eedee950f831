//! The bias that weights with code 0 make, through the binary: trained, resumed, folded into ordinary biases by every export,
//! verified, imported, trained on, or refused.

#[path = "project/on_base.rs"]
mod on_base;
mod project;
#[path = "project/refused.rs"]
mod refused;
#[path = "project/short_run.rs"]
mod short_run;

use std::fs;

use on_base::on_base;
use project::Project;
use refused::refused;
use serde_json::json;
use short_run::{train, verified};

const BIAS: &str = "quant.dead_zone_bias=0.05";

/// What `inspect` says of a model's tensors, as JSON.
fn inspected(project: &Project, model: &str) -> serde_json::Value {
    serde_json::from_str(&project.ok(&["inspect", model, "--json"])).unwrap()
}

/// Whether a model has a bias of this name.
fn has(project: &Project, model: &str, name: &str) -> bool {
    let tensors = inspected(project, model)["tensors"].as_array().unwrap().clone();
    tensors.iter().any(|tensor| tensor["name"] == name)
}

#[test]
fn every_export_has_it_as_an_ordinary_bias() {
    let project = Project::new();
    for (name, set, packing, architecture) in [
        ("plain", &["model.norm=pre"][..], "tq2_0", "llama"),
        ("rows", &["model.norm=pre", "quant.granularity=row", "quant.ste=damp"], "q2_0", "llama"),
        ("groups", &["model.norm=pre", "quant.granularity=128", "quant.sparsity=2:4"], "q2_0", "llama"),
        ("seq", &["model.norm=pre", "quant.scale=seq", "ema.decay=0.9"], "tq1_0", "llama"),
        ("int4", &["quant.activations=int4", "optim.master_dtype=bf16"], "tq2_0", "tritforge"),
        ("late", &["model.norm=pre", "convert.schedule=linear", "convert.steps=4"], "i2_s", "llama"),
    ] {
        let (run, file, imported) = (format!("runs/{name}"), format!("{name}.gguf"), format!("{name}-again"));
        train(&project, &run, &[&[BIAS], set].concat());
        project.ok(&["export", &run, "-o", &file, "--format", packing, "--embeddings", "f32"]);
        verified(&project, &run, &file);
        assert_eq!(inspected(&project, &file)["architecture"], architecture);
        assert!(has(&project, &file, "blk.1.attn_output.bias") && !has(&project, &file, "blk.1.ffn_up.bias"));
        project.ok(&["import", &file, "-o", &imported]);
        verified(&project, &imported, &file);
        // A file does not say what its codes come from; nothing else differs.
        let printed = String::from_utf8(project.run(&["diff", &run, &file, "--json"]).stdout).unwrap();
        let diff: serde_json::Value = serde_json::from_str(&printed).unwrap();
        assert!(diff["config"].as_array().unwrap().iter().all(|key| key["key"] == "quantizer"), "{printed}");
        assert!(diff["tensors"].as_array().unwrap().iter().all(|tensor| tensor["same"] == true), "{printed}");
        assert_eq!((diff["only_first"].clone(), diff["only_second"].clone()), (json!([]), json!([])));
        // The checkpoint says what it is made of.
        assert_eq!(inspected(&project, &run)["config"]["attention_bias"], "none");
        assert!(inspected(&project, &run)["config"]["dead_zone_bias"].as_f64().unwrap() > 0.04);
    }
    // As the latent weights of `transformers` and as numbers.
    project.ok(&["export", "runs/plain", "-o", "hf", "--format", "hf-f32"]);
    verified(&project, "runs/plain", "hf");
    let config = fs::read_to_string(project.path("hf/config.json")).unwrap();
    assert!(config.contains("\"attention_bias\": true") && !config.contains("dead_zone"), "{config}");
    let error = project.fails(&["export", "runs/plain", "-o", "packed", "--format", "hf-packed"]);
    assert!(error.contains("biases of packed linear layers"), "{error}");
    project.ok(&["export", "runs/plain", "-o", "numbers.gguf", "--format", "f32", "--embeddings", "f32"]);
    assert!(has(&project, "numbers.gguf", "blk.0.attn_q.bias"));
    // A bias that is not the folded one is found, by its tensor.
    let bytes = fs::read(project.path("plain.gguf")).unwrap();
    let printed = project.ok(&["inspect", "plain.gguf", "--json"]);
    assert!(printed.contains("blk.0.attn_q.bias"));
    let values = {
        let other = fs::read(project.path("hf/model.safetensors")).unwrap();
        let header = u64::from_le_bytes(other[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&other[8..8 + header]).unwrap();
        let at = &json["model.layers.0.self_attn.v_proj.bias"]["data_offsets"];
        let [from, to] = [0, 1].map(|i| 8 + header + at[i].as_u64().unwrap() as usize);
        other[from..to].to_vec()
    };
    let at = bytes.windows(values.len()).position(|part| part == values).unwrap();
    let mut damaged = bytes;
    damaged[at] ^= 1;
    fs::write(project.path("damaged.gguf"), damaged).unwrap();
    let output = project.run(&["verify", "runs/plain", "damaged.gguf", "--text", "text.txt", "--bound", "1"]);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!output.status.success() && printed.contains("NOT verified"), "{printed}");
    assert!(printed.contains("blk.0.attn_v.weight"), "{printed}");
}

/// A run goes on to the same bits; another begins from it, with its λ unless it says otherwise; a base with biases of its own keeps
/// them apart until the export.
#[test]
fn it_is_resumed_begun_from_and_added_to_a_bases_own() {
    let project = Project::new();
    let set = [BIAS, "model.norm=pre"];
    train(&project, "whole", &set);
    train(&project, "parts", &set);
    fs::remove_dir_all(project.path("parts/step-000006")).unwrap();
    let resume = |set: &[&str]| {
        let set = set.iter().copied().chain(["run.out=parts", "train.steps=6"]);
        let args = ["train", "recipe.toml", "--quiet", "--resume"].into_iter();
        project.run(&args.chain(set.flat_map(|key| ["--set", key])).collect::<Vec<_>>())
    };
    let output = resume(&["model.norm=pre"]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && error.contains("quant.dead_zone_bias"), "{error}");
    assert!(resume(&set).status.success());
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &str| fs::read(project.path(&format!("{run}/step-000006/{file}"))).unwrap();
        assert_eq!(read("whole"), read("parts"), "{file}");
    }
    fs::write(project.path("next.toml"), on_base("next", "1e-3", "")).unwrap();
    let next = |base: &str, out: &str, set: &[&str]| {
        let (base, run) = (format!("model.base={base}"), format!("run.out={out}"));
        let set = [base.as_str(), run.as_str()].into_iter().chain(set.iter().copied());
        let args = ["train", "next.toml", "--quiet"].into_iter();
        project.ok(&args.chain(set.flat_map(|key| ["--set", key])).collect::<Vec<_>>());
        let file = format!("{out}.gguf");
        project.ok(&["export", out, "-o", &file, "--format", "q2_0", "--embeddings", "f32"]);
        verified(&project, out, &file);
        fs::read_to_string(project.path(&format!("{out}/step-000008/recipe.toml"))).unwrap()
    };
    assert!(next("whole", "on", &[]).contains("dead_zone_bias = 0.05"));
    assert!(!next("whole", "without", &["quant.dead_zone_bias=0"]).contains("dead_zone_bias"));
    assert!(!has(&project, "without.gguf", "blk.0.attn_q.bias"));
    // The file has ordinary biases. Its codes take an adapter, and latent weights of its values can be trained.
    project.ok(&["export", "whole", "-o", "whole.gguf", "--embeddings", "f32"]);
    project.ok(&["import", "whole.gguf", "-o", "latent", "--latent"]);
    let recipe = next("latent", "own", &[BIAS]);
    assert!(recipe.contains("dead_zone_bias"));
    let own = inspected(&project, "own");
    assert_eq!(own["config"]["attention_bias"], "all");
    assert!(has(&project, "own.gguf", "blk.1.attn_output.bias"));
    let error = refused(&project, "next.toml", &["model.base=whole", "lora.mode=adapter", "lora.rank=2"]);
    assert!(error.contains("quant.dead_zone_bias = 0.05: contradicts [lora]"), "{error}");
    project.ok(&["import", "whole.gguf", "-o", "codes"]);
    let set = ["model.base=codes", "run.out=adapted", "lora.mode=adapter", "lora.rank=2", "train.steps=2"];
    let args = ["train", "next.toml", "--quiet"].into_iter();
    project.ok(&args.chain(set.into_iter().flat_map(|key| ["--set", key])).collect::<Vec<_>>());
}

#[test]
fn what_cannot_hold_it_is_refused_with_the_reason() {
    let project = Project::new();
    for (set, expected) in [
        (&[][..], "`bitnet` would need attention_bias = \"none\""),
        (&["model.hidden_act=relu2"], "`bitnet-b1.58` would need attention_bias = \"none\""),
        (&["model.norm=pre", "model.use_qk_norm=true"], "`qwen3` would need attention_bias = \"none\""),
        (&["model.norm=pre", "quant.scale=binary"], "quantizer binary has no code 0"),
        (&["model.norm=pre", "quant.scale=dqt"], "quantizer dqt has no latent weights"),
        (&["model.norm=pre", "quant.codes=soft"], "contradicts quant.codes"),
        (&["model.norm=pre", "train.engine=candle"], "whose modules have no such bias"),
        (
            &["model.norm=pre", "quant.weights=none", "quant.activations=none"],
            "the sum is of those with code 0",
        ),
        (&["model.norm=pre", "quant.dead_zone_bias=2"], "quant.dead_zone_bias = 2"),
        (&["model.norm=pre", "quant.dead_zone_bias=-1"], "quant.dead_zone_bias = -1"),
    ] {
        let error = refused(&project, "recipe.toml", &[&[BIAS], set].concat());
        assert!(error.contains("quant.dead_zone_bias") && error.contains(expected), "{set:?}: {error}");
    }
}
