//! Recipes with examples: prepared, trained on, measured on answers alone, resumed.

mod tiny;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use tiny::recipe_text;
use tritforge_data::{Reason, Sample};
use tritforge_train::recipe::{Dpo, Objective, Recipe};
use tritforge_train::{Prepared, RunOptions, SampleData, Silent, TrainError, prepare, train};

const SECTIONS: &str = r#"[tokenizer]
kind = "bpe"
vocab_size = 300
[data]
train = "data.jsonl"
records = "auto"
template = "chatml"
held_out = 0.2
seq_len = 64
[train]
steps = 6
batch_size = 2
eval_every = 3
[optim]
schedule = "constant"
warmup_steps = 0
[sample]
tokens = 2
"#;

fn recipe(dir: &Path, out: &str, overrides: &[&str]) -> Recipe {
    let text = recipe_text(&dir.join(out), SECTIONS);
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Recipe::from_toml(&dir.join("r.toml"), &text, &overrides).unwrap()
}

fn quiet(recipe: &Recipe) -> Result<Prepared, TrainError> {
    prepare(recipe, &Silent)
}

/// Forty instructions, and whatever else is to stand after them.
fn write(dir: &Path, more: &str) {
    let line = |i: usize| format!("{{\"instruction\":\"Say {i}.\",\"output\":\"It is {}, né.\"}}\n", i % 7);
    fs::write(dir.join("data.jsonl"), (0..40).map(line).collect::<String>() + more).unwrap();
}

/// What is learned of a sample.
fn learned(prepared: &Prepared, sample: &Sample) -> String {
    let kept = sample.ids.iter().zip(&sample.mask).filter(|(_, target)| **target).map(|(id, _)| *id);
    prepared.tokenizer.decode(&kept.collect::<Vec<_>>()).unwrap()
}

fn data(prepared: &Prepared) -> &SampleData {
    prepared.samples().unwrap()
}

#[test]
fn answers_alone_are_learned_and_a_run_resumes_to_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "");
    let options = RunOptions::default();
    let whole = recipe(dir.path(), "whole", &[]);
    let prepared = quiet(&whole).unwrap();
    let SampleData { train: samples, held_out, .. } = data(&prepared);
    assert_eq!(samples.len() + held_out.len(), 40);
    for sample in samples {
        let text = learned(&prepared, sample);
        assert!(text.starts_with("It is ") && text.ends_with(", né.<|im_end|>"), "{text}");
        // The end mark is no text: "It is 3, né."
        assert_eq!((sample.bytes, sample.source.contains("data.jsonl: line ")), (13, true));
    }
    // The template is in the vocabulary, and in the checkpoint.
    assert!(prepared.tokenizer.id("<|im_start|>").is_some());
    let summary = train(&whole, &prepared, &options).unwrap();
    assert!(
        fs::read_to_string(summary.checkpoint.join("tokenizer_config.json")).unwrap().contains("im_start")
    );
    // Bits a byte are those of the answers.
    let (bytes, targets) = held_out.iter().fold((0, 0), |(b, t), s| (b + s.bytes, t + s.targets()));
    let bits = summary.held_out_loss * targets as f64 / bytes as f64 / std::f64::consts::LN_2;
    assert!((summary.bits_per_byte - bits).abs() < 1e-9, "{} {bits}", summary.bits_per_byte);
    // Only answers are counted.
    let most: usize = samples.iter().map(Sample::targets).sum();
    assert!(summary.tokens > 0 && (summary.tokens as usize) < 3 * most, "{}", summary.tokens);
    // Stopped after three steps and gone on with, the run ends with the same weights.
    let half = recipe(dir.path(), "half", &["train.steps=3"]);
    train(&half, &quiet(&half).unwrap(), &options).unwrap();
    let rest = recipe(dir.path(), "half", &[]);
    let resume = RunOptions { resume: true, ..options.clone() };
    let resumed = train(&rest, &quiet(&rest).unwrap(), &resume).unwrap();
    let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&resumed.checkpoint) == weights(&summary.checkpoint));
    // Other samples are another order: a run does not go on with them.
    for (other, key) in [
        ("data.loss=all", "data.loss is \"all\""),
        ("data.packing=documents", "data.packing is \"documents\""),
        (
            "data.max_samples=30",
            "the training data or the tokenizer differ from those of the checkpoint (data.max_samples",
        ),
    ] {
        let other = recipe(dir.path(), "half", &["train.steps=8", other]);
        let error = train(&other, &quiet(&other).unwrap(), &resume).unwrap_err().to_string();
        assert!(error.contains("cannot resume") && error.contains(key), "{error}");
    }
}

