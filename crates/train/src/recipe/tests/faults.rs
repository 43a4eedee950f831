//! What is said about recipes that are wrong.

use super::*;

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
    assert_eq!(fault(&["lr=1"]), "override lr=1: expected section.key=value, with one dot in the key");
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
             gradient_accumulation, gradient_checkpointing, neftune_noise_alpha, engine, eval_every, eval_tokens, save_every, keep_last, keep_best, patience, min_delta, \
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
            "dir/r.toml:13:9: train.steps = 1e3: found a number with a decimal point, expected an integer \
             from 1 to 1099511627776",
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
            "dir/r.toml: data.train is missing: expected text files, as in train = [\"corpus.txt\"], or \
             source = \"rust-sources\"",
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
        (&["optim.decay_steps=10"], "only for optim.schedule = \"wsd\""),
        (
            &["optim.schedule=wsd", "optim.decay_steps=951"],
            "expected at most train.steps - optim.warmup_steps = 950",
        ),
        (&["optim.stage2_lr=1e-4"], "only for optim.schedule = \"two-stage\""),
        (&["optim.kind=lion", "optim.eps=1e-8"], "optim.eps = 0.00000001: optim.kind = \"lion\" has no eps"),
        (&["optim.momentum=0.9"], "only for optim.kind = \"muon\""),
        (&["optim.optimizer=lion"], "did you mean optim.kind?"),
        (&["train.on_spike=stop"], "has no effect without train.spike_threshold"),
        (&["train.min_delta=0.1"], "has no effect without train.patience"),
        (&["ema.deploy=true"], "needs ema.decay"),
        (
            &["data.train=a", "data.source=rust-sources"],
            "data.source = \"rust-sources\" contradicts data.train",
        ),
        (&["data.template=chatml"], "data.template: has no effect without data.records"),
        (&["data.records=auto", "data.packing=concat"], "data.packing = \"concat\" contradicts data.records"),
        (&["data.records=auto", "data.column=body"], "data.column contradicts data.records"),
        (
            &["data.records=auto", "data.source=rust-sources"],
            "data.records contradicts data.source = \"rust-sources\"",
        ),
        (
            &["data.records=auto", "data.template=absent.jinja"],
            "absent.jinja\": no such file; expected a file, \"model\"",
        ),
        (
            &["data.records=auto", "data.columns=question"],
            "found a string, expected a table of strings, with keys among",
        ),
        (
            &["data.records=auto", "data.columns={reply=\"a\"}"],
            "data.columns.reply: unknown key; expected instruction",
        ),
        (
            &["data.records=auto", "data.columns={answer=\"a\"}"],
            "data.columns.answer: unknown key; did you mean answers?",
        ),
        (
            &["data.records=auto", "data.columns={outputs=\"a\"}"],
            "data.columns.outputs: unknown key; did you mean output?",
        ),
        (
            &["data.records=auto", "data.columns={input=1}"],
            "data.columns.input: found an integer, expected a string",
        ),
        (&["tokenizer.path=x"], "tokenizer.path = \"x\": only for tokenizer.kind = \"file\""),
        (&["tokenizer.kind=characters", "tokenizer.vocab_size=300"], "only for tokenizer.kind = \"bpe\""),
        (
            &["tokenizer.vocab_size=300", "model.vocab_size=301"],
            "model.vocab_size = 301 contradicts tokenizer.vocab_size",
        ),
        (&["model.vocab_size=100"], "model.vocab_size = 100: a byte-level BPE needs at least 257"),
        (&["run.name=a/b"], "run.name = \"a/b\": expected a name without slashes"),
        (&["distill.teacher=t", "distill.ce=0", "distill.kl=0"], "are all 0: at least one loss is needed"),
        (&["distill.teacher=hf://o/n"], "set distill.engine = \"candle\""),
        (
            &["distill.teacher=t", "distill.relation_heads=2"],
            "distill.relation_heads: has no effect without distill.relation_weight",
        ),
        (
            &["distill.teacher=t", "distill.relation_weight=1", "distill.engine=candle"],
            "distill.relation_weight contradicts distill.engine = \"candle\"",
        ),
        (
            &["distill.teacher=t", "distill.relation_weight=1", "distill.relation_layer=2"],
            "distill.relation_layer = 2: the model has layers 0 to 1",
        ),
        (
            &[
                "distill.teacher=t",
                "distill.relation_weight=1",
                "distill.relation_q=0",
                "distill.relation_k=0",
                "distill.relation_v=0",
            ],
            "are all 0: at least one must be above 0",
        ),
    ] {
        let found = fault(overrides);
        assert!(found.contains(message), "{overrides:?}: {found}");
    }
}

