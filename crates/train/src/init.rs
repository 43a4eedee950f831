//! Where a run's weights come from: drawn anew, read from `model.base`, or a base that stays as it is with an
//! adapter on it.

use std::path::{Path, PathBuf};

use tritforge_config::{LoraConfig, ModelConfig, Projection};
use tritforge_export::{ExportError, ImportOptions, LoadedModel, Located, locate};
use tritforge_kernels::hadamard_in_place;
use tritforge_model::{Decoder, ModelError, initial_adapter};

use crate::TrainError;
use crate::recipe::Recipe;

/// The configuration of the model that a path names, and where it is: of a run the directory of its newest
/// checkpoint. The weights are not opened where the configuration stands beside them.
///
/// # Errors
/// If it names no model; the message says what.
pub(crate) fn base_config(path: &Path) -> Result<(PathBuf, ModelConfig), ExportError> {
    match locate(path)? {
        Located::Checkpoint(checkpoint) => Ok((checkpoint.dir().to_path_buf(), checkpoint.config()?)),
        other => Ok((path.to_path_buf(), opened(other)?.config().clone())),
    }
}

/// Opens the base of a run.
///
/// # Errors
/// As [`base_config`], and if its weights are damaged.
pub(crate) fn base(path: &Path) -> Result<LoadedModel, ExportError> {
    opened(locate(path)?)
}

/// An adapter is no base: its weights are not those of one model.
fn opened(located: Located) -> Result<LoadedModel, ExportError> {
    LoadedModel::of(located, &ImportOptions::default(), &[])?.bare()
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
            // The product is the same in the basis of another rotation, which is its own inverse.
            let folds = config.rotation != base.config().rotation;
            Ok(Decoder::load(config, |name, shape| {
                let mut values = of_base(&base, name, shape)?;
                let rotated = [Projection::O, Projection::Down].iter().any(|p| name.contains(p.hf_name()));
                if let (true, true, [_, cols]) = (folds, rotated, shape) {
                    hadamard_in_place(&mut values, *cols);
                }
                Ok(values)
            })?)
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

/// A tensor of a base. Norms before projections that the base does not have begin as 1.
fn of_base(base: &LoadedModel, name: &str, shape: &[usize]) -> Result<Vec<f32>, ModelError> {
    let added = name.contains("_sub_norm") || name.ends_with("_proj.norm.weight");
    if added && !base.has(name) {
        return Ok(vec![1.0; shape.iter().product()]);
    }
    base.parameter(name, shape)
}