#[test]
fn everything_is_learned_where_the_recipe_says_so() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "");
    let all = recipe(
        dir.path(),
        "all",
        &["data.loss=all", "data.packing=documents", "data.template=alpaca", "data.seq_len=256"],
    );
    let prepared = quiet(&all).unwrap();
    let sample = &data(&prepared).train[0];
    assert_eq!(sample.targets(), sample.ids.len() - 1);
    assert!(learned(&prepared, sample).starts_with("Below is an instruction"));
    train(&all, &prepared, &RunOptions::default()).unwrap();
}

#[test]
fn what_is_left_out_is_counted_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let long = format!("{{\"instruction\":\"Long.\",\"output\":\"{}\"}}\n", "wordy ".repeat(200));
    write(
        dir.path(),
        &format!(
            "{long}{{\"instruction\":\"Empty.\",\"output\":\" \"}}\n{{\"instruction\":\"Say 1.\"}}\nno JSON\n"
        ),
    );
    let error = |overrides: &[&str]| quiet(&recipe(dir.path(), "x", overrides)).unwrap_err().to_string();
    assert!(
        error(&[]).contains("data.jsonl: line 43: no column \"output\": found instruction"),
        "{}",
        error(&[])
    );
    let skip = "data.on_bad_sample=skip";
    let text = error(&[skip]);
    assert!(
        text.contains("data.jsonl: line 41: ")
            && text.contains("data.seq_len = 64 allows 65; 1 sample too long"),
        "{text}"
    );
    let reasons = |overrides: &[&str]| {
        let prepared = quiet(&recipe(dir.path(), "x", overrides)).unwrap();
        let report = &data(&prepared).report;
        let counts: Vec<_> = report.counts().into_iter().map(|(reason, count, _)| (reason, count)).collect();
        (counts, report.cut.len(), report.records)
    };
    let others = [(Reason::Malformed, 2), (Reason::EmptyAnswer, 1)];
    let (counts, cut, records) = reasons(&[skip, "data.truncation=drop"]);
    assert_eq!((counts, cut, records), ([others[0], others[1], (Reason::TooLong, 1)].to_vec(), 0, 44));
    let dropped = fs::read_to_string(dir.path().join("x/data/dropped.jsonl")).unwrap();
    assert_eq!(dropped.lines().count(), 4);
    assert!(dropped.contains("line 44\",\"reason\":\"malformed\""), "{dropped}");
    for side in ["left", "right"] {
        let (counts, cut, _) = reasons(&[skip, &format!("data.truncation={side}")]);
        assert_eq!((counts, cut), (others.to_vec(), 1));
    }
    // Without any other, all are kept up to the number asked for.
    let prepared = quiet(&recipe(dir.path(), "x", &["data.max_samples=10"])).unwrap();
    assert_eq!(data(&prepared).train.len() + data(&prepared).held_out.len(), 10);
    assert!(data(&prepared).report.limited && !dir.path().join("x/data/dropped.jsonl").exists());
}