#[test]
fn a_backward_by_integers_needs_integers_in_the_forward() {
    assert_eq!(parse(MINIMAL, &[]).unwrap().quant.backward, GradPrecision::Auto);
    for backward in GradPrecision::ALL {
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
    assert!(
        message.contains("export.format = \"tq2_0\" does not support model.hidden_size = 128"),
        "{message}"
    );
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

#[test]
fn preferences_need_a_base_and_pairs_and_nothing_that_contradicts_them() {
    let dir = tempfile::tempdir().unwrap();
    let [base] = base_of_the_default_shape(dir.path());
    let text =
        "[model]\n[dpo]\n[data]\ntrain = [\"x.jsonl\"]\nrecords = \"preference\"\n[train]\nsteps = 10\n";
    let recipe = parse(text, &[&base]).unwrap();
    let defaults = Dpo::default();
    assert_eq!(recipe.objective, Objective::Dpo(defaults.clone()));
    assert_eq!((recipe.data.packing, recipe.rows()), (DataPacking::Documents, 16));
    assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
    // A key alone is a section.
    let keyed = parse(&text.replace("[dpo]\n", ""), &[&base, "dpo.sft=1", "dpo.sft_loss=sum"]).unwrap();
    let expected = Dpo { sft: 1.0, sft_loss: SftLoss::Sum, ..defaults };
    assert_eq!(keyed.objective, Objective::Dpo(expected));
    let variant = parse(text, &[&base, "dpo.loss=robust", "dpo.label_smoothing=0.1"]).unwrap();
    let expected = Dpo { loss: DpoLoss::Robust, label_smoothing: 0.1, ..Dpo::default() };
    assert_eq!(variant.objective, Objective::Dpo(expected));
    // Without a reference, dropout and conversion contradict nothing.
    for (section, objective) in [
        ("[orpo]", Objective::Orpo(Orpo { beta: 0.1 })),
        ("[simpo]", Objective::Simpo(Simpo { beta: 2.0, gamma: 1.0, sft: 0.0 })),
    ] {
        let text = text.replace("[dpo]", section);
        let recipe = parse(&text, &[&base, "lora.rank=4", "lora.dropout=0.5"]).unwrap();
        assert_eq!((&recipe.objective, recipe.rows()), (&objective, 16));
        assert_eq!(parse(&recipe.to_toml().unwrap(), &[]).unwrap(), recipe);
        let found = faults(&text.replace("\"preference\"", "\"alpaca\""), &[&base]).join("\n");
        assert!(found.contains(&format!("{section} trains on pairs of answers")), "{found}");
        let found = faults(&text, &[&base, "dpo.beta=1"]).join("\n");
        assert!(found.contains("a run has one objective"), "{found}");
    }
    for (from, to, message) in [
        ("\"preference\"", "\"alpaca\"", "[dpo] trains on pairs of answers"),
        ("[dpo]\n", "", "data.records = \"preference\": training on pairs of answers needs a [dpo]"),
        ("[train]", "packing = \"masked\"\n[train]", "data.packing = \"masked\" contradicts [dpo]"),
        ("[train]", "loss = \"all\"\n[train]", "data.loss = \"all\" contradicts [dpo]"),
        ("[train]", "[lora]\nrank = 4\ndropout = 0.5\n[train]", "lora.dropout contradicts [dpo]"),
        ("[train]", "[distill]\nteacher = \"x\"\n[train]", "[distill] contradicts [dpo]"),
        (
            "[dpo]",
            "[dpo]\nloss = \"ipo\"\nlabel_smoothing = 0.1",
            "expected dpo.loss = \"sigmoid\" or \"robust\"",
        ),
        ("[dpo]", "[dpo]\nlabel_smoothing = 0.5", "dpo.label_smoothing = 0.5"),
        ("[dpo]", "[dpo]\nloss = \"kto\"", "\"hinge\""),
    ] {
        let found = faults(&text.replace(from, to), &[&base]).join("\n");
        assert!(found.contains(message), "{message}: {found}");
    }
    let shape = ["hidden_size=256", "intermediate_size=512", "num_hidden_layers=1", "num_attention_heads=4"];
    let shape = shape.map(|key| format!("model.{key}"));
    let found = faults(text, &shape.each_ref().map(String::as_str)).join("\n");
    assert!(found.contains("[dpo]: model.base is missing"), "{found}");
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
        let found = faults(&sources().replace(from, to), &[]);
        assert!(found.len() == 1 && found[0].contains(message), "{to}: {found:?}");
    }
    let found = fault(&["data.sources=[1]"]);
    assert!(found.contains("expected tables, each [[data.sources]]"), "{found}");
}
