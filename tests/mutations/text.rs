//! Recipes and what is put over them on the command line.

use std::fs;
use std::path::PathBuf;

use tritforge_ablate::Experiment;
use tritforge_train::recipe::Recipe;

use crate::harness::{Parser, Seed};
use crate::repository;

/// Bytes held a byte of TOML: the parser keeps two errors, of 260 bytes each, for one stray brace.
const TOML_TIMES: usize = 600;

/// Where recipes are taken to lie: shapes that they name are found from there, texts are not.
fn place() -> PathBuf {
    repository("recipes/damaged.toml")
}

const WORDS: [&str; 22] = [
    "[run]",
    "[model]",
    "[[data.sources]]",
    "[lora]",
    "[dpo]",
    "[distill]",
    "[quant]",
    "[optim]",
    "seed = ",
    "lr = ",
    "steps = ",
    "name",
    "weights = \"ternary\"",
    "kind = \"bpe\"",
    "\"\"\"",
    "'''",
    "=",
    ".",
    "#",
    "inf",
    "-inf",
    "1979-05-27T07:32:00Z",
];

/// A recipe whose every fault is told, or one that is written back to the same recipe.
#[test]
fn recipe_toml() {
    let accepted = |text: &str| Recipe::from_toml(&place(), text, &[]).is_ok();
    let mut seeds = Vec::new();
    let mut files: Vec<_> = fs::read_dir(repository("recipes")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        // Without the comments, which change nothing.
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let text = lines.join("\n");
        if accepted(&text) {
            seeds.push(Seed::whole(text));
        }
    }
    assert!(seeds.len() > 3, "{} recipes", seeds.len());
    Parser { name: "recipe_toml", seeds, words: &WORDS, times: TOML_TIMES, always: 256 << 10 }.check(
        |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let recipe = match Recipe::from_toml(&place(), &text, &[]) {
                Ok(recipe) => recipe,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    return false;
                }
            };
            let written = recipe.to_toml().unwrap();
            let again = Recipe::from_toml(&place(), &written, &[]);
            assert_eq!(again.unwrap().to_toml().unwrap(), written);
            true
        },
    );
}

/// An experiment whose every fault is told, or one with arms that differ.
#[test]
fn experiment_toml() {
    let place = repository("ablations/damaged.toml");
    let mut seeds = Vec::new();
    for name in ["sub-norm", "optimizer", "batch-size", "learning-rate", "full-precision"] {
        let text = fs::read_to_string(repository(&format!("ablations/{name}.toml"))).unwrap();
        assert!(Experiment::from_toml(&place, &text).is_ok(), "{name}");
        seeds.push(Seed::whole(text));
    }
    let words = [
        "[[arms]]",
        "[grid]",
        "[tune]",
        "[outputs]",
        "seeds = ",
        "set = {",
        "tune = {",
        "base = ",
        "budget = ",
        "\"a.b, c.d\" = ",
        "[[1, 2], [3, 4]]",
        "\"optim.lr\"",
        "1e-3",
        "= [",
        "\"\"\"",
        "inf",
        "1979-05-27T07:32:00Z",
        "margin = ",
    ];
    Parser { name: "experiment_toml", seeds, words: &words, times: TOML_TIMES, always: 256 << 10 }.check(
        |bytes| {
            let text = String::from_utf8_lossy(bytes);
            match Experiment::from_toml(&place, &text) {
                Ok(experiment) => {
                    let arms = &experiment.arms;
                    assert!(arms.len() > 1 && experiment.baseline < arms.len());
                    assert!((0..arms.len()).all(|arm| !experiment.points(arm).is_empty()));
                    true
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            }
        },
    );
}

/// `--set section.key=value`.
#[test]
fn recipe_overrides() {
    let recipe = "[run]\nname = \"a\"\n[model]\nhidden_size = 128\nintermediate_size = 128\nnum_hidden_layers = 1\n\
        num_attention_heads = 4\n[tokenizer]\nkind = \"characters\"\n[data]\ntrain = [\"a.txt\"]\nseq_len = 32\n\
        [train]\nsteps = 10\n";
    let seeds = [
        "optim.lr=2e-3",
        "run.name=x",
        "data.train=[\"a.txt\", \"b.txt\"]",
        "train.steps=20",
        "quant.weights=none",
    ];
    let seeds = seeds.map(Seed::whole).into();
    Parser { name: "recipe_overrides", seeds, words: &WORDS, times: TOML_TIMES, always: 256 << 10 }.check(
        |bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            Recipe::from_toml(&place(), recipe, &[text]).is_ok()
        },
    );
}
