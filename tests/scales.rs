//! Scales of rows and groups, and every quantizer, through the binary: trained, exported, verified, imported, compared.

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

/// Trains a few steps, wide enough that rows and groups of 256 differ.
fn train(project: &Project, out: &str, set: &[&str]) {
    short_run::train(project, out, &[&["model.intermediate_size=512"], set].concat());
}

/// What holds which granularity, as the file is written and as it is imported again.
#[test]
fn every_granularity_is_what_it_was_in_training_in_every_packing() {
    let project = Project::new();
    for (granularity, packings) in [
        ("row", &["tq2_0", "tq1_0", "q2_0", "q2_0_g128", "pq2_0", "ptq1_0", "iq2_bn", "iq1_bn"][..]),
        ("256", &["tq2_0", "tq1_0", "q2_0", "q2_0_g128", "pq2_0", "ptq1_0"]),
        ("128", &["q2_0", "q2_0_g128", "pq2_0", "ptq1_0"]),
        ("64", &["q2_0"]),
    ] {
        let run = format!("runs/{granularity}");
        train(&project, &run, &[&format!("quant.granularity={granularity}")]);
        for packing in packings {
            let file = format!("{granularity}-{packing}.gguf");
            project.ok(&["export", &run, "-o", &file, "--format", packing, "--embeddings", "f32"]);
            verified(&project, &run, &file);
            let checkpoint = format!("{granularity}-{packing}");
            project.ok(&["import", &file, "-o", &checkpoint]);
            verified(&project, &checkpoint, &file);
            let printed = project.ok(&["diff", &run, &file]);
            assert!(printed.contains("same") || printed.contains("identical"), "{printed}");
        }
        // Not told how, the export takes a packing that has room.
        project.ok(&["export", &run, "-o", &format!("{granularity}.gguf"), "--embeddings", "f32"]);
        verified(&project, &run, &format!("{granularity}.gguf"));
        let error = project.fails(&["export", &run, "-o", "refused.gguf", "--format", "i2_s"]);
        assert!(error.contains("i2_s") || error.contains("I2_S"), "{error}");
        assert!(error.contains(packings[0]) || error.to_lowercase().contains("q2_0"), "{error}");
        assert!(!project.path("refused.gguf").exists());
    }
}

#[test]
fn every_quantizer_trains_resumes_and_verifies() {
    let project = Project::new();
    for (scale, granularity, set) in [
        ("absmedian", "tensor", &[][..]),
        ("twn", "128", &[]),
        ("rms", "row", &[]),
        ("least_squares", "64", &[]),
        ("twn", "tensor", &["quant.sparsity=2:4"]),
        ("threshold", "row", &["quant.threshold=0.4", "quant.sparsity=16:32", "quant.ste=trust"]),
        ("binary", "tensor", &["quant.backward=f32"]),
        ("sherry", "128", &["quant.ste=damp", "quant.backward=int24"]),
        ("lsq", "tensor", &["ema.decay=0.9"]),
        ("seq", "row", &["quant.backward=int24"]),
        ("lsq", "64", &["quant.sparsity=3:4", "optim.kind=muon"]),
    ] {
        let run = format!("runs/{scale}-{granularity}");
        let own = [format!("quant.scale={scale}"), format!("quant.granularity={granularity}")];
        let set: Vec<&str> = own.iter().map(String::as_str).chain(set.iter().copied()).collect();
        train(&project, &run, &set);
        let file = format!("{scale}-{granularity}.gguf");
        project.ok(&["export", &run, "-o", &file, "--embeddings", "f32"]);
        verified(&project, &run, &file);
        let recipe = fs::read_to_string(project.path(&format!("{run}/step-000006/recipe.toml"))).unwrap();
        assert!(recipe.contains(&format!("scale = \"{scale}\"")), "{recipe}");
        // Imported, it is the same file again.
        let checkpoint = format!("{scale}-{granularity}");
        project.ok(&["import", &file, "-o", &checkpoint]);
        verified(&project, &checkpoint, &file);
        // A run begins from it with its quantizer, and an adapter inside the quantizer is merged exactly.
        let adapted = format!("{run}-adapted");
        let (base, out) = (format!("model.base={run}"), format!("run.out={adapted}"));
        let lora = ["lora.mode=qat_lora", "lora.rank=4", "train.steps=4"];
        let set = [base.as_str(), out.as_str()].into_iter().chain(lora).flat_map(|key| ["--set", key]);
        fs::write(project.path("adapter.toml"), on_base("adapted", "1e-2", "")).unwrap();
        let args: Vec<&str> = ["train", "adapter.toml", "--quiet"].into_iter().chain(set).collect();
        project.ok(&args);
        let (merged, merged_file) = (format!("{run}-merged"), format!("{scale}-{granularity}-merged.gguf"));
        project.ok(&["merge", &adapted, "-o", &merged]);
        project.ok(&["export", &merged, "-o", &merged_file, "--embeddings", "f32"]);
        verified(&project, &merged, &merged_file);
    }
}

