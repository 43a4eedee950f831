//! Recipes that are right, and what is said about those that are wrong.

use std::fs;
use std::path::{Path, PathBuf};

use tritforge_config::{ActivationQuant, HiddenAct, WeightQuant};
use tritforge_data::Packing as DataPacking;
use tritforge_kernels::DenseType;
use tritforge_nn::Backward;
use tritforge_ternary::Packing;

use super::{
    DataSource, Dpo, Ema, Loss, OnFault, Origin, Recipe, RecipeError, Schedule, SftLoss, SplitKind,
    TokenizerKind, json_schema, markdown,
};
use crate::optimizer::StoredType;

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
    assert_eq!((r.optim.warmup_steps, r.optim.schedule, r.optim.decay_steps), (50, Schedule::Cosine, 0));
    assert_eq!((r.train.eval_every, r.train.save_every, r.train.eval_tokens), (100, 100, None));
    assert_eq!((r.export.format, r.export.embeddings), (Packing::Tq2_0, DenseType::F16));
    let config = r.model_config(4000).unwrap();
    assert_eq!((config.vocab_size, config.rms_norm_eps, config.rope_theta), (4000, 1e-5, 1e4));
}

#[test]
fn every_key_is_read() {
    let text = r#"
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
        initializer_range = 0.01
        [quant]
        weights = "absmean"
        activations = "none"
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
        [train]
        steps = 50
        batch_size = 3
        gradient_accumulation = 2
        gradient_checkpointing = true
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
    assert_eq!(c.activations, ActivationQuant::None);
    assert_eq!((r.optim.lr, r.optim.betas, r.optim.grad_clip), (1.0, (0.8, 0.99), 0.0));
    assert_eq!((r.optim.decay_steps, r.train.eval_tokens), (20, Some(1000)));
    assert_eq!((r.optim.eps, r.optim.momentum, r.optim.weight_decay_until), (Some(1e-7), None, 0.75));
    assert_eq!((r.optim.state_dtype, r.optim.master_dtype), (StoredType::Bf16, StoredType::Bf16));
    assert!(r.train.gradient_checkpointing && !parse(MINIMAL, &[]).unwrap().train.gradient_checkpointing);
    assert_eq!((r.train.keep_best, r.train.patience, r.train.min_delta), (true, Some(5), 0.01));
    assert_eq!((r.train.on_nonfinite, r.train.on_spike), (OnFault::Skip, Some(OnFault::Stop)));
    assert_eq!(r.train.spike_threshold, Some(10.0));
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
fn faults_of_overrides_name_them() {
    assert_eq!(
        fault(&["optim.lr=fast"]),
        "override optim.lr=fast: optim.lr = fast: found a string, expected a number above 0 and at most 10"
    );
    assert_eq!(
        fault(&["optim.lrr=1"]),
        "override optim.lrr=1: optim.lrr: unknown key; did you mean optim.lr?"
    );
    assert_eq!(fault(&["lr=1"]), "override lr=1: expected section.key=value, with one point in the key");
    assert_eq!(fault(&["optim.lr"]), "override optim.lr: expected section.key=value");
    assert_eq!(
        fault(&["data.train=[a.txt]"]),
        "override data.train=[a.txt]: the value is neither TOML nor a bare string"
    );
    assert_eq!(fault(&["optm.lr=1"]), "override optm.lr=1: [optm]: unknown section; did you mean [optim]?");
}

#[test]
fn unknown_keys_come_with_their_place_and_the_nearest_key() {
    let text = format!("{MINIMAL}step = 3\nlearning_rate = 1\nseqlen = 9\nqqq = 1\n\n[optimizer]\nlr = 1\n");
    assert_eq!(
        faults(&text, &[]),
        [
            "dir/r.toml:12:1: train.step: unknown key; did you mean train.steps?",
            "dir/r.toml:13:1: train.learning_rate: unknown key; did you mean optim.lr?",
            "dir/r.toml:14:1: train.seqlen: unknown key; did you mean data.seq_len?",
            "dir/r.toml:15:1: train.qqq: unknown key; [train] has steps, batch_size, \
             gradient_accumulation, gradient_checkpointing, eval_every, eval_tokens, save_every, keep_last, keep_best, patience, min_delta, \
             on_nonfinite, spike_threshold, on_spike, log_every",
            "dir/r.toml:17:2: [optimizer]: unknown section; did you mean [optim]?",
        ]
    );
    assert_eq!(
        faults(&format!("seed = 3\nx = 1\n{MINIMAL}"), &[]),
        [
            "dir/r.toml:1:1: seed: a key outside any section; did you mean run.seed?",
            "dir/r.toml:2:1: x: a key outside any section; expected a [section]",
        ]
    );
}

#[test]
fn wrong_types_and_ranges_are_all_reported_with_their_place() {
    let text = MINIMAL
        .replace("steps = 1000", "steps = 1e3\n  batch_size = 0")
        .replace("hidden_size = 256", "hidden_size = \"256\"")
        .replace("train = [", "held_out = 1.0\nsplit = \"documents\"\ntrain = [1, ");
    assert_eq!(
        faults(&text, &["optim.betas=[0.9]", "optim.lr=nan", "run.seed=-1", "model.tie_word_embeddings=1"]),
        [
            "dir/r.toml:2:15: model.hidden_size = \"256\": found a string, expected an integer from 1 to 268435456",
            "dir/r.toml:8:12: data.held_out = 1.0: expected a number above 0 and below 1",
            "dir/r.toml:9:9: data.split = \"documents\": expected \"contiguous\" or \"document\"; did you mean \
             \"document\"?",
            "dir/r.toml:10:9: data.train = [1, \"corpus.txt\"]: found an array, expected a path, or an array of paths",
            "dir/r.toml:13:9: train.steps = 1e3: found a number with a fraction, expected an integer from 1 to \
             1099511627776",
            "dir/r.toml:14:16: train.batch_size = 0: expected an integer from 1 to 1048576",
            "override model.tie_word_embeddings=1: model.tie_word_embeddings = 1: found an integer, expected true or \
             false",
            "override optim.betas=[0.9]: optim.betas = [0.9]: expected an array of two numbers from 0 to less than 1",
            "override optim.lr=nan: optim.lr = nan: expected a number above 0 and at most 10",
            "override run.seed=-1: run.seed = -1: expected an integer from 0 to 9223372036854775807",
        ]
    );
}

#[test]
fn missing_keys_are_reported_at_their_section() {
    assert_eq!(
        faults(
            "[run]\nname = \"x\"\n\n[model]\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n",
            &[]
        ),
        [
            "dir/r.toml:4:2: model.num_attention_heads is missing: expected the number of heads, or config = \
             \"configs/….toml\"",
            "dir/r.toml: data.train is missing: expected files of text, as in train = [\"corpus.txt\"], or source = \
             \"rust-sources\"",
            "dir/r.toml: train.steps is missing: expected the number of optimizer steps",
        ]
    );
    assert_eq!(fault(&["tokenizer.kind=file"]).split(": ").nth(1), Some("tokenizer.path is missing"));
    assert!(fault(&["data.source=files"]).contains("data.train is missing"));
}

#[test]
fn contradictions_name_both_sides() {
    for (overrides, message) in [
        (
            &["model.num_attention_heads=3"][..],
            "model.num_attention_heads = 3: it must divide model.hidden_size = 256",
        ),
        (
            &["model.num_key_value_heads=3"],
            "model.num_key_value_heads = 3: it must divide num_attention_heads = 4",
        ),
        (&["model.num_attention_heads=256"], "model.head_dim = 1: it must be even"),
        (&["model.head_dim=128"], "model.head_dim = 128: attn_sub_norm has width hidden_size = 256"),
        (&["data.seq_len=300", "model.max_position_embeddings=299"], "data.seq_len = 300: expected at most"),
        (&["model.max_position_embeddings=255"], "data.seq_len = 256: expected at most"),
        (&["optim.warmup_steps=1001"], "optim.warmup_steps = 1001: expected at most train.steps = 1000"),
        (&["optim.decay_steps=10"], "only optim.schedule = \"wsd\""),
        (
            &["optim.schedule=wsd", "optim.decay_steps=951"],
            "expected at most train.steps - optim.warmup_steps = 950",
        ),
        (&["optim.stage2_lr=1e-4"], "only optim.schedule = \"two-stage\" has a second stage"),
        (&["optim.kind=lion", "optim.eps=1e-8"], "optim.eps = 0.00000001: optim.kind = \"lion\" has no eps"),
        (&["optim.momentum=0.9"], "only optim.kind = \"muon\" has it"),
        (&["optim.optimizer=lion"], "did you mean optim.kind?"),
        (&["train.on_spike=stop"], "there are no spikes without train.spike_threshold"),
        (&["train.min_delta=0.1"], "without train.patience no run ends early"),
        (&["ema.deploy=true"], "there is no average without ema.decay"),
        (
            &["data.train=a", "data.source=rust-sources"],
            "data.source = \"rust-sources\" contradicts data.train",
        ),
        (&["data.template=chatml"], "data.template: without data.records all text is learned whole"),
        (&["data.records=auto", "data.packing=concat"], "data.packing = \"concat\" contradicts data.records"),
        (&["data.records=auto", "data.column=body"], "data.column contradicts data.records"),
        (
            &["data.records=auto", "data.source=rust-sources"],
            "data.records contradicts data.source = \"rust-sources\"",
        ),
        (
            &["data.records=auto", "data.template=absent.jinja"],
            "absent.jinja\": no such file; expected one, \"model\"",
        ),
        (
            &["data.records=auto", "data.columns=question"],
            "found a string, expected a table of strings, with keys among",
        ),
        (
            &["data.records=auto", "data.columns={answer=\"a\"}"],
            "data.columns.answer: unknown key; expected instruction",
        ),
        (
            &["data.records=auto", "data.columns={outputs=\"a\"}"],
            "data.columns.outputs: unknown key; did you mean output?",
        ),
        (
            &["data.records=auto", "data.columns={input=1}"],
            "data.columns.input: found an integer, expected a string",
        ),
        (&["tokenizer.path=x"], "tokenizer.path = \"x\": only tokenizer.kind = \"file\""),
        (
            &["tokenizer.kind=characters", "tokenizer.vocab_size=300"],
            "only tokenizer.kind = \"bpe\" has a size",
        ),
        (
            &["tokenizer.vocab_size=300", "model.vocab_size=301"],
            "model.vocab_size = 301 contradicts tokenizer.vocab_size",
        ),
        (&["model.vocab_size=100"], "model.vocab_size = 100: a byte-level BPE needs at least 257"),
        (&["run.name=a/b"], "run.name = \"a/b\": expected a name without slashes"),
        (&["distill.teacher=t", "distill.ce=0", "distill.kl=0"], "are all 0: there is nothing to learn"),
        (&["distill.teacher=hf://o/n"], "expected distill.engine = \"candle\" beside it"),
        (
            &["distill.teacher=t", "distill.relation_heads=2"],
            "distill.relation_heads: without distill.relation_weight relations are not learned",
        ),
        (
            &["distill.teacher=t", "distill.relation_weight=1", "distill.engine=candle"],
            "distill.relation_weight contradicts distill.engine = \"candle\"",
        ),
        (
            &["distill.teacher=t", "distill.relation_weight=1", "distill.relation_layer=2"],
            "distill.relation_layer = 2: the model has the layers 0 to 1",
        ),
        (
            &[
                "distill.teacher=t",
                "distill.relation_weight=1",
                "distill.relation_q=0",
                "distill.relation_k=0",
                "distill.relation_v=0",
            ],
            "are all 0: no relation is learned",
        ),
    ] {
        let found = fault(overrides);
        assert!(found.contains(message), "{overrides:?}: {found}");
    }
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
fn a_backward_by_integers_needs_integers_in_the_forward() {
    assert_eq!(parse(MINIMAL, &[]).unwrap().quant.backward, Backward::Auto);
    for backward in Backward::ALL {
        let set = format!("quant.backward={}", backward.name());
        assert_eq!(parse(MINIMAL, &[&set]).unwrap().quant.backward, backward);
    }
    for other in ["quant.weights=none", "quant.activations=none"] {
        let message = fault(&["quant.backward=int8", other]);
        assert!(
            message.contains("quant.backward = \"int8\": expected quant.weights = \"absmean\""),
            "{message}"
        );
    }
    let message = fault(&["quant.backward=fp8"]);
    assert!(message.contains("\"auto\" or \"int24\" or \"f32\" or \"int16\" or \"int8\""), "{message}");
}

#[test]
fn widths_must_fit_the_packing_of_ternary_models() {
    let narrow = &["model.hidden_size=128", "model.intermediate_size=384"];
    // No format asked for: one that fits.
    assert_eq!(parse(MINIMAL, narrow).unwrap().export.format, Packing::I2S);
    let with = |more: &[&'static str]| [&narrow[..], more].concat();
    let message = fault(&with(&["export.format=tq2_0"]));
    assert!(message.contains("export.format = \"tq2_0\" cannot hold model.hidden_size = 128"), "{message}");
    assert!(message.ends_with("or choose export.format = \"i2_s\""), "{message}");
    assert!(parse(MINIMAL, &with(&["export.format=tq2_0", "quant.weights=none"])).is_ok());
    let message = fault(&["model.intermediate_size=700"]);
    assert!(
        message.contains("dir/r.toml") || message.contains("override model.intermediate_size=700"),
        "{message}"
    );
    assert!(message.contains("model.intermediate_size = 700: expected a multiple of 256"), "{message}");
    let wide = &["model.head_dim=96", "model.use_sub_norm=false", "export.format=tq1_0"];
    assert!(fault(wide).contains("model.num_attention_heads · model.head_dim = 384"));
}

#[test]
fn a_shape_comes_from_a_file_and_inline_keys_go_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let (recipes, configs) = (dir.path().join("recipes"), dir.path().join("configs"));
    fs::create_dir_all(&recipes).unwrap();
    fs::create_dir_all(&configs).unwrap();
    let shape = "vocab_size = 500\nhidden_size = 256\nintermediate_size = 768\nnum_hidden_layers = 2\n\
                 num_attention_heads = 4\nmax_position_embeddings = 512\nhidden_act = \"relu2\"\n";
    fs::write(configs.join("s.toml"), shape).unwrap();
    fs::write(recipes.join("text.txt"), "text").unwrap();
    let path = recipes.join("r.toml");
    let text = "[model]\nconfig = \"../configs/s.toml\"\nnum_hidden_layers = 6\n[data]\ntrain = [\"text.txt\", \"no.txt\"]\n\
                [train]\nsteps = 10\n";
    fs::write(&path, text).unwrap();
    let r = Recipe::load(&path, &[]).unwrap();
    assert_eq!((r.model.num_hidden_layers, r.model.hidden_act), (6, HiddenAct::Relu2));
    assert_eq!((r.model.vocab_size, r.tokenizer.vocab_size, r.expected_vocab_size()), (None, 500, 500));
    assert_eq!(r.data.train, [recipes.join("text.txt"), PathBuf::from("no.txt")]);
    // The recipe's own vocabulary goes before the one that the shape was made for.
    let r = Recipe::load(&path, &["tokenizer.vocab_size=600".to_string()]).unwrap();
    assert_eq!(r.model_config(590).unwrap().vocab_size, 590);
    let r = Recipe::load(&path, &["model.vocab_size=600".to_string()]).unwrap();
    let error = r.model_config(590).unwrap_err().to_string();
    assert!(error.contains("model.vocab_size = 600: the tokenizer has 590 tokens"), "{error}");
    // Faults of the shape are reported in its file.
    fs::write(configs.join("s.toml"), format!("{shape}hiden_size = 1\n")).unwrap();
    let error = Recipe::load(&path, &[]).unwrap_err().to_string();
    assert!(
        error.contains("s.toml:8:1: model.hiden_size: unknown key; did you mean model.hidden_size?"),
        "{error}"
    );
    fs::remove_file(configs.join("s.toml")).unwrap();
    let error = Recipe::load(&path, &[]).unwrap_err().to_string();
    assert!(error.contains("r.toml:2:10: model.config: no file"), "{error}");
}

#[test]
fn what_is_no_toml_is_refused_at_its_place() {
    let message = &faults("[model]\nhidden_size = = 3\n", &[])[0];
    assert!(message.starts_with("dir/r.toml:2:") && message.contains("not TOML"), "{message}");
    let message = &faults("[run]\nname = \"é\" seed = 3\n", &[])[0];
    assert!(message.starts_with("dir/r.toml:2:"), "{message}");
    let error = Recipe::load(Path::new("absent.toml"), &[]).unwrap_err().to_string();
    assert!(error.starts_with("absent.toml: cannot read"), "{error}");
}

#[test]
fn columns_count_characters() {
    let Err(RecipeError::Invalid(found)) = parse(&MINIMAL.replace("[data]", "[data] # é\n\"é\" = 1"), &[])
    else {
        panic!("expected a fault");
    };
    assert_eq!(found[0].origin, Origin::At { path: "dir/r.toml".into(), line: 8, column: 1 });
}

#[test]
fn any_text_is_a_recipe_or_an_error() {
    // Every prefix and every recipe with one byte changed: never a panic.
    for end in 0..MINIMAL.len() {
        let _ = parse(&MINIMAL[..end], &[]);
        for byte in [b'=', b'[', b'"', b'\n', b'.', b'9'] {
            let mut bytes = MINIMAL.as_bytes().to_vec();
            bytes[end] = byte;
            let _ = parse(&String::from_utf8(bytes).unwrap(), &[]);
        }
    }
}

/// Writes what a recipe looks at of a base, and returns the override that names it.
fn base_of_the_default_shape(dir: &Path) -> [String; 1] {
    let base = dir.join("base");
    let mut writer = tritforge_checkpoint::Writer::create(&base).unwrap();
    writer.write_config(&tritforge_config::ModelConfig::default()).unwrap();
    writer.commit().unwrap();
    [format!("model.base={}", base.display())]
}

#[test]
fn a_base_gives_shape_and_tokenizer_and_is_named_where_it_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let overrides = base_of_the_default_shape(dir.path());
    let text = "[model]\nbase = \"nowhere\"\n[data]\ntrain = [\"x.txt\"]\n[train]\nsteps = 10\n";
    let recipe = parse(text, &[&overrides[0]]).unwrap();
    assert_eq!((recipe.model.hidden_size, recipe.model.max_position_embeddings), (256, 512));
    assert_eq!(recipe.tokenizer.kind, TokenizerKind::Base);
    // The base may have rows that its tokenizer does not fill, not the other way round.
    assert_eq!(recipe.model_config(4000).unwrap().vocab_size, 4096);
    assert!(recipe.model_config(5000).unwrap_err().to_string().contains("4096"));
    assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    let message = &faults(text, &[])[0];
    assert!(message.starts_with("dir/r.toml:2:8: model.base: no directory"), "{message}");
    let both = text.replace("[data]", "config = \"c.toml\"\n[data]");
    let message = faults(&both, &[&overrides[0]]).join("\n");
    assert!(message.contains("model.config contradicts model.base"), "{message}");
}

#[test]
fn preferences_need_a_base_and_pairs_and_nothing_that_contradicts_them() {
    let dir = tempfile::tempdir().unwrap();
    let [base] = base_of_the_default_shape(dir.path());
    let text =
        "[model]\n[dpo]\n[data]\ntrain = [\"x.jsonl\"]\nrecords = \"preference\"\n[train]\nsteps = 10\n";
    let recipe = parse(text, &[&base]).unwrap();
    let defaults = Dpo { beta: 0.1, sft: 0.0, sft_loss: SftLoss::Mean, reference: None };
    assert_eq!(recipe.dpo, Some(defaults.clone()));
    assert_eq!((recipe.data.packing, recipe.rows()), (DataPacking::Documents, 16));
    assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    // A key alone is a section.
    let keyed = parse(&text.replace("[dpo]\n", ""), &[&base, "dpo.sft=1", "dpo.sft_loss=sum"]).unwrap();
    assert_eq!(keyed.dpo, Some(Dpo { sft: 1.0, sft_loss: SftLoss::Sum, ..defaults }));
    for (from, to, message) in [
        ("\"preference\"", "\"alpaca\"", "[dpo] learns from pairs of answers"),
        ("[dpo]\n", "", "data.records = \"preference\": pairs of answers are learned by [dpo]"),
        ("[train]", "packing = \"masked\"\n[train]", "data.packing = \"masked\" contradicts [dpo]"),
        ("[train]", "loss = \"all\"\n[train]", "data.loss = \"all\" contradicts [dpo]"),
        ("[train]", "[lora]\nrank = 4\ndropout = 0.5\n[train]", "lora.dropout contradicts [dpo]"),
        ("[train]", "[distill]\nteacher = \"x\"\n[train]", "[distill] contradicts [dpo]"),
    ] {
        let found = faults(&text.replace(from, to), &[&base]).join("\n");
        assert!(found.contains(message), "{message}: {found}");
    }
    let shape = ["hidden_size=256", "intermediate_size=512", "num_hidden_layers=1", "num_attention_heads=4"];
    let shape = shape.map(|key| format!("model.{key}"));
    let found = faults(text, &shape.each_ref().map(String::as_str)).join("\n");
    assert!(found.contains("[dpo]: there is no model.base"), "{found}");
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
    assert_eq!((lion.lr, lion.betas, lion.weight_decay, lion.eps), (1e-4, (0.9, 0.99), 1.0, None));
    let muon = optim("optim.kind=muon");
    assert_eq!((muon.lr, muon.momentum, muon.eps), (1e-3, Some(0.95), Some(1e-8)));
    let o = parse(MINIMAL, &["optim.schedule=two-stage", "optim.lr=1.5e-3"]).unwrap().optim;
    assert!((o.stage2_lr.unwrap() - 1e-3).abs() < 1e-12);
    assert_eq!((o.stage2_at, o.weight_decay_until), (Some(0.5), 0.5));
}

/// What of a recipe a schema does not allow, as far as the keywords go that ours uses.
fn violations(schema: &serde_json::Value, value: &serde_json::Value, at: &str) -> Vec<String> {
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("number") => value.is_number(),
        Some("array") => value.is_array(),
        _ => true,
    };
    let mut found = Vec::new();
    let mut note = |what: String| found.push(format!("{at}: {what}"));
    if !fits {
        note(format!("{value} is no {}", schema["type"]));
    }
    if schema["enum"].as_array().is_some_and(|names| !names.contains(value)) {
        note(format!("{value} is none of {}", schema["enum"]));
    }
    let number = value.as_f64().unwrap_or(0.0);
    for (bound, holds) in [
        ("minimum", (|x, b| x >= b) as fn(f64, f64) -> bool),
        ("maximum", |x, b| x <= b),
        ("exclusiveMinimum", |x, b| x > b),
        ("exclusiveMaximum", |x, b| x < b),
    ] {
        if schema[bound].as_f64().is_some_and(|b| !holds(number, b)) {
            note(format!("{value} against {bound} {}", schema[bound]));
        }
    }
    let lacks = |needed: &serde_json::Value| {
        needed.as_array().into_iter().flatten().any(|key| value.get(key.as_str().unwrap()).is_none())
    };
    if lacks(&schema["required"]) {
        note(format!("not all of {}", schema["required"]));
    }
    if let Some(variants) = schema["anyOf"].as_array()
        && variants.iter().all(|v| lacks(&v["required"]) || !violations(v, value, at).is_empty())
    {
        note("no variant fits".to_string());
    }
    if let Some(keys) = value.as_object().filter(|_| schema["type"] == "object") {
        for (key, value) in keys {
            match schema["properties"].get(key) {
                Some(schema) => found.extend(violations(schema, value, &format!("{at}.{key}"))),
                None => found.push(format!("{at}.{key}: unknown")),
            }
        }
    }
    for (i, item) in
        value.as_array().into_iter().flatten().enumerate().filter(|_| schema["items"].is_object())
    {
        found.extend(violations(&schema["items"], item, &format!("{at}[{i}]")));
    }
    found
}