#[test]
fn columns_and_templates_are_those_of_the_recipe() {
    let dir = tempfile::tempdir().unwrap();
    let line = |i: usize| format!("{{\"question\":\"Q{i}\",\"answer\":\"A{i}\"}}\n");
    fs::write(dir.path().join("data.jsonl"), (0..10).map(line).collect::<String>()).unwrap();
    fs::write(
        dir.path().join("own.jinja"),
        "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %}{% generation %}{{ m.content }}.\
         {% endgeneration %}{% endif %}{% endfor %}",
    )
    .unwrap();
    let columns = "data.columns={instruction=\"question\", output=\"answer\"}";
    let prepared =
        quiet(&recipe(dir.path(), "x", &[columns, "data.template=model"])).unwrap_err().to_string();
    assert!(prepared.contains("no chat template: set data.template"), "{prepared}");
    let text = recipe_text(&dir.path().join("x"), SECTIONS);
    let text = text
        .replace("\"chatml\"", "\"own.jinja\"\n[data.columns]\ninput = \"question\"\noutput = \"answer\"");
    let text = text.replace("held_out = 0.2\nseq_len = 64\n", "");
    let own = Recipe::from_toml(&dir.path().join("r.toml"), &text, &[]).unwrap();
    // What a recipe writes of itself, it reads back.
    let again = Recipe::from_toml(&dir.path().join("r.toml"), &own.to_toml().unwrap(), &[]).unwrap();
    assert_eq!(own, again);
    let prepared = quiet(&own).unwrap();
    let sample = &data(&prepared).train[0];
    let text = prepared.tokenizer.decode(&sample.ids).unwrap();
    assert!(text.starts_with("<|endoftext|>[Q") && text.ends_with('.'), "{text}");
    assert!(learned(&prepared, sample).starts_with('A'));
    let unnamed = quiet(&recipe(dir.path(), "x", &[])).unwrap_err().to_string();
    assert!(unnamed.contains("line 1: unknown columns question, answer"), "{unnamed}");
}

#[test]
fn a_template_that_does_not_teach_where_to_end_is_warned_of() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "");
    let template = |block: &str| {
        let text = format!("{{% for m in messages %}}<|{{{{ m.role }}}}|>{block}{{% endfor %}}");
        fs::write(dir.path().join("own.jinja"), text).unwrap();
        let own = format!("data.template={}", dir.path().join("own.jinja").display());
        let said = RefCell::new(Vec::new());
        let recipe = recipe(dir.path(), "x", &[&own]);
        prepare(&recipe, &|m: &str| said.borrow_mut().push(m.to_string())).unwrap();
        said.into_inner()
            .iter()
            .any(|message| message.starts_with("warning: the template writes <|end|> after answers"))
    };
    assert!(template("{% generation %}{{ m.content }}{% endgeneration %}<|end|>"));
    assert!(!template("{% generation %}{{ m.content }}<|end|>{% endgeneration %}"));
}

#[test]
fn pairs_of_answers_have_one_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let line =
        |i: usize| format!("{{\"prompt\":\"Say {i}.\",\"chosen\":\"Yes, {i}.\",\"rejected\":\"No.\"}}\n");
    fs::write(dir.path().join("data.jsonl"), (0..12).map(line).collect::<String>()).unwrap();
    let error = quiet(&recipe(dir.path(), "x", &[])).unwrap_err().to_string();
    assert!(error.contains("data.jsonl: line 1: found a pair of answers"), "{error}");
    // A recipe would need a base, of which nothing is read before training.
    let mut recipe = recipe(dir.path(), "x", &[]);
    let dpo = Dpo::default();
    recipe.objective = Objective::Dpo(dpo);
    let prepared = quiet(&recipe).unwrap();
    let pairs = prepared.pairs().unwrap();
    assert_eq!(pairs.train.len() + pairs.held_out.len(), 12);
    let pair = &pairs.train[0];
    let text = |ids: &[u32]| prepared.tokenizer.decode(ids).unwrap();
    assert!(text(pair.prompt()).starts_with("<|endoftext|><|im_start|>user\nSay "));
    assert!(text(pair.prompt()).ends_with("<|im_start|>assistant\n"));
    let answer = |sample: &Sample| {
        let ids = sample.ids.iter().zip(&sample.mask).filter(|(_, target)| **target);
        text(&ids.map(|(id, _)| *id).collect::<Vec<_>>())
    };
    assert!(answer(&pair.chosen).starts_with("Yes, ") && answer(&pair.rejected) == "No.<|im_end|>");
}