#[test]
fn what_has_no_room_or_no_meaning_is_refused() {
    let project = Project::new();
    let refused = |set: &[&str]| refused(&project, "recipe.toml", set);
    for (set, expected) in [
        (&["quant.granularity=32"][..], "no packing has room for them"),
        (&["quant.granularity=48"], "\"row\""),
        (&["quant.granularity=128", "export.format=tq2_0"], "has no room for quant.granularity = 128"),
        (&["quant.granularity=128", "model.intermediate_size=320"], "does not divide 320 columns"),
        (&["quant.scale=median"], "absmedian"),
        (&["model.use_qk_norm=true"], "contradicts model.use_sub_norm"),
        (
            &["quant.weights=none", "quant.activations=none", "quant.scale=twn"],
            "no latent weights are quantized",
        ),
        (&["quant.weights=none", "quant.activations=none", "quant.granularity=row"], "have no scales"),
        (
            &["quant.weights=none", "quant.activations=none", "quant.ste=clip"],
            "only latent weights have an estimator",
        ),
        (&["quant.scale=dqt", "quant.granularity=row"], "its weights have one scale a tensor"),
        (&["quant.scale=dqt", "ema.decay=0.9"], "an average of ternary weights is not ternary"),
        (&["quant.codes=soft", "quant.ste=clip"], "have a gradient of their own"),
        (&["quant.codes=stochastic", "quant.scale=binary"], "expected a quantizer that rounds every weight"),
        (&["quant.codes=stochastic", "quant.sparsity=2:4"], "expected a quantizer that rounds every weight"),
        (&["quant.codes=soft", "quant.scale=seq"], "expected a quantizer that rounds every weight"),
        (&["quant.codes=soft", "quant.backward=int8"], "multiplies no integers"),
        (&["quant.codes=soft", "train.engine=candle"], "whose modules round"),
        (&["quant.codes=soft", "convert.schedule=linear"], "soft codes set in by themselves"),
        (&["quant.temperature=0.5"], "only for quant.codes = \"soft\""),
        (&["quant.hessian_alpha=0.4"], "only for quant.codes = \"soft\""),
        (&["quant.codes=soft", "quant.hessian_alpha=11"], "quant.hessian_alpha = 11"),
        (&["quant.residual=0.5"], "only for quant.codes = \"residual\""),
        (&["quant.codes=residual", "quant.ste=trust"], "have a gradient of their own"),
        (&["quant.codes=residual", "quant.scale=seq"], "not \"lsq\" or \"seq\""),
        (&["quant.activation_top_k=1"], "quant.activation_top_k = 1"),
        (&["quant.activation_top_k=0.5", "quant.activations=none"], "the codes of the others are 0"),
        (&["quant.activation_top_k=0.5", "train.engine=candle"], "which candle's tape computes"),
        (&["quant.pull=1", "optim.master_dtype=bf16"], "in which so small a change is lost"),
        (&["quant.pull=-1"], "quant.pull = -1"),
        (&["quant.scale=lsq", "quant.ste=clip"], "have an estimator of their own"),
        (&["quant.scale=seq", "train.engine=candle"], "contradicts train.engine = \"candle\""),
        (&["quant.sparsity=4:2"], "expected N:M with 1 ≤ N < M ≤ 32"),
        (
            &["quant.sparsity=2:5"],
            "quant.sparsity = 2:5: self_attn.q_proj: windows of sparsity 2:5 do not divide",
        ),
        (&["quant.sparsity=2:4", "quant.scale=sherry"], "\"sherry\", which is 3:4 by definition"),
        (&["quant.threshold=0.5"], "expected quant.scale = \"threshold\""),
        (&["quant.scale=threshold", "quant.threshold=0"], "quant.threshold = 0"),
        (
            &["quant.weights=none", "quant.activations=none", "quant.sparsity=2:4"],
            "no latent weights are quantized",
        ),
        (&["convert.schedule=none", "convert.start=12"], "be only partly ternary"),
    ] {
        let error = refused(set);
        assert!(error.contains(expected), "{set:?}: {error}");
    }
}