fn schema_violations(text: &str) -> Vec<String> {
    let value: serde_json::Value =
        serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    violations(&json_schema(), &value, "recipe")
}

#[test]
fn the_schema_allows_what_the_parser_reads_and_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../recipes");
    let base = tempfile::tempdir().unwrap();
    let overrides = base_of_the_default_shape(base.path());
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let overrides = if text.contains("\nbase = ") { &overrides[..] } else { &[] };
        assert_eq!(schema_violations(&text), [] as [String; 0], "{}", path.display());
        // What a run writes out has nearly every key.
        let written = Recipe::load(&path, overrides).unwrap().to_toml().unwrap();
        assert_eq!(schema_violations(&written), [] as [String; 0], "{}", path.display());
    }
    for (from, to, message) in [
        ("steps = 1000", "step = 1000", "recipe.train.step: unknown"),
        ("steps = 1000", "", "recipe.train: not all of"),
        ("steps = 1000", "steps = 0", "recipe.train.steps: 0 against minimum 1"),
        ("steps = 1000", "steps = \"many\"", "recipe.train.steps: \"many\" is no \"integer\""),
        ("num_hidden_layers = 2\n", "", "recipe.model: no variant fits"),
        ("[train]", "[optim]\nlr = 0\n[train]", "recipe.optim.lr: 0 against exclusiveMinimum"),
        ("[train]", "[optim]\nkind = \"sgd\"\n[train]", "recipe.optim.kind: \"sgd\" is none of"),
        ("[train]", "[optim]\nbetas = [0.9, 1.0]\n[train]", "recipe.optim.betas[1]: 1.0 against"),
        ("train = [\"corpus.txt\"]", "train = [7]", "recipe.data.train: no variant fits"),
        ("[train]", "[training]", "recipe.training: unknown"),
    ] {
        let text = MINIMAL.replace(from, to);
        let found = schema_violations(&text);
        assert!(found.iter().any(|f| f.starts_with(message)), "{message}: {found:?}");
        assert!(parse(&text, &[]).is_err(), "{message}");
    }
}

