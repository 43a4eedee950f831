//! A recipe of a run of a second on samples, and the run.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tritforge_train::recipe::{Recipe, RecipeError};
use tritforge_train::{RunOptions, Silent, Summary, TrainError, prepare, train};

const RECIPE: &str = r#"
[model]
hidden_size = 256
intermediate_size = 256
num_hidden_layers = 1
num_attention_heads = 2
[tokenizer]
kind = "bpe"
vocab_size = 300
[data]
records = "auto"
template = "chatml"
held_out = 0.2
seq_len = 64
[train]
steps = 4
batch_size = 2
gradient_accumulation = 2
log_every = 1
[optim]
lr = 1e-3
schedule = "constant"
warmup_steps = 0
[sample]
tokens = 0
"#;

/// The recipe with some keys set, for the samples that [`write`] puts into a directory.
pub(crate) fn parse(dir: &Path, set: &[&str]) -> Result<Recipe, RecipeError> {
    let own = [format!("data.train={}/a.jsonl", dir.display()), format!("run.out={}/run", dir.display())];
    let set: Vec<String> = set.iter().map(ToString::to_string).chain(own).collect();
    Recipe::from_toml(Path::new("r.toml"), RECIPE, &set)
}

/// Samples to learn from.
pub(crate) fn write(dir: &Path) {
    let line = |i: usize| format!("{{\"instruction\":\"Say {i}.\",\"output\":\"It is {}, né.\"}}\n", i % 7);
    fs::write(dir.join("a.jsonl"), (0..40).map(line).collect::<String>()).unwrap();
}

/// A run, with the loss and the other numbers of its steps.
pub(crate) fn run(dir: &Path, set: &[&str], resume: bool) -> Result<(Summary, Vec<Value>), TrainError> {
    let recipe = parse(dir, set).unwrap();
    let options = RunOptions { resume, overwrite: !resume, ..RunOptions::default() };
    let summary = train(&recipe, &prepare(&recipe, &Silent)?, &options)?;
    let log = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    Ok((summary, lines.filter(|line| line["event"] == "train").collect()))
}

/// The weights at a run's end.
pub(crate) fn weights(summary: &Summary) -> Vec<u8> {
    fs::read(summary.checkpoint.join("model.safetensors")).unwrap()
}
