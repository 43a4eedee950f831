//! Ternary embeddings and heads through the binary: trained, exported, verified, imported, compared, run.

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
use short_run::verified;

/// Trains a few steps with these keys.
fn train(project: &Project, out: &str, set: &[&str]) {
    short_run::train(project, out, &[&["train.save_every=3"], set].concat());
}

const UNTIED: &str = "model.tie_word_embeddings=false";
/// `llama`, the architecture of models with a head of their own.
const LLAMA: &str = "model.use_sub_norm=false";

/// What holds which granularity, as the file is written and as it is imported again.
#[test]
fn every_packing_holds_a_ternary_embedding_and_head() {
    let project = Project::new();
    for (name, set, tensors, packings) in [
        (
            "tensor",
            &["quant.embedding=tensor", "quant.head=tensor", UNTIED, LLAMA][..],
            16,
            &["i2_s", "i2_s_arm", "iq2_bn"][..],
        ),
        (
            "row",
            &["quant.embedding=row"],
            15,
            &["tq2_0", "tq1_0", "q2_0", "q2_0_g128", "pq2_0", "ptq1_0", "iq2_bn", "iq1_bn"],
        ),
        ("256", &["quant.embedding=256", "quant.head=row", UNTIED, LLAMA], 16, &["tq2_0", "tq1_0"]),
        (
            "128",
            &["quant.granularity=128", "quant.embedding=128"],
            15,
            &["q2_0", "q2_0_g128", "pq2_0", "ptq1_0"],
        ),
        ("64", &["quant.granularity=128", "quant.head=64", UNTIED, LLAMA], 15, &["q2_0"]),
        ("embedding", &["quant.granularity=row", "quant.embedding=128", UNTIED, LLAMA], 15, &["ptq1_0"]),
    ] {
        let run = format!("runs/{name}");
        train(&project, &run, set);
        for packing in packings {
            let file = format!("{name}-{packing}.gguf");
            let printed =
                project.ok(&["export", &run, "-o", &file, "--format", packing, "--embeddings", "f32"]);
            assert!(printed.contains(&format!("{tensors} ternary tensors")), "{printed}");
            verified(&project, &run, &file);
            let checkpoint = format!("{name}-{packing}");
            project.ok(&["import", &file, "-o", &checkpoint]);
            verified(&project, &checkpoint, &file);
            let printed = project.ok(&["diff", &run, &file]);
            assert!(printed.contains("same") || printed.contains("identical"), "{printed}");
            // And once more from what was imported, in the packing that is chosen for it.
            let again = format!("{name}-{packing}-again.gguf");
            project.ok(&["export", &checkpoint, "-o", &again, "--embeddings", "f32"]);
            verified(&project, &run, &again);
            let printed = project.ok(&["inspect", &file]);
            assert!(!printed.contains("not finite"), "{printed}");
            project.ok(&[
                "generate",
                &file,
                "--prompt",
                "You may ",
                "--max-tokens",
                "4",
                "--temperature",
                "0",
            ]);
        }
    }
}

/// An interrupted run, a quantization that sets in late, few bits in the backward, estimators, adapters.
#[test]
fn tables_train_in_every_way_that_projections_do() {
    let project = Project::new();
    for (name, set) in [
        (
            "blend",
            &["quant.embedding=row", "convert.schedule=linear", "convert.start=2", "convert.steps=3"][..],
        ),
        (
            "layers",
            &[
                "quant.embedding=128",
                "quant.head=row",
                UNTIED,
                LLAMA,
                "convert.schedule=linear",
                "convert.steps=4",
            ],
        ),
        ("int8", &["quant.embedding=64", "quant.backward=int8", "quant.granularity=64"]),
        ("ste", &["quant.head=row", UNTIED, LLAMA, "quant.ste=clip", "quant.scale=twn"]),
        ("checkpointing", &["quant.embedding=row", "train.gradient_checkpointing=true"]),
    ] {
        let run = format!("runs/{name}");
        train(&project, &run, set);
        let file = format!("{name}.gguf");
        project.ok(&["export", &run, "-o", &file, "--embeddings", "f32"]);
        verified(&project, &run, &file);
    }
    // What a run begins from is what it goes on with.
    train(&project, "runs/base", &["quant.embedding=row", "quant.granularity=128"]);
    let recipe = fs::read_to_string(project.path("runs/base/step-000006/recipe.toml")).unwrap();
    assert!(recipe.contains("embedding = \"row\""), "{recipe}");
    fs::write(project.path("adapter.toml"), on_base("adapted", "1e-2", "[lora]\nrank = 4\n")).unwrap();
    for mode in ["adapter", "qat_lora"] {
        let out = format!("runs/{mode}");
        let set = ["model.base=runs/base".to_string(), format!("run.out={out}"), format!("lora.mode={mode}")];
        let set = set.iter().flat_map(|key| ["--set", key.as_str()]);
        let args: Vec<&str> = ["train", "adapter.toml", "--quiet"].into_iter().chain(set).collect();
        project.ok(&args);
        if mode == "qat_lora" {
            project.ok(&["merge", &out, "-o", "runs/merged"]);
            project.ok(&["export", "runs/merged", "-o", "merged.gguf", "--embeddings", "f32"]);
            verified(&project, "runs/merged", "merged.gguf");
        } else {
            project.ok(&["eval", &out, "--text", "text.txt"]);
        }
    }
}