#[test]
fn every_key_is_described() {
    let schema = json_schema();
    let sections = schema["properties"].as_object().unwrap();
    assert!(sections.len() >= 10, "{:?}", sections.keys());
    for (name, section) in sections {
        assert!(section["description"].as_str().is_some_and(|d| d.len() > 10), "[{name}]");
        for (key, schema) in section["properties"].as_object().unwrap() {
            assert!(schema["description"].as_str().is_some_and(|d| d.len() > 5), "{name}.{key}");
        }
    }
}

#[test]
fn the_reference_in_docs_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes.md");
    let stored = fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == markdown(), "docs/recipes.md is old: tritforge recipes reference > docs/recipes.md");
}

const SOURCES: &str = r#"[model]
hidden_size = 256
intermediate_size = 768
num_hidden_layers = 2
num_attention_heads = 4

[data]
packing = "documents"
shard_tokens = 1000

[[data.sources]]
path = "hf://datasets/o/n/a.parquet@v1"
weight = 3
column = "body"

[[data.sources]]
path = "b.txt"
format = "text"
weight = 0.5

[train]
steps = 1000
"#;

#[test]
fn sources_are_read_and_written_back() {
    let r = parse(SOURCES, &[]).unwrap();
    let [a, b] = r.data.sources.as_slice() else { panic!("{:?}", r.data.sources) };
    assert_eq!((a.path.as_path(), a.weight), (Path::new("hf://datasets/o/n/a.parquet@v1"), Some(3.0)));
    assert_eq!((a.column.as_str(), a.format), ("body", tritforge_data::Format::Auto));
    assert_eq!((b.column.as_str(), b.format, b.weight), ("text", tritforge_data::Format::Text, Some(0.5)));
    assert_eq!((r.data.packing, r.data.shard_tokens), (tritforge_data::Packing::Documents, 1000));
    assert_eq!(parse(&r.to_toml().unwrap(), &[]).unwrap(), r);
    // An override says where the text comes from, whole.
    let r = parse(SOURCES, &["data.train=c.txt"]).unwrap();
    assert_eq!((r.data.train.len(), r.data.sources.len()), (1, 0));
}

