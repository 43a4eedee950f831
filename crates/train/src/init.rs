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
                let mut values = of_base(&base, config, folds, name, shape)?;
                if let (true, [_, cols]) = (folds && is_rotated(name), shape) {
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
    let of_base = |name: &str, shape: &[usize]| of_base(&base, config, false, name, shape);
    Ok(Decoder::load_adapted(config, lora, of_base, adapter)?)
}

/// Whether this is a weight whose input may be rotated.
fn is_rotated(name: &str) -> bool {
    let of = |p: &Projection| name.contains(p.hf_name()) && name.ends_with(".weight");
    [Projection::O, Projection::Down].iter().any(of)
}

/// A tensor of a base for a model of this configuration, which `folds` a rotation into it or out of it. Norms before projections that the base does not have
/// begin as 1, learned scales that it does not have as their quantizer says.
fn of_base(
    base: &LoadedModel,
    config: &ModelConfig,
    folds: bool,
    name: &str,
    shape: &[usize],
) -> Result<Vec<f32>, ModelError> {
    if let Some((layer, projection)) = config.learned_scales(name) {
        let its = base.config();
        let same =
            its.learns_scales() && (its.quantizer, its.granularity) == (config.quantizer, config.granularity);
        if !same {
            let shape = config.projection_shape(projection);
            let weight = projection.hf_weight(layer);
            let mut weights = base.parameter(&weight, &shape)?;
            if folds && is_rotated(&weight) {
                hadamard_in_place(&mut weights, shape[1]);
            }
            let initial = config.quantizer.initial_scales(config.granularity, &weights, shape)?;
            return Ok(initial.unwrap_or_default());
        }
    }
    let added = name.contains("_sub_norm") || name.ends_with("_proj.norm.weight");
    if added && !base.has(name) {
        return Ok(vec![1.0; shape.iter().product()]);
    }
    base.parameter(name, shape)
}
