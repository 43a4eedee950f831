//! Recipes that are right; what is said about those that are wrong is in `faults`, what editors and readers
//! are told in `schema`.

mod base;
mod faults;
mod schema;

use std::fs;
use std::path::{Path, PathBuf};

use tritforge_config::{ActivationQuant, HiddenAct, WeightQuant};
use tritforge_data::Packing as DataPacking;
use tritforge_kernels::DenseType;
use tritforge_model::GradPrecision;
use tritforge_ternary::Packing;

use super::{
    DataSource, Dpo, DpoLoss, Ema, Loss, Objective, OnFault, Origin, Orpo, Recipe, RecipeError, SftLoss,
    Simpo, SplitKind, TokenizerKind, json_schema, upgrade,
};
use base::base_of_the_default_shape;

use super::ParamGroup;

use crate::optimizer::{AdamW, Lion, Muon, Rule, StoredType};
use crate::schedule::{Cosine, Schedule, Wsd};

const MINIMAL: &str = r#"[model]
hidden_size = 256
intermediate_size = 768
num_hidden_layers = 2
num_attention_heads = 4

[data]
train = ["corpus.txt"]

[train]
steps = 1000
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Recipe, RecipeError> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    Recipe::from_toml(Path::new("dir/r.toml"), text, &overrides)
}