#[test]
fn wrong_sources_are_refused_at_their_place() {
    for (from, to, message) in [
        ("weight = 3", "weight = 0", "dir/r.toml:13:10: data.sources.weight = 0: expected a number above 0"),
        ("weight = 3\n", "", "data.sources: 1 of 2 have a weight"),
        (
            "format = \"text\"",
            "format = \"xml\"",
            "dir/r.toml:18:10: data.sources.format = \"xml\": expected \"auto\"",
        ),
        ("path = \"b.txt\"", "", "dir/r.toml:16:1: data.sources.path is missing"),
        ("column", "colunm", "dir/r.toml:14:1: data.sources.colunm: unknown key; [[data.sources]] has path"),
        ("column = \"body\"", "column = 3", "data.sources.column = 3: found an integer, expected a string"),
        ("packing = \"documents\"", "train = \"x\"", "data.train contradicts [[data.sources]]"),
        ("packing = \"documents\"", "source = \"rust-sources\"", "contradicts [[data.sources]]"),
        (
            "packing = \"documents\"",
            "packing = \"mask\"",
            "expected \"concat\" or \"documents\" or \"masked\"",
        ),
    ] {
        let found = faults(&SOURCES.replace(from, to), &[]);
        assert!(found.len() == 1 && found[0].contains(message), "{to}: {found:?}");
    }
    let found = fault(&["data.sources=[1]"]);
    assert!(found.contains("expected tables, each [[data.sources]]"), "{found}");
}
