//! Where a run's weights come from: drawn anew, read from `model.base`, or a base that stays as it is with an
//! adapter on it.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::Checkpoint;
use tritforge_config::{LoraConfig, ModelConfig};
use tritforge_export::{ImportOptions, LoadedModel, Located, open_checkpoint};
use tritforge_model::{Decoder, ModelError, initial_adapter};

use crate::TrainError;
use crate::recipe::Recipe;

/// The directory of the checkpoint that a path names: itself, or the newest of the run in that directory.
///
/// # Errors
/// If it names something else; the message says what.
pub(crate) fn checkpoint_of(path: &Path) -> Result<PathBuf, String> {
    Ok(open_checkpoint(path).map_err(|e| e.to_string())?.dir().to_path_buf())
}

/// Opens the checkpoint that a path names: itself, or the newest of the run in that directory.
pub(crate) fn open(path: &Path) -> Result<Checkpoint, TrainError> {
    Ok(open_checkpoint(path)?)
}

/// The model that a run of the recipe begins with.
pub(crate) fn model(recipe: &Recipe, config: &ModelConfig) -> Result<Decoder, TrainError> {
    let Some(path) = &recipe.model.base else { return Ok(Decoder::init(config, recipe.run.seed)?) };
    match &recipe.lora {
        Some(lora) => {
            let initial = initial_adapter(lora.mode, recipe.run.seed);
            adapted(recipe, config, &lora.config(), initial)
        }
        None => {
            let base = base(path)?;
            Ok(Decoder::load(config, |name, shape| of_base(&base, name, shape))?)
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
    let base = base(recipe.model.base.as_deref().unwrap_or(Path::new("")))?;
    Ok(Decoder::load_adapted(config, lora, |name, shape| of_base(&base, name, shape), adapter)?)
}

/// The base of a run.
fn base(path: &Path) -> Result<LoadedModel, TrainError> {
    let checkpoint = Located::Checkpoint(open(path)?);
    Ok(LoadedModel::of(checkpoint, &ImportOptions::default(), &[])?)
}

/// A tensor of a base. Norms before `o_proj` and `down_proj` that the base does not have begin as 1.
fn of_base(base: &LoadedModel, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    if name.contains("_sub_norm") && !base.has(name) {
        return Ok(vec![1.0; shape.iter().product()]);
    }
    base.parameter(name, shape)
}
