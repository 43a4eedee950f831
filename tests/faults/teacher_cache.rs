//! The cache of a teacher's top-k logits: a damaged file, or one of other batches, is computed anew.

#[allow(dead_code, reason = "this test uses a part of it")]
#[path = "../project/mod.rs"]
mod project;

use std::fs;
use std::path::PathBuf;

use project::Project;

use crate::Round;

const RECIPE: &str = r#"
[run]
name = "distilled"
seed = 5
[model]
base = "runs/tiny"
[distill]
teacher = "runs/tiny"
top_k = 4
cache = "cache"
[data]
train = ["text.txt"]
seq_len = 16
[optim]
lr = 2e-3
warmup_steps = 1
[train]
steps = 3
batch_size = 1
gradient_accumulation = 2
[sample]
tokens = 0
"#;

/// The files of the cache, in order.
fn files(project: &Project) -> Vec<PathBuf> {
    let mut directories = fs::read_dir(project.path("cache")).unwrap().map(|entry| entry.unwrap().path());
    let directory = directories.next().unwrap();
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn caches_with_one_fault() {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet", "--set", "train.steps=4", "--set", "sample.tokens=0"]);
    fs::write(project.path("distill.toml"), RECIPE).unwrap();
    let train = || {
        let _ = fs::remove_dir_all(project.path("runs/distilled"));
        project.ok(&["train", "distill.toml", "--quiet"]);
        let weights = project.path("runs/distilled/step-000003/model.safetensors");
        crate::hash(&weights)
    };
    let right = train();
    let whole: Vec<Vec<u8>> = files(&project).iter().map(|file| fs::read(file).unwrap()).collect();
    assert_eq!(whole.len(), 6, "a file for every micro-batch");
    let mut round = Round::default();
    let length = whole[0].len();
    // Tokens of the batch, the teacher's tokens, its logits, the checksum.
    let places = [0, length / 3, length / 2, length - 40, length - 1];
    for at in places {
        for (file, bytes) in files(&project).iter().zip(&whole) {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            fs::write(file, other).unwrap();
        }
        round.take(&format!("byte {at} changed"), Ok(train()), &[], &right);
    }
    type Damage = fn(&[Vec<u8>], usize) -> Vec<u8>;
    let damages: [(&str, Damage); 5] = [
        ("cut", |all, i| all[i][..all[i].len() - 1].to_vec()),
        ("empty", |_, _| Vec::new()),
        ("longer", |all, i| [&all[i][..], &[0; 8]].concat()),
        ("of another batch", |all, i| all[(i + 1) % all.len()].clone()),
        ("NaN", |all, i| vec![0xff; all[i].len()]),
    ];
    for (what, damage) in damages {
        for (at, file) in files(&project).iter().enumerate() {
            fs::write(file, damage(&whole, at)).unwrap();
        }
        round.take(what, Ok(train()), &[], &right);
        for (file, bytes) in files(&project).iter().zip(&whole) {
            assert!(fs::read(file).unwrap() == *bytes, "{what}: {} is written anew", file.display());
        }
    }
    round.end(10);
}