/// Training that begins in full precision and becomes quantized, with and without a rise, and every estimator.
#[test]
fn a_late_start_and_every_estimator_train_and_verify() {
    let project = Project::new();
    for (name, set) in [
        ("late", &["convert.schedule=none", "convert.start=3", "convert.steps=1"][..]),
        ("ramp", &["convert.schedule=linear", "convert.start=2", "convert.steps=3", "quant.granularity=row"]),
        ("qk", &["model.use_qk_norm=true", "model.use_sub_norm=false", "quant.granularity=128"]),
        ("clip", &["quant.ste=clip"]),
        ("trust", &["quant.ste=trust", "quant.scale=twn"]),
        ("damp", &["quant.ste=damp", "quant.granularity=128", "train.engine=candle"]),
    ] {
        let run = format!("runs/{name}");
        train(&project, &run, set);
        let file = format!("{name}.gguf");
        project.ok(&["export", &run, "-o", &file, "--embeddings", "f32"]);
        verified(&project, &run, &file);
    }
}

/// A run with learned scales goes on to the same bits, another begins from a model without them, and each matrix of a
/// checkpoint has its scales beside it.
#[test]
fn learned_scales_are_saved_resumed_and_begun() {
    let project = Project::new();
    for (scale, granularity) in [("lsq", "row"), ("seq", "tensor"), ("dqt", "tensor")] {
        let set = [format!("quant.scale={scale}"), format!("quant.granularity={granularity}")];
        let set = set.each_ref().map(String::as_str);
        let (whole, parts) = (format!("runs/{scale}-whole"), format!("runs/{scale}-parts"));
        train(&project, &whole, &set);
        train(&project, &parts, &set);
        // From the checkpoint after four steps.
        fs::remove_dir_all(project.path(&format!("{parts}/step-000006"))).unwrap();
        let fixed = ["model.intermediate_size=512".to_string(), "train.steps=6".to_string()];
        let out = format!("run.out={parts}");
        let keys = set.iter().copied().chain(fixed.iter().map(String::as_str)).chain([out.as_str()]);
        let args = ["train", "recipe.toml", "--quiet", "--resume"].into_iter();
        project.ok(&args.chain(keys.flat_map(|key| ["--set", key])).collect::<Vec<_>>());
        for file in ["model.safetensors", "optimizer.safetensors"] {
            let read = |run: &str| fs::read(project.path(&format!("{run}/step-000006/{file}"))).unwrap();
            assert_eq!(read(&whole), read(&parts), "{file}");
        }
        let read = |file: &str| {
            let bytes = fs::read(project.path(&format!("{whole}/step-000006/{file}"))).unwrap();
            String::from_utf8_lossy(&bytes[..bytes.len().min(1 << 16)]).into_owned()
        };
        if scale == "dqt" {
            continue;
        }
        assert!(read("model.safetensors").contains("model.layers.1.mlp.down_proj.weight_clip_val"));
        assert!(read("optimizer.safetensors").contains("mlp.down_proj.weight_clip_val.second"));
        let error = {
            let another = format!("quant.scale={}", if scale == "lsq" { "seq" } else { "lsq" });
            let set = [another.as_str(), out.as_str(), "model.intermediate_size=512"];
            let args = ["train", "recipe.toml", "--quiet", "--resume"].into_iter();
            project.fails(&args.chain(set.into_iter().flat_map(|key| ["--set", key])).collect::<Vec<_>>())
        };
        assert!(error.contains("quant.scale"), "{error}");
    }
    // From one kind to another: scales begin by their definition, or as the base has them.
    for (base, scale, name) in
        [("runs/lsq-whole", "seq", "a"), ("runs/seq-whole", "seq", "b"), ("runs/seq-whole", "absmean", "c")]
    {
        fs::write(project.path("again.toml"), on_base("again", "1e-3", "")).unwrap();
        let (base, scale, out) =
            (format!("model.base={base}"), format!("quant.scale={scale}"), format!("run.out=runs/{name}"));
        let set = [base.as_str(), scale.as_str(), out.as_str(), "train.steps=3"].into_iter();
        let args = ["train", "again.toml", "--quiet"].into_iter();
        project.ok(&args.chain(set.flat_map(|key| ["--set", key])).collect::<Vec<_>>());
        let (run, file) = (format!("runs/{name}"), format!("{name}.gguf"));
        project.ok(&["export", &run, "-o", &file, "--embeddings", "f32"]);
        verified(&project, &run, &file);
        project.ok(&["inspect", &run]);
        // A file does not say what its codes come from; they are the same.
        let printed = String::from_utf8(project.run(&["diff", &run, &file]).stdout).unwrap();
        assert!(printed.contains(" ternary codes flipped (0.0000 %)"), "{printed}");
    }
}

