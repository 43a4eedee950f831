//! Preferences through the binary: pairs are learned, the reference is kept, a run goes on to the same bits.

#[path = "project/on_base.rs"]
mod on_base;
mod project;

use std::fs;

use on_base::on_base;
use project::Project;
use serde_json::Value;

fn recipe() -> String {
    let pairs = "train = \"pairs.jsonl\"\nrecords = \"preference\"\ntemplate = \"plain\"\nheld_out = 0.25\nsplit = \"contiguous\"\n\
                 seq_len = 64\n";
    on_base("preferring", "5e-3", "[dpo]\nbeta = 0.5\n")
        .replace("train = [\"text.txt\"]\nseq_len = 32\n", pairs)
        .replace("warmup_steps = 1\n", "warmup_steps = 0\nschedule = \"constant\"\nweight_decay = 0.0\n")
}

/// The answers that are preferred have one word, the others another.
fn pairs() -> String {
    let pair = |i: usize| {
        let answer = |word: &str| format!("{word} {}", ["one", "two", "the", "any"][i % 4]);
        let (chosen, rejected) = (answer("under"), answer("from"));
        format!("{{\"prompt\":\"Work {i}?\",\"chosen\":\"{chosen}\",\"rejected\":\"{rejected}\"}}\n")
    };
    (0..12).map(pair).collect()
}

/// A project with a base model, pairs, and a recipe for them.
fn project() -> Project {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    fs::write(project.path("dpo.toml"), recipe()).unwrap();
    fs::write(project.path("pairs.jsonl"), pairs()).unwrap();
    project
}

