//! Where a run's weights come from: drawn anew, read from `model.base`, or a base that stays as it is with an
//! adapter on it.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::{Checkpoint, MANIFEST, Tensors, latest};
use tritforge_config::{ADAPTER_CONFIG, LoraConfig, ModelConfig};
use tritforge_model::{Decoder, ModelError, initial_adapter};

use crate::TrainError;
use crate::recipe::Recipe;

/// The checkpoint that a path names: itself, or the newest of the run in that directory.
///
/// # Errors
/// If there is none; the message says what was expected.
pub(crate) fn checkpoint_of(path: &Path) -> Result<PathBuf, String> {
    let place = path.display();
    if path.is_file() {
        return Err(format!(
            "{place} is a file: expected a checkpoint; convert it with `tritforge import {place} -o DIR`"
        ));
    }
    if !path.is_dir() {
        return Err(format!("no directory {place}: expected a checkpoint or a run directory"));
    }
    if path.join(MANIFEST).is_file() {
        return Ok(path.to_path_buf());
    }
    match latest(path) {
        Ok(Some(found)) => Ok(found),
        Ok(None) if path.join(ADAPTER_CONFIG).is_file() => Err(format!(
            "{place} is an adapter: `tritforge merge {place} -o DIR` makes a checkpoint of it and its base"
        )),
        Ok(None) if path.join("config.json").is_file() => Err(format!(
            "{place} is a Hugging Face directory: convert it with `tritforge import {place} -o DIR`"
        )),
        Ok(None) => Err(format!("{place}: neither a checkpoint nor a run directory with one")),
        Err(error) => Err(error.to_string()),
    }
}

/// Opens what [`checkpoint_of`] finds.
pub(crate) fn open(path: &Path) -> Result<Checkpoint, TrainError> {
    let dir = checkpoint_of(path).map_err(TrainError::State)?;
    Ok(Checkpoint::open(&dir)?)
}

/// The model that a run of the recipe begins with.
pub(crate) fn model(recipe: &Recipe, config: &ModelConfig) -> Result<Decoder, TrainError> {
    let Some(base) = &recipe.model.base else { return Ok(Decoder::init(config, recipe.run.seed)?) };
    match &recipe.lora {
        Some(lora) => {
            let initial = initial_adapter(lora.mode, recipe.run.seed);
            adapted(recipe, config, &lora.config(), initial)
        }
        None => {
            let checkpoint = open(base)?;
            let tensors = checkpoint.model_tensors()?;
            Ok(Decoder::load(config, |name, shape| read(&tensors, name, shape))?)
        }
    }
}

/// The recipe's base with an adapter whose tensors `adapter` gives.
pub(crate) fn adapted(
    recipe: &Recipe,
    config: &ModelConfig,
    lora: &LoraConfig,
    adapter: impl FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError>,
) -> Result<Decoder, TrainError> {
    let base = recipe.model.base.as_deref().unwrap_or(Path::new(""));
    let checkpoint = open(base)?;
    let tensors = checkpoint.model_tensors()?;
    let load = |name: &str, shape: &[usize]| {
        let values = read(&tensors, name, shape)?;
        // The file's pages would be held beside the model's own.
        tensors.release(name);
        Ok(values)
    };
    Ok(Decoder::load_adapted(config, lora, load, adapter)?)
}

/// A tensor of a base. Norms before `o_proj` and `down_proj` that the base does not have begin as 1.
fn read(tensors: &Tensors, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    if name.contains("_sub_norm") && !tensors.has(name) {
        return Ok(vec![1.0; shape.iter().product()]);
    }
    match tensors.f32(name, shape) {
        Ok(values) => Ok(values.into_owned()),
        Err(error) => Err(ModelError::Tensor { name: name.to_string(), message: error.to_string() }),
    }
}