/// Temperatures that follow the Hessian: its scores are computed once, from the seed, the data and the first weights, and a resumed
/// run has those of its checkpoint.
#[test]
fn temperatures_that_follow_the_hessian_are_resumed() {
    let project = Project::new();
    let set = ["quant.codes=soft", "quant.hessian_alpha=0.4", "quant.granularity=row"];
    for run in ["whole", "parts"] {
        train(&project, run, &set);
    }
    train(&project, "alike", &["quant.codes=soft", "quant.granularity=row"]);
    let file = |run: &str, name: &str| fs::read(project.path(&format!("{run}/step-000006/{name}"))).unwrap();
    let scores = |run: &str| {
        let state: serde_json::Value = serde_json::from_slice(&file(run, "training.json")).unwrap();
        state["hessian_scores"].clone()
    };
    let found = scores("whole");
    assert_eq!(found.as_object().unwrap().len(), 14);
    let numbers: Vec<f64> =
        found.as_object().unwrap().values().map(|score| score.as_f64().unwrap()).collect();
    assert!(numbers.iter().all(|score| (0.0..=1.0).contains(score)), "{found}");
    assert!(numbers.iter().any(|score| *score > 0.6) && numbers.iter().any(|score| *score < 0.4), "{found}");
    assert_eq!(scores("parts"), found);
    assert!(scores("alike").is_null());
    assert_ne!(file("whole", "model.safetensors"), file("alike", "model.safetensors"));
    fs::remove_dir_all(project.path("parts/step-000006")).unwrap();
    let resume = |run: &str, set: &[&str]| {
        let out = format!("run.out={run}");
        let set = set.iter().copied().chain([out.as_str(), "model.intermediate_size=512", "train.steps=6"]);
        let args = ["train", "recipe.toml", "--quiet", "--resume"].into_iter();
        project.ok(&args.chain(set.flat_map(|key| ["--set", key])).collect::<Vec<_>>());
    };
    resume("parts", &set);
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert_eq!(file("whole", name), file("parts", name), "{name}");
    }
    assert_eq!(scores("parts"), found);
    project.ok(&["export", "whole", "-o", "whole.gguf", "--embeddings", "f32"]);
    verified(&project, "whole", "whole.gguf");
    // A run that begins to need them has those of the weights that it goes on with.
    fs::remove_dir_all(project.path("alike/step-000006")).unwrap();
    resume("alike", &set);
    assert!(scores("alike").is_object() && scores("alike") != found);
}
