//! Recipes whose text comes in several formats and shares: what prepare makes of them, and that training
//! takes it.

mod tiny;

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use tiny::recipe_text;
use tritforge_train::recipe::Recipe;
use tritforge_train::{RunOptions, Silent, prepare, train};

const SECTIONS: &str = r#"[tokenizer]
kind = "characters"
[data]
held_out = 0.2
seq_len = 16
packing = "documents"
shard_tokens = 300
[[data.sources]]
path = "a.jsonl"
weight = 2
[[data.sources]]
path = "b*.csv"
weight = 1
column = "body"
[train]
steps = 4
batch_size = 2
gradient_accumulation = 2
save_every = 2
[sample]
prompt = "d"
tokens = 0
"#;

fn recipe(dir: &Path, out: &str, overrides: &[&str]) -> Recipe {
    let path = dir.join("r.toml");
    let text = recipe_text(&dir.join(out), SECTIONS);
    fs::write(&path, text).unwrap();
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Recipe::load(&path, &overrides).unwrap()
}

fn texts(dir: &Path) {
    let lines: Vec<String> = (0..40).map(|i| format!("{{\"text\": \"document number {i}\"}}\n")).collect();
    fs::write(dir.join("a.jsonl"), lines.concat() + "{\"text\": null}\n").unwrap();
    let lines: Vec<String> = (0..30).map(|i| format!("{i},row {i} of the table\n")).collect();
    fs::write(dir.join("b1.csv"), format!("id,body\n{}", lines.concat())).unwrap();
}

#[test]
fn a_mixture_is_prepared_counted_trained_on_and_resumed() {
    let dir = tempfile::tempdir().unwrap();
    texts(dir.path());
    let options = RunOptions::default();
    let resume = RunOptions { resume: true, ..options.clone() };
    let whole = recipe(dir.path(), "whole", &[]);
    let said = RefCell::new(Vec::new());
    let prepared = prepare(&whole, &|message: &str| said.borrow_mut().push(message.to_string())).unwrap();
    let said = said.into_inner();
    assert!(
        said[0].ends_with("a.jsonl: 40 documents, 710 bytes from 1 file; dropped 1 without text"),
        "{said:?}"
    );
    assert!(said[1].contains("b*.csv: 30 documents"), "{said:?}");
    assert!(said.iter().any(|m| m.contains("66.7 % of the samples")), "{said:?}");
    let parts = prepared.text().unwrap().train.parts();
    assert_eq!((parts.len(), parts[0].shards.len()), (2, 2));
    assert!(dir.path().join("whole/data/train-2.bin").is_file());
    let summary = train(&whole, &prepared, &options).unwrap();
    // Padding is no target.
    assert!(summary.tokens < 4 * 2 * 2 * 16 && summary.tokens > 0, "{}", summary.tokens);
    // Stopped after two steps and gone on with, the run ends with the same weights.
    let halves =
        recipe(dir.path(), "halves", &["train.steps=2", "optim.schedule=constant", "optim.warmup_steps=0"]);
    let rest = recipe(dir.path(), "halves", &["optim.schedule=constant", "optim.warmup_steps=0"]);
    let once = recipe(dir.path(), "once", &["optim.schedule=constant", "optim.warmup_steps=0"]);
    train(&halves, &prepare(&halves, &Silent).unwrap(), &options).unwrap();
    let prepared = prepare(&rest, &Silent).unwrap();
    let resumed = train(&rest, &prepared, &resume).unwrap();
    let straight = train(&once, &prepare(&once, &Silent).unwrap(), &options).unwrap();
    let weights = |dir: &Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&resumed.checkpoint) == weights(&straight.checkpoint));
    // Other weights are another order of samples: a run does not go on with them.
    let text = recipe_text(&dir.path().join("halves"), SECTIONS);
    let other = text.replace("weight = 2", "weight = 5").replace("steps = 4", "steps = 6");
    let other = Recipe::from_toml(&dir.path().join("r.toml"), &other, &[]).unwrap();
    let prepared = prepare(&other, &Silent).unwrap();
    let error = train(&other, &prepared, &resume).unwrap_err().to_string();
    assert!(error.contains("cannot resume: the training data"), "{error}");
}

#[test]
fn sources_without_weights_are_one_text() {
    let dir = tempfile::tempdir().unwrap();
    texts(dir.path());
    let text = recipe_text(&dir.path().join("one"), SECTIONS);
    let text = text.replace("weight = 2", "").replace("weight = 1", "");
    let recipe = Recipe::from_toml(&dir.path().join("r.toml"), &text, &[]).unwrap();
    let prepared = prepare(&recipe, &Silent).unwrap();
    assert_eq!(prepared.text().unwrap().train.parts().len(), 1);
    assert!(prepared.text().unwrap().held_out_text().contains("of the table"));
}
