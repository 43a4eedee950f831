//! A name for all that the result of a run depends on. Runs have the same bits whatever the number of threads, so two
//! with the same name have the same result.

use std::path::Path;

use toml::{Table, Value};

use crate::recipe::Recipe;
use crate::{TrainError, identity};

/// Keys that name models which training reads: what counts is what is in them.
const MODELS: [(&str, &str); 4] =
    [("model", "base"), ("distill", "teacher"), ("dpo", "reference"), ("kto", "reference")];

/// SHA-256, in hexadecimal digits, of the resolved recipe without its name and directory, of `data`, which is the
/// fingerprint of its [`crate::Prepared`] data and stands for the files that the recipe names, of the content of the models
/// that it names, and of `program`, which identifies the program: its version, or better its executable's content.
/// What the processor decides by default, how the backward multiplies, counts as if the recipe said it.
///
/// # Errors
/// If a model that the recipe names cannot be read, or the recipe cannot be written as TOML.
pub fn run_identity(recipe: &Recipe, data: &str, program: &str) -> Result<String, TrainError> {
    let text = recipe.to_toml()?;
    let mut table: Table =
        text.parse().map_err(|e| TrainError::State(format!("the resolved recipe: {e}")))?;
    // Where a run is logged is no part of it.
    table.remove("log");
    let mut section = |name: &str, keys: &[&str]| {
        if let Some(Value::Table(section)) = table.get_mut(name) {
            keys.iter().for_each(|key| drop(section.remove(*key)));
        }
    };
    section("run", &["name", "out"]);
    section("data", &["source", "train", "sources", "column"]);
    // The tokenizer is in the fingerprint of what it encoded.
    section("tokenizer", &["path"]);
    for (name, key) in MODELS {
        let Some(Value::Table(section)) = table.get_mut(name) else { continue };
        if let Some(Value::String(path)) = section.get(key).cloned()
            && Path::new(&path).exists()
        {
            section.insert(key.to_string(), Value::String(of_path(Path::new(&path))?));
        }
    }
    let backward = recipe.quant.backward.resolved().name();
    Ok(identity::of_bytes(format!("{table}\n{data}\n{backward}\n{program}").as_bytes()))
}

/// All files of a directory with their names, or one file.
fn of_path(path: &Path) -> Result<String, TrainError> {
    if !path.is_dir() {
        return identity::of_files([path]);
    }
    let entries = std::fs::read_dir(path).map_err(TrainError::io(path, "list"))?;
    let entries: Result<Vec<_>, _> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut entries = entries.map_err(TrainError::io(path, "list"))?;
    entries.sort();
    let mut all = String::new();
    for entry in entries {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        all += &format!("{name} {}\n", of_path(&entry)?);
    }
    Ok(identity::of_bytes(all.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = "[model]\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\n[data]\ntrain = \"a.txt\"\n[train]\nsteps = 3\n";

    fn of(set: &str, data: &str, program: &str) -> String {
        let set: Vec<String> = set.split_whitespace().map(str::to_string).collect();
        let recipe = Recipe::from_toml(Path::new("r.toml"), RECIPE, &set).unwrap();
        run_identity(&recipe, data, program).unwrap()
    }

    #[test]
    fn what_the_result_depends_on_counts_and_nothing_else() {
        let one = of("", "d", "p");
        assert_eq!(one.len(), 64);
        for same in [
            "run.name=x",
            "run.out=elsewhere",
            "data.train=b.txt",
            "log.mlflow=http://x",
            "optim.lr=1e-3 optim.lr=1e-3",
        ] {
            let expected = if same.contains("lr") { of("optim.lr=1e-3", "d", "p") } else { one.clone() };
            assert_eq!(of(same, "d", "p"), expected, "{same}");
        }
        for other in ["run.seed=1", "optim.lr=7e-3", "train.steps=4", "data.order_seed=1"] {
            assert_ne!(of(other, "d", "p"), one, "{other}");
        }
        assert_ne!(of("", "e", "p"), one);
        assert_ne!(of("", "d", "q"), one);
    }

    #[test]
    fn models_count_by_their_content() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        let file = dir.path().join("sub/a");
        let digest = |text: &str| {
            std::fs::write(&file, text).unwrap();
            of_path(dir.path()).unwrap()
        };
        let one = digest("1");
        assert_ne!(one, digest("2"));
        assert_eq!(one, digest("1"));
        std::fs::rename(&file, dir.path().join("sub/b")).unwrap();
        assert_ne!(one, of_path(dir.path()).unwrap());
    }
}
