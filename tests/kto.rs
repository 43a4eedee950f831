//! Answers that were judged one by one, through the binary: good ones gain and bad ones lose, pairs are two of them, a run goes on to
//! the same bits, for any number of threads and any split of a step.

#[path = "project/on_base.rs"]
mod on_base;
mod project;

use std::fs;

use on_base::on_base;
use project::Project;
use serde_json::Value;

fn recipe(records: &str) -> String {
    let answers = format!(
        "train = \"answers.jsonl\"\nrecords = \"{records}\"\ntemplate = \"plain\"\nheld_out = 0.25\nsplit = \"contiguous\"\nseq_len = 64\n"
    );
    on_base("judging", "5e-3", "[kto]\nbeta = 0.5\n")
        .replace("train = [\"text.txt\"]\nseq_len = 32\n", &answers)
        .replace("warmup_steps = 1\n", "warmup_steps = 0\nschedule = \"constant\"\nweight_decay = 0.0\n")
}

/// Good answers have one word, bad ones another; each to a question of its own.
fn answers() -> String {
    let answer = |i: usize| {
        let (word, label) = if i.is_multiple_of(2) { ("under", true) } else { ("from", false) };
        let rest = ["one", "two", "the", "any"][i / 2 % 4];
        format!("{{\"prompt\":\"Work {i}?\",\"completion\":\"{word} {rest}\",\"label\":{label}}}\n")
    };
    (0..24).map(answer).collect()
}

/// A project with a base model, answers, and a recipe for them.
fn project() -> Project {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    fs::write(project.path("kto.toml"), recipe("unpaired-preference")).unwrap();
    fs::write(project.path("answers.jsonl"), answers()).unwrap();
    project
}