/// The messages about a recipe that is wrong.
fn faults(text: &str, overrides: &[&str]) -> Vec<String> {
    match parse(text, overrides) {
        Err(RecipeError::Invalid(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("expected faults, found {other:?}"),
    }
}

/// The one message about a minimal recipe with an override.
fn fault(overrides: &[&str]) -> String {
    let faults = faults(MINIMAL, overrides);
    assert_eq!(faults.len(), 1, "{faults:?}");
    faults[0].clone()
}

#[test]
fn defaults_are_filled_in() {
    let r = parse(MINIMAL, &[]).unwrap();
    assert_eq!((r.run.name.as_str(), r.run.out.as_path(), r.run.seed), ("r", Path::new("runs/r"), 0));
    assert_eq!(
        (r.model.num_key_value_heads, r.model.head_dim, r.model.max_position_embeddings),
        (4, 64, 256)
    );
    assert_eq!((r.quant.weights, r.quant.activations), (WeightQuant::Absmean, ActivationQuant::Absmax));
    assert_eq!((r.tokenizer.kind, r.tokenizer.vocab_size), (TokenizerKind::Bpe, 4096));
    assert_eq!((r.data.source, r.data.train.clone()), (DataSource::Files, vec![PathBuf::from("corpus.txt")]));
    assert_eq!((r.data.held_out, r.data.split, r.data.seq_len), (0.1, SplitKind::Contiguous, 256));
    assert_eq!((r.optim.warmup_steps, r.optim.schedule), (50, Schedule::Cosine(Cosine)));
    assert_eq!((r.train.eval_every, r.train.save_every, r.train.eval_tokens), (100, 100, None));
    assert_eq!((r.export.format, r.export.embeddings), (Packing::Tq2_0, DenseType::F16));
    let config = r.model_config(4000).unwrap();
    assert_eq!((config.vocab_size, config.rms_norm_eps, config.rope_theta), (4000, 1e-5, 1e4));
}

#[test]
fn every_key_is_read() {
    let text = r#"
        version = 1
        [run]
        name = "n"
        out = "o/p"
        seed = 7
        [model]
        vocab_size = 300
        hidden_size = 128
        intermediate_size = 384
        num_hidden_layers = 3
        num_attention_heads = 4
        num_key_value_heads = 2
        head_dim = 32
        hidden_act = "relu2"
        max_position_embeddings = 99
        rms_norm_eps = 1e-6
        rope_theta = 5e5
        tie_word_embeddings = false
        use_sub_norm = false
        use_qk_norm = true
        initializer_range = 0.01
        [quant]
        weights = "absmean"
        scale = "twn"
        ste = "clip"
        activations = "none"
        embedding = "tensor"
        head = "tensor"
        rotation = "hadamard"
        [tokenizer]
        kind = "bpe"
        vocab_size = 300
        [data]
        source = "rust-sources"
        held_out = 0.2
        split = "document"
        seq_len = 64
        [optim]
        kind = "adamw"
        lr = 1
        betas = [0.8, 0.99]
        eps = 1e-7
        weight_decay = 0
        grad_clip = 0.0
        warmup_steps = 5
        schedule = "wsd"
        min_lr_ratio = 0.5
        decay_steps = 20
        weight_decay_until = 0.75
        state_dtype = "bf16"
        master_dtype = "bf16"
        [[optim.groups]]
        pattern = "norm"
        lr = 0.01
        weight_decay = 0.25
        [[optim.groups]]
        pattern = 'layers\.[01]\.'
        freeze = true
        [train]
        steps = 50
        batch_size = 3
        gradient_accumulation = 2
        gradient_checkpointing = true
        engine = "fused"
        eval_every = 11
        eval_tokens = 1_000
        save_every = 12
        keep_last = 4
        keep_best = true
        patience = 5
        min_delta = 0.01
        on_nonfinite = "skip"
        spike_threshold = 10
        on_spike = "stop"
        log_every = 1
        [ema]
        decay = 0.99
        deploy = false
        [sample]
        prompt = "x"
        tokens = 9
        temperature = 0.0
        top_k = 3
        top_p = 0.5
        [export]
        format = "i2_s"
        embeddings = "q8_0"
    "#;
    let r = parse(text, &[]).unwrap();
    let c = r.model_config(300).unwrap();
    assert_eq!((c.hidden_act, c.rope_theta, c.use_sub_norm), (HiddenAct::Relu2, 5e5, false));
    assert_eq!((c.activations, c.use_qk_norm), (ActivationQuant::None, true));
    assert_eq!(c.rotation, tritforge_config::Rotation::Hadamard);
    assert_eq!((c.quantizer.name(), r.quant.ste.name()), ("twn", "clip"));
    assert_eq!((r.optim.lr, r.optim.grad_clip, r.optim.weight_decay_until), (1.0, 0.0, 0.75));
    assert_eq!(r.optim.rule, Rule::AdamW(AdamW { betas: (0.8, 0.99), eps: 1e-7 }));
    assert_eq!((r.optim.schedule, r.train.eval_tokens), (Schedule::Wsd(Wsd { decay_steps: 20 }), Some(1000)));
    assert_eq!((r.optim.state_dtype, r.optim.master_dtype), (StoredType::Bf16, StoredType::Bf16));
    assert!(r.train.gradient_checkpointing && !parse(MINIMAL, &[]).unwrap().train.gradient_checkpointing);
    assert_eq!((r.train.keep_best, r.train.patience, r.train.min_delta), (true, Some(5), 0.01));
    assert_eq!((r.train.on_nonfinite, r.train.on_spike), (OnFault::Skip, Some(OnFault::Stop)));
    assert_eq!(r.train.spike_threshold, Some(10.0));
    let groups = [("norm", Some(0.01), Some(0.25), false), (r"layers\.[01]\.", None, None, true)];
    let groups = groups.map(|(pattern, lr, weight_decay, freeze)| {
        let pattern = pattern.to_string();
        ParamGroup { pattern, lr, weight_decay, freeze }
    });
    assert_eq!(r.optim.groups, groups);
    assert_eq!(r.ema, Some(Ema { decay: 0.99, deploy: false }));
    assert_eq!((r.export.format, r.export.embeddings), (Packing::I2S, DenseType::Q8_0));
    // What is written reads back to the same recipe, and has every key of this one.
    let written = r.to_toml().unwrap();
    assert_eq!(parse(&written, &[]).unwrap(), r);
    let keys = |text: &str| {
        let mut keys: Vec<String> =
            text.lines().filter_map(|l| Some(l.split_once('=')?.0.trim().to_string())).collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&written), keys(text));
    assert!(
        written.contains("rms_norm_eps = 1e-6") || written.contains("rms_norm_eps = 0.000001"),
        "{written}"
    );
}

#[test]
fn a_resolved_recipe_reads_back() {
    for overrides in [
        &[][..],
        &["optim.schedule=wsd"],
        &["optim.schedule=two-stage", "optim.kind=muon", "ema.decay=0.999"],
        &["optim.kind=lion", "train.spike_threshold=8", "train.patience=3"],
        &["tokenizer.kind=characters", "quant.weights=none"],
        &["quant.backward=int8", "data.packing=masked"],
        &["quant.embedding=row", "quant.granularity=64"],
        &["quant.embedding=256", "quant.head=row", "model.tie_word_embeddings=false"],
        &["tokenizer.kind=file", "tokenizer.path=tokenizer.json"],
        &["data.source=rust-sources", "model.hidden_act=relu2", "export.format=tq1_0"],
        &["distill.teacher=t", "distill.engine=candle"],
        &[
            "distill.teacher=t",
            "distill.relation_weight=1e5",
            "distill.relation_layer=0",
            "distill.relation_v=0",
        ],
    ] {
        let recipe = parse(MINIMAL, overrides).unwrap();
        assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe, "{overrides:?}");
    }
}

