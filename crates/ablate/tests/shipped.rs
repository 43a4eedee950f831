//! The experiments that come with the program.

use std::path::{Path, PathBuf};

use tritforge_ablate::{Experiment, recipes};
use tritforge_train::recipe::DataSource;

fn shipped() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ablations");
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> =
        files.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    files.sort();
    files
}

/// Every arm at every point is a recipe that can be trained, on data that every clone has; no two are the same.
#[test]
fn every_experiment_can_be_run() {
    let files = shipped();
    assert!(files.len() >= 12, "{files:?}");
    for file in files {
        let name = file.display();
        let experiment = Experiment::load(&file).unwrap_or_else(|e| panic!("{e}"));
        assert!(experiment.question.ends_with('?'), "{name}: {}", experiment.question);
        assert!(experiment.seeds.len() >= 3, "{name}");
        let arms = recipes(&experiment).unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut seen = Vec::new();
        for (arm, points) in experiment.arms.iter().zip(arms) {
            for (_, recipe) in points {
                assert_eq!(recipe.data.source, DataSource::RustSources, "{name}: {}", arm.name);
                // The rate falls to its end in every arm: all of them are whole runs.
                assert_eq!(recipe.train.steps % recipe.train.eval_every, 0, "{name}: {}", arm.name);
                let text = recipe.to_toml().unwrap();
                assert!(!seen.contains(&text), "{name}: {} is the recipe of another arm", arm.name);
                seen.push(text);
                recipe.model_config(512).unwrap().validate().unwrap();
            }
        }
    }
}