fn args<'a>(out: &'a str, set: &[&'a str]) -> Vec<&'a str> {
    let set = set.iter().flat_map(|key| ["--set", *key]);
    ["train", "kto.toml", "--set", out].into_iter().chain(set).collect()
}

/// What a run said of its answers, in the order of its steps.
fn judged(project: &Project, run: &str, held_out: bool) -> Vec<Value> {
    let text = fs::read_to_string(project.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|e| e["event"] == "preferences" && e["held_out"] == held_out).collect()
}

fn number(event: &Value, key: &str) -> f64 {
    event[key].as_f64().unwrap_or_else(|| panic!("no {key} in {event}"))
}

#[test]
fn good_answers_gain_with_all_weights_and_with_adapters() {
    let project = project();
    for (run, set) in [
        ("runs/full", &[][..]),
        ("runs/beside", &["lora.rank=8"]),
        ("runs/inside", &["lora.rank=8", "lora.mode=qat_lora", "kto.desirable_weight=1.2"]),
    ] {
        let out = format!("run.out={run}");
        let printed = project.ok(&args(&out, set));
        assert!(printed.contains("18 answers for training, 6 held out"), "{printed}");
        assert!(printed.contains("9 desirable and 9 undesirable answers"), "{printed}");
        // Each answer, and each prompt with the answer to another one.
        assert!(printed.contains("log-probabilities of 48 answers"), "{printed}");
        assert!(printed.contains("step 8: held-out answers: preference loss "), "{printed}");
        let train = judged(&project, run, false);
        // The model begins as its own reference: it stands at the point, and each loss is half its weight.
        let begins = ["point", "margin", "accuracy"].map(|key| number(&train[0], key));
        assert_eq!(begins, [0.0; 3], "{run}");
        if set.iter().all(|key| !key.contains("weight")) {
            assert_eq!(number(&train[0], "loss"), 0.5);
        }
        let last = train.last().unwrap();
        assert!(number(last, "margin") > 0.1 && number(last, "accuracy") >= 0.75, "{run}: {last}");
        assert!(number(last, "loss") < number(&train[0], "loss"), "{run}: {last}");
        assert!(train.iter().all(|event| number(event, "point") >= 0.0), "{run}");
        // What is learned of eighteen answers holds for the six that are like them.
        let held_out = judged(&project, run, true);
        assert_eq!(held_out.len(), 2);
        assert!(number(&held_out[1], "margin") > 0.05, "{run}: {}", held_out[1]);
    }
    // The model is one like any other.
    project.ok(&["export", "runs/full", "-o", "full.gguf", "--embeddings", "f32"]);
    project.ok(&["verify", "runs/full", "full.gguf", "--text", "text.txt", "--bound", "0"]);
    let printed = project.ok(&["train", "kto.toml", "--dry-run"]);
    assert!(printed.contains("peak memory"), "{printed}");
    let shown = project.ok(&["data", "preview", "kto.toml"]);
    assert!(shown.contains(", desirable") && shown.contains(", undesirable"), "{shown}");
}

#[test]
fn the_bits_are_the_same_for_any_number_of_threads_and_when_a_run_goes_on() {
    let project = project();
    for (run, file, set) in [
        ("full", "model.safetensors", &["kto.undesirable_weight=0.8"][..]),
        ("lora", "adapter_model.safetensors", &["lora.rank=4", "lora.mode=qat_lora"]),
    ] {
        let (whole, parts) = (format!("runs/{run}-whole"), format!("runs/{run}-parts"));
        let weights = |run: &str| fs::read(project.path(&format!("{run}/step-000008/{file}"))).unwrap();
        let reference = |run: &str| fs::read(project.path(&format!("{run}/data/reference.bin"))).unwrap();
        let (of_whole, out) = (format!("run.out={whole}"), format!("run.out={parts}"));
        project.ok(&[args(&of_whole, set), vec!["--threads", "1"]].concat());
        project.ok(&[args(&out, set), vec!["--threads", "3"]].concat());
        assert!(weights(&whole) == weights(&parts) && reference(&whole) == reference(&parts), "{run}");
        assert_eq!(judged(&project, &whole, true), judged(&project, &parts, true));
        // Killed after the first evaluation, the run goes on, with its file of the reference and without it.
        for kept in [true, false] {
            fs::remove_dir_all(project.path(&format!("{parts}/step-000008"))).unwrap();
            if !kept {
                fs::remove_file(project.path(&format!("{parts}/data/reference.bin"))).unwrap();
            }
            let printed = project.ok(&[args(&out, set), vec!["--resume"]].concat());
            assert_eq!(printed.contains("log-probabilities of"), !kept, "{printed}");
            assert!(weights(&whole) == weights(&parts) && reference(&whole) == reference(&parts), "{run}");
        }
        // Nothing is compared with another model on the way, and no label is another.
        let resume = |more: &[&str]| {
            let more = more.iter().flat_map(|key| ["--set", *key]).collect();
            project.fails(&[args(&out, set), vec!["--resume"], more].concat())
        };
        let refused = resume(&["kto.reference=runs/tiny/step-000010"]);
        assert!(refused.contains("cannot resume") && refused.contains("kto.reference"), "{refused}");
        let refused = resume(&["kto.beta=0.4"]);
        assert!(refused.contains("kto.beta is 0.4, but the run was started with 0.5"), "{refused}");
        fs::write(project.path("answers.jsonl"), answers().replacen("true", "false", 1)).unwrap();
        let refused = resume(&[]);
        assert!(refused.contains("cannot resume"), "{refused}");
        fs::write(project.path("answers.jsonl"), answers()).unwrap();
    }
}

#[test]
fn pairs_are_two_answers_and_the_other_loss_needs_no_point() {
    let project = project();
    let pair = |i: usize| {
        let rest = ["one", "two", "the", "any"][i % 4];
        format!("{{\"prompt\":\"Work {i}?\",\"chosen\":\"under {rest}\",\"rejected\":\"from {rest}\"}}\n")
    };
    fs::write(project.path("answers.jsonl"), (0..12).map(pair).collect::<String>()).unwrap();
    for (run, records, scored, set) in
        [("runs/pairs", "preference", 48, &[][..]), ("runs/apo", "auto", 24, &["kto.loss=apo_zero_unpaired"])]
    {
        fs::write(project.path("kto.toml"), recipe(records)).unwrap();
        let printed = project.ok(&args(&format!("run.out={run}"), set));
        assert!(printed.contains("18 answers for training, 6 held out"), "{printed}");
        assert!(printed.contains(&format!("log-probabilities of {scored} answers")), "{printed}");
        let train = judged(&project, run, false);
        assert_eq!(train[0].get("point").is_some(), set.is_empty());
        let held_out = judged(&project, run, true);
        assert!(number(&train[train.len() - 1], "margin") > 0.1, "{run}: {train:?}");
        assert!(number(&held_out[1], "margin") > 0.05, "{run}: {held_out:?}");
    }
}

#[test]
fn bad_labels_contradictions_and_imbalance_are_named() {
    let project = project();
    let refused = |set: &[&str]| project.fails(&args("run.out=runs/refused", set));
    fs::write(
        project.path("answers.jsonl"),
        answers() + "{\"prompt\":\"Why?\",\"completion\":\"So.\",\"label\":3}\n",
    )
    .unwrap();
    let message = refused(&[]);
    assert!(message.contains("answers.jsonl") && message.contains("line 25"), "{message}");
    assert!(message.contains("column \"label\" is a number, expected true or false"), "{message}");
    fs::write(
        project.path("answers.jsonl"),
        answers() + &answers().lines().next().unwrap().replace("true", "false"),
    )
    .unwrap();
    let found = project.ok(&["data", "lint", "kto.toml"]);
    assert!(found.contains("contradictory-labels") && found.contains("line 25"), "{found}");
    for (set, place) in [
        (&["kto.beta=0"][..], "kto.beta"),
        (&["kto.loss=dpo"], "kto.loss"),
        (&["kto.desirable_weight=0", "kto.undesirable_weight=0"], "kto.desirable_weight"),
        (&["train.batch_size=1", "train.gradient_accumulation=1"], "train.batch_size = 1: [kto]"),
        (&["data.loss=all"], "data.loss"),
        (&["data.packing=masked"], "data.packing"),
        (&["data.records=alpaca"], "data.records = \"unpaired-preference\" or \"preference\""),
        (&["train.neftune_noise_alpha=5"], "train.neftune_noise_alpha contradicts [kto]"),
        (&["lora.rank=4", "lora.dropout=0.1"], "lora.dropout"),
        (&["convert.schedule=linear"], "[convert]"),
        (&["dpo.beta=0.1"], "[dpo] contradicts [kto]"),
        (&["kto.reference=nowhere"], "nowhere"),
    ] {
        let message = refused(set);
        assert!(message.contains(place), "{set:?}: {message}");
    }
    // Three good answers for each bad one.
    let many: String = answers()
        .lines()
        .enumerate()
        .map(|(i, line)| {
            let line = if i % 4 == 1 { line.replace("false", "true") } else { line.to_string() };
            line + "\n"
        })
        .collect();
    fs::write(project.path("answers.jsonl"), &many).unwrap();
    let printed = project.ok(&args("run.out=runs/many", &["train.steps=1"]));
    assert!(
        printed.contains("desirable answers for each undesirable one; the paper has 1 to 1.33"),
        "{printed}"
    );
    // Without its section the data is not learned, with another neither.
    let without = recipe("unpaired-preference").replace("[kto]\nbeta = 0.5\n", "");
    for (sections, expected) in [
        (without.clone(), "training on answers that were judged needs a [kto] section"),
        (without.replace("unpaired-preference", "auto"), "found an answer with a label: add a [kto] section"),
        (without + "[orpo]\nbeta = 0.5\n", "[orpo] trains on pairs of answers"),
    ] {
        fs::write(project.path("kto.toml"), sections).unwrap();
        let message = refused(&[]);
        assert!(message.contains(expected), "{message}");
    }
}