#[test]
fn norms_have_a_name_too() {
    let sub_norm = |text: &str, set: &[&str]| parse(text, set).unwrap().model.use_sub_norm;
    assert!(sub_norm(MINIMAL, &["model.norm=sub"]) && !sub_norm(MINIMAL, &["model.norm=pre"]));
    assert!(!sub_norm(MINIMAL, &["model.norm=pre", "model.use_sub_norm=false"]));
    let all = parse(MINIMAL, &["model.norm=projection"]).unwrap();
    assert!(all.model.projection_norms && all.model.use_sub_norm);
    let written = all.to_toml().unwrap();
    assert!(written.contains("norm = \"projection\""), "{written}");
    assert_eq!(parse(&written, &[]).unwrap(), all);
    let error = parse(MINIMAL, &["model.norm=pre", "model.use_sub_norm=true"]).unwrap_err().to_string();
    assert!(error.contains("model.norm = \"pre\" contradicts model.use_sub_norm = true"), "{error}");
    // A shape's file says one thing, the recipe another: the recipe goes before.
    let dir = tempfile::tempdir().unwrap();
    let shape = dir.path().join("shape.toml");
    let keys = "hidden_size = 256\nintermediate_size = 768\nnum_hidden_layers = 2\nnum_attention_heads = 4\n";
    fs::write(&shape, format!("{keys}use_sub_norm = true\n")).unwrap();
    let text = format!(
        "[model]\nconfig = '{}'\nnorm = \"pre\"\n[data]\ntrain = \"a.txt\"\n[train]\nsteps = 9\n",
        shape.display()
    );
    assert!(!sub_norm(&text, &[]));
    assert!(sub_norm(&text.replace("norm = \"pre\"\n", ""), &[]));
}

#[test]
fn overrides_go_before_the_file_and_the_last_wins() {
    let r =
        parse(MINIMAL, &["optim.lr=2e-3", "optim.lr = 5e-4", "run.name=7", "quant.weights=none"]).unwrap();
    assert_eq!((r.optim.lr, r.run.name.as_str(), r.quant.weights), (5e-4, "7", WeightQuant::None));
    // Naming files withdraws the file's other source, and the other way round.
    let rust = MINIMAL.replace("train = [\"corpus.txt\"]", "source = \"rust-sources\"");
    let r = parse(&rust, &["data.train=a.txt"]).unwrap();
    assert_eq!((r.data.source, r.data.train), (DataSource::Files, vec![PathBuf::from("a.txt")]));
    let r = parse(&rust, &["data.train=[\"a.txt\"]", "data.source=files"]).unwrap();
    assert_eq!((r.data.source, r.data.train), (DataSource::Files, vec![PathBuf::from("a.txt")]));
    let r = parse(MINIMAL, &["data.source=rust-sources"]).unwrap();
    assert_eq!((r.data.source, r.data.train), (DataSource::RustSources, vec![]));
}

#[test]
fn examples_have_defaults_of_their_own() {
    let r = parse(MINIMAL, &["data.records=alpaca"]).unwrap();
    assert_eq!((r.data.split, r.data.packing), (SplitKind::Document, tritforge_data::Packing::Masked));
    let samples = &r.data.samples;
    assert_eq!((samples.loss, samples.truncation), (Loss::Completions, tritforge_data::Truncation::Error));
    assert_eq!(samples.on_bad_sample, tritforge_data::OnBadSample::Error);
    let overrides = [
        "data.records=auto",
        "data.template=llama3",
        "data.loss=all",
        "data.truncation=left",
        "data.on_bad_sample=skip",
        "data.max_samples=9",
        "data.keep_empty=true",
        "data.drop_duplicates=true",
        "data.columns={input=\"question\", output=\"reply\"}",
        "data.columns.output=answer",
        "data.packing=documents",
        "data.split=contiguous",
    ];
    let r = parse(MINIMAL, &overrides).unwrap();
    assert_eq!(
        ["input", "output", "text"].map(|name| r.data.samples.columns.name(name)),
        ["question", "answer", "text"]
    );
    let written = r.to_toml().unwrap();
    assert_eq!(parse(&written, &[]).unwrap(), r, "{written}");
    // Without any of them, a recipe does not speak of them.
    let written = parse(MINIMAL, &[]).unwrap().to_toml().unwrap();
    assert!(!written.contains("records") && !written.contains("truncation"), "{written}");
}