fn args<'a>(out: &'a str, set: &[&'a str]) -> Vec<&'a str> {
    let set = set.iter().flat_map(|key| ["--set", *key]);
    ["train", "dpo.toml", "--set", out].into_iter().chain(set).collect()
}

/// What a run said of its pairs, in the order of its steps.
fn preferences(project: &Project, run: &str, held_out: bool) -> Vec<Value> {
    let text = fs::read_to_string(project.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["event"] == "preferences" && e["held_out"] == held_out).collect()
}

#[test]
fn the_chosen_answers_gain_with_all_weights_and_with_adapters() {
    let project = project();
    for (run, set) in [
        ("runs/full", &[][..]),
        ("runs/beside", &["lora.rank=8"]),
        ("runs/inside", &["lora.rank=8", "lora.mode=qat_lora", "dpo.sft=0.1", "dpo.sft_loss=sum"]),
    ] {
        let out = format!("run.out={run}");
        let printed = project.ok(&args(&out, set));
        assert!(printed.contains("9 pairs for training, 3 held out"), "{printed}");
        assert!(printed.contains("log-probabilities of 24 answers"), "{printed}");
        assert!(printed.contains("step 8: held-out pairs: preference loss "), "{printed}");
        let train = preferences(&project, run, false);
        let number = |event: &Value, key: &str| event[key].as_f64().unwrap();
        // The model begins as its own reference: no margin at all, and ln 2 to lose.
        assert_eq!((number(&train[0], "margin"), number(&train[0], "accuracy")), (0.0, 0.0), "{run}");
        assert!((number(&train[0], "loss") - std::f64::consts::LN_2).abs() < 1e-12);
        let last = train.last().unwrap();
        assert!(number(last, "margin") > 0.3 && number(last, "accuracy") >= 0.75, "{run}: {last}");
        assert!(number(last, "loss") < 0.66, "{run}: {last}");
        // What is learned of nine pairs holds for the three that are like them.
        let held_out = preferences(&project, run, true);
        assert_eq!(held_out.len(), 2);
        assert!(number(&held_out[1], "margin") > 0.1, "{run}: {}", held_out[1]);
    }
    let report = fs::read_to_string(project.path("runs/full/report.html")).unwrap();
    assert!(report.contains("Margin") && report.contains("Accuracy"));
    // The model is one like any other.
    project.ok(&["export", "runs/full", "-o", "full.gguf", "--embeddings", "f32"]);
    project.ok(&["verify", "runs/full", "full.gguf", "--text", "text.txt", "--bound", "0"]);
}

#[test]
fn a_resumed_run_has_the_bits_of_one_that_ran_through() {
    let project = project();
    for (run, file, set) in [
        ("full", "model.safetensors", &["dpo.sft=0.2"][..]),
        ("lora", "adapter_model.safetensors", &["lora.rank=4", "lora.mode=qat_lora"]),
    ] {
        let (whole, parts) = (format!("runs/{run}-whole"), format!("runs/{run}-parts"));
        project.ok(&args(&format!("run.out={whole}"), set));
        let out = format!("run.out={parts}");
        let resume = || [args(&out, set), vec!["--resume"]].concat();
        project.ok(&args(&out, set));
        let weights = |run: &str| fs::read(project.path(&format!("{run}/step-000008/{file}"))).unwrap();
        let reference = |run: &str| fs::read(project.path(&format!("{run}/data/reference.bin"))).unwrap();
        assert_eq!(reference(&whole), reference(&parts));
        fs::remove_dir_all(project.path(&format!("{parts}/step-000008"))).unwrap();
        let printed = project.ok(&resume());
        assert!(!printed.contains("log-probabilities of"), "{printed}");
        assert!(weights(&whole) == weights(&parts));
        // Without the file the reference is made again, from the model that the run began with.
        fs::remove_dir_all(project.path(&format!("{parts}/step-000008"))).unwrap();
        fs::remove_file(project.path(&format!("{parts}/data/reference.bin"))).unwrap();
        let printed = project.ok(&resume());
        assert!(printed.contains("log-probabilities of"), "{printed}");
        assert_eq!(reference(&whole), reference(&parts));
        assert!(weights(&whole) == weights(&parts));
        // Nothing is compared with another model on the way.
        let other = [resume(), vec!["--set", "dpo.reference=runs/tiny/step-000010"]].concat();
        let refused = project.fails(&other);
        assert!(refused.contains("cannot resume") && refused.contains("dpo.reference"), "{refused}");
    }
}

/// Other losses of a margin, and objectives without a reference: the chosen answers gain, and a resumed run has the same bits.
#[test]
fn variants_and_objectives_without_a_reference_learn() {
    let project = project();
    for (name, section) in [
        ("hinge", "[dpo]\nbeta = 0.5\nloss = \"hinge\""),
        ("ipo", "[dpo]\nbeta = 0.5\nloss = \"ipo\""),
        ("norm", "[dpo]\nbeta = 5\nloss = \"sigmoid_norm\""),
        ("robust", "[dpo]\nbeta = 0.5\nloss = \"robust\"\nlabel_smoothing = 0.1"),
        ("orpo", "[orpo]\nbeta = 0.5"),
        ("simpo", "[simpo]"),
    ] {
        fs::write(project.path("dpo.toml"), recipe().replace("[dpo]\nbeta = 0.5", section)).unwrap();
        let run = format!("runs/{name}");
        let out = format!("run.out={run}");
        let printed = project.ok(&args(&out, &[]));
        let compares = section.starts_with("[dpo]");
        assert_eq!(printed.contains("log-probabilities of 24 answers"), compares, "{name}: {printed}");
        let of = |held_out: bool| -> Vec<f64> {
            let events = preferences(&project, &run, held_out);
            events.iter().map(|event| event["margin"].as_f64().unwrap()).collect()
        };
        let train = of(false);
        assert!(train[train.len() - 1] > train[0] + 0.1, "{name}: {train:?}");
        // What is learned of nine pairs holds for the three that are like them.
        let held_out = of(true);
        assert!(held_out[1] > train[0] + 0.1, "{name}: {held_out:?}");
        let weights = || fs::read(project.path(&format!("{run}/step-000008/model.safetensors"))).unwrap();
        let whole = weights();
        fs::remove_dir_all(project.path(&format!("{run}/step-000008"))).unwrap();
        project.ok(&[args(&out, &[]), vec!["--resume"]].concat());
        assert!(whole == weights(), "{name}");
    }
}

#[test]
fn a_reference_may_be_another_model() {
    let project = project();
    project.ok(&args("run.out=runs/other", &["dpo.reference=runs/tiny/step-000010", "train.steps=1"]));
    let first = &preferences(&project, "runs/other", false)[0];
    assert_ne!(first["margin"].as_f64(), Some(0.0));
    let missing = project.fails(&args("run.out=runs/missing", &["dpo.reference=nowhere"]));
    assert!(missing.contains("nowhere"), "{missing}");
}

#[test]
fn bad_pairs_and_contradictions_are_named() {
    let project = project();
    fs::write(project.path("pairs.jsonl"), pairs() + "{\"prompt\":\"Why?\",\"chosen\":\"So.\"}\n").unwrap();
    let refused = |set: &[&str]| project.fails(&args("run.out=runs/refused", set));
    let message = refused(&[]);
    assert!(message.contains("pairs.jsonl") && message.contains("line 13"), "{message}");
    assert!(message.contains("rejected"), "{message}");
    let printed = project.ok(&["data", "preview", "dpo.toml", "--set", "data.on_bad_sample=skip"]);
    assert!(printed.contains("rejected"), "{printed}");
    for (set, place) in [
        (&["dpo.beta=0"][..], "dpo.beta"),
        (&["dpo.sft=-1"], "dpo.sft"),
        (&["dpo.sft_loss=middle"], "dpo.sft_loss"),
        (&["data.loss=all"], "data.loss"),
        (&["data.packing=masked"], "data.packing"),
        (&["data.records=alpaca"], "data.records"),
        (&["lora.rank=4", "lora.dropout=0.1"], "lora.dropout"),
        (&["convert.schedule=linear"], "[convert]"),
        (&["distill.teacher=runs/tiny"], "[distill]"),
    ] {
        let message = refused(set);
        assert!(message.contains(place), "{set:?}: {message}");
    }
    fs::write(project.path("dpo.toml"), recipe().replace("[dpo]\nbeta = 0.5\n", "")).unwrap();
    let message = refused(&[]);
    assert!(message.contains("[dpo]") && message.contains("data.records"), "{message}");
}