#[test]
fn what_has_no_room_or_no_meaning_is_refused() {
    let project = Project::new();
    for (set, expected) in [
        (&["quant.head=row"][..], "quant.head contradicts model.tie_word_embeddings = true"),
        (&["quant.embedding=32"], "quant.embedding = 32: no packing has room for them"),
        (&["quant.embedding=48"], "\"row\""),
        (&["quant.embedding=128", "export.format=tq2_0"], "no room for quant.embedding = 128"),
        (&["quant.embedding=tensor", "export.format=tq2_0"], "these packings have: I2_S, I2_S_ARM, IQ2_BN"),
        (&["quant.embedding=row", "export.format=i2_s"], "no room for quant.embedding = row"),
        (
            &["quant.granularity=128", "quant.embedding=tensor"],
            "no packing has room for all scales of the model",
        ),
        (&["quant.embedding=row", "train.engine=candle"], "contradicts train.engine = \"candle\""),
        (
            &["quant.weights=none", "quant.activations=none", "quant.embedding=row"],
            "quant.embedding: expected quant.weights = \"absmean\"",
        ),
        (&["quant.embedding=256", "model.hidden_size=128"], "quant.embedding = 256: a group of 256 weights"),
    ] {
        let error = refused(&project, "recipe.toml", set);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    train(&project, "runs/row", &["quant.embedding=row"]);
    let error = project.fails(&["export", "runs/row", "-o", "refused.gguf", "--format", "i2_s"]);
    assert!(error.contains("model.embed_tokens.weight") && error.contains("IQ2_BN"), "{error}");
    let error = project.fails(&["export", "runs/row", "-o", "refused", "--format", "hf-packed"]);
    assert!(error.contains("a ternary embedding"), "{error}");
    assert!(!project.path("refused.gguf").exists());
    // A full-precision embedding against a ternary one.
    project.ok(&["export", "runs/row", "-o", "row.gguf"]);
    project.ok(&["export", "runs/row", "-o", "numbers.gguf", "--format", "f32", "--embeddings", "f32"]);
    let error = project.fails(&["verify", "runs/row", "numbers.gguf"]);
    assert!(error.contains("activations") || error.contains("only one of the models"), "{error}");
    // Its numbers are those of the ternary one, and it can be imported.
    let printed = project.ok(&["import", "numbers.gguf", "-o", "numbers"]);
    assert!(!printed.contains("ternary tensors"), "{printed}");
    let printed = project.run(&["diff", "row.gguf", "numbers.gguf", "--json"]).stdout;
    let report: serde_json::Value = serde_json::from_slice(&printed).unwrap();
    for tensor in report["tensors"].as_array().unwrap() {
        assert_eq!(
            (&tensor["compared"], tensor["different"].as_u64()),
            (&"numbers".into(), Some(0)),
            "{tensor}"
        );
    }
}

const BONSAI: &str = r#"
vocab_size = 288
hidden_size = 256
intermediate_size = 384
num_hidden_layers = 2
num_attention_heads = 4
num_key_value_heads = 2
head_dim = 128
max_position_embeddings = 64
hidden_act = "silu"
rms_norm_eps = 1e-6
rope_theta = 1000000.0
use_sub_norm = false
use_qk_norm = true
"#;

/// A model of the kind of Ternary Bonsai: `qwen3`, all matrices ternary with scales of groups of 128.
#[test]
fn a_synthetic_bonsai_has_the_bytes_of_its_format_and_runs() {
    let project = Project::new();
    fs::write(project.path("bonsai.toml"), BONSAI).unwrap();
    let ternary = ["--granularity", "128", "--ternary-embedding", "128"];
    let synth = |output: &str, more: &[&str]| {
        let args = ["synth", "bonsai.toml", "-o", output].into_iter().chain(ternary);
        let args: Vec<&str> = args.chain(more.iter().copied()).collect();
        project.ok(&args)
    };
    synth("checkpoint", &["--checkpoint"]);
    for (format, bytes) in [("pq2_0", 34), ("q2_0_g128", 34), ("ptq1_0", 28)] {
        let file = format!("{format}.gguf");
        let printed = synth(&file, &["--format", format]);
        assert!(printed.contains("qwen3") && printed.contains("15 ternary tensors"), "{printed}");
        let json = project.ok(&["inspect", &file, "--json"]);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let tensors = json["tensors"].as_array().unwrap();
        let embedding = tensors.iter().find(|t| t["name"] == "token_embd.weight").unwrap();
        assert_eq!(embedding["bytes"], 288 * 256 / 128 * bytes, "{embedding}");
        assert!(!tensors.iter().any(|t| t["name"] == "output.weight"));
        verified(&project, "checkpoint", &file);
        project.ok(&["import", &file, "-o", format]);
        verified(&project, format, &file);
        project.ok(&["generate", &file, "--prompt", "You may ", "--max-tokens", "8", "--temperature", "0"]);
        let printed = project.ok(&["bench", &file, "-p", "16", "-n", "4", "-r", "1"]);
        assert!(printed.contains("tg4"), "{printed}");
    }
    let error = project.fails(&["synth", "bonsai.toml", "-o", "no.gguf", "--ternary-head", "128"]);
    assert!(error.contains("set ternary_embedding"), "{error}");
}