#[test]
fn the_recipes_and_shapes_of_the_repository_are_right() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = |dir: &str| {
        let entries = fs::read_dir(root.join(dir)).unwrap().map(|e| e.unwrap().path());
        entries.filter(|p| p.extension().is_some_and(|e| e == "toml")).collect::<Vec<_>>()
    };
    let recipes = files("recipes");
    assert!(recipes.len() >= 2);
    let base = tempfile::tempdir().unwrap();
    let overrides = base_of_the_default_shape(base.path());
    for path in recipes {
        // A recipe that goes on from a base needs one to be there.
        let based = fs::read_to_string(&path).unwrap().contains("\nbase = ");
        let overrides = if based { &overrides[..] } else { &[] };
        let recipe = Recipe::load(&path, overrides).unwrap_or_else(|e| panic!("{e}"));
        recipe.model_config(recipe.expected_vocab_size()).unwrap();
    }
    let text = &MINIMAL[MINIMAL.find("[data]").unwrap()..];
    let shapes = files("configs");
    assert!(shapes.len() >= 8);
    for path in shapes {
        let recipe =
            parse(text, &[&format!("model.config={}", path.display())]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(recipe.export.format, Packing::Tq2_0, "{}", path.display());
    }
}

#[test]
fn the_optimizers_have_defaults_of_their_own() {
    let optim = |kind| parse(MINIMAL, &[kind]).unwrap().optim;
    let lion = optim("optim.kind=lion");
    assert_eq!((lion.lr, lion.rule, lion.weight_decay), (1e-4, Rule::Lion(Lion { betas: (0.9, 0.99) }), 1.0));
    let muon = optim("optim.kind=muon");
    let adamw = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
    assert_eq!((muon.lr, muon.rule), (1e-3, Rule::Muon(Muon { adamw, momentum: 0.95 })));
    let o = parse(MINIMAL, &["optim.schedule=two-stage", "optim.lr=1.5e-3"]).unwrap().optim;
    let Schedule::TwoStage(stages) = o.schedule else { panic!("{:?}", o.schedule) };
    assert!((stages.stage2_lr - 1e-3).abs() < 1e-12);
    assert_eq!((stages.stage2_at, o.weight_decay_until), (0.5, 0.5));
}

/// The minimal recipe with its text from two sources.
fn sources() -> String {
    let data = r#"packing = "documents"
shard_tokens = 1000

[[data.sources]]
path = "hf://datasets/o/n/a.parquet@v1"
weight = 3
column = "body"

[[data.sources]]
path = "b.txt"
format = "text"
weight = 0.5
"#;
    MINIMAL.replace("train = [\"corpus.txt\"]\n", data)
}

#[test]
fn sources_are_read_and_written_back() {
    let r = parse(&sources(), &[]).unwrap();
    let [a, b] = r.data.sources.as_slice() else { panic!("{:?}", r.data.sources) };
    assert_eq!((a.path.as_path(), a.weight), (Path::new("hf://datasets/o/n/a.parquet@v1"), Some(3.0)));
    assert_eq!((a.column.as_str(), a.format), ("body", tritforge_data::Format::Auto));
    assert_eq!((b.column.as_str(), b.format, b.weight), ("text", tritforge_data::Format::Text, Some(0.5)));
    assert_eq!((r.data.packing, r.data.shard_tokens), (tritforge_data::Packing::Documents, 1000));
    assert_eq!(parse(&r.to_toml().unwrap(), &[]).unwrap(), r);
    // An override says where the text comes from, whole.
    let r = parse(&sources(), &["data.train=c.txt"]).unwrap();
    assert_eq!((r.data.train.len(), r.data.sources.len()), (1, 0));
}

#[test]
fn what_an_upgrade_changes_is_read_afterwards() {
    let text = "[model]\nhidden_size = 256\nintermediate_size = 768\nnum_hidden_layers = 2\n\
                num_attention_heads = 4\n[quant]\nbackward = \"exact\"\n[data]\ntrain = \"a.txt\"\n[train]\nsteps = 3\n";
    let read = |text: &str| Recipe::from_toml(Path::new("r.toml"), text, &[]);
    let message = read(text).unwrap_err().to_string();
    assert!(
        message.contains("it is \"f32\" now: `tritforge recipes upgrade` rewrites the file"),
        "{message}"
    );
    let upgraded = upgrade(Path::new("r.toml"), text).unwrap().text;
    assert_eq!(read(&upgraded).unwrap().quant.backward, GradPrecision::F32);
}
