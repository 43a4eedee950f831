//! Recipes with noise on the embeddings: the same noise in micro-batches and in a run that goes on, none in evaluations.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tritforge_train::recipe::{Recipe, RecipeError};
use tritforge_train::{RunOptions, Silent, Summary, prepare, train};

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
neftune_noise_alpha = 5.0
log_every = 1
[optim]
lr = 1e-3
schedule = "constant"
warmup_steps = 0
[sample]
tokens = 0
"#;

fn parse(dir: &Path, text: &str, set: &[&str]) -> Result<Recipe, RecipeError> {
    let own = [format!("data.train={}/a.jsonl", dir.display()), format!("run.out={}/run", dir.display())];
    let set: Vec<String> = set.iter().map(ToString::to_string).chain(own).collect();
    Recipe::from_toml(Path::new("r.toml"), text, &set)
}

/// A run's end, its weights, and the losses of its steps.
fn run(dir: &Path, text: &str, set: &[&str], resume: bool) -> (Summary, Vec<u8>, Vec<f64>) {
    let line = |i: usize| format!("{{\"instruction\":\"Say {i}.\",\"output\":\"It is {}, né.\"}}\n", i % 7);
    fs::write(dir.join("a.jsonl"), (0..40).map(line).collect::<String>()).unwrap();
    let recipe = parse(dir, text, set).unwrap();
    let options = RunOptions { resume, overwrite: !resume, ..RunOptions::default() };
    let summary = train(&recipe, &prepare(&recipe, &Silent).unwrap(), &options).unwrap();
    let log = fs::read_to_string(dir.join("run/metrics.jsonl")).unwrap();
    let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = lines.filter(|line| line["event"] == "train");
    let losses = steps.map(|step| step["loss"].as_f64().unwrap()).collect();
    let weights = fs::read(summary.checkpoint.join("model.safetensors")).unwrap();
    (summary, weights, losses)
}

#[test]
fn a_run_resumes_to_the_same_bits_and_without_noise_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let go = |set: &[&str], resume| run(dir.path(), RECIPE, set, resume);
    let (_, whole, losses) = go(&[], false);
    assert!(go(&["run.seed=1"], false).2[0] != losses[0]);
    go(&["train.steps=2"], false);
    assert!(go(&[], true).1 == whole);
    // It may change from a checkpoint on.
    go(&["train.steps=2"], false);
    let (_, other, changed) = go(&["train.neftune_noise_alpha=10"], true);
    assert!(other != whole && changed[..2] == losses[..2] && changed[2] != losses[2]);
}

#[test]
fn evaluations_have_no_noise_and_micro_batches_have_that_of_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let without = RECIPE.replace("neftune_noise_alpha = 5.0\n", "");
    for packing in ["masked", "documents"] {
        let packing = format!("data.packing={packing}");
        // The rate is too small for the weights to move by a bit that matters.
        let still = ["optim.lr=1e-30", "optim.weight_decay=0", &packing];
        let (plain, _, clean) = run(dir.path(), &without, &still, false);
        let (found, _, noisy) = run(dir.path(), RECIPE, &still, false);
        assert_eq!((found.held_out_loss, found.bits_per_byte), (plain.held_out_loss, plain.bits_per_byte));
        assert!(noisy.iter().zip(&clean).all(|(a, b)| (a - b).abs() > 1e-6), "{noisy:?} {clean:?}");
        for (size, accumulation) in [(1, 4), (4, 1)] {
            let size = format!("train.batch_size={size}");
            let accumulation = format!("train.gradient_accumulation={accumulation}");
            let set = [&still[..], &[&size, &accumulation]].concat();
            let (_, _, same) = run(dir.path(), RECIPE, &set, false);
            // The sums of the rows in another order.
            assert!(same.iter().zip(&noisy).all(|(a, b)| (a - b).abs() < 1e-9), "{same:?} {noisy:?}");
        }
    }
}

#[test]
fn what_has_no_noise_is_refused() {
    for (set, message) in [
        ("train.neftune_noise_alpha=0", "train.neftune_noise_alpha = 0: expected a number above 0"),
        ("train.engine=candle", "train.neftune_noise_alpha contradicts train.engine = \"candle\""),
        ("orpo.beta=0.1", "train.neftune_noise_alpha contradicts [orpo]"),
    ] {
        let found = parse(Path::new("dir"), RECIPE, &[set]).unwrap_err().to_string();
        assert!(found.contains(message), "{set}: {found}");
    }
}
