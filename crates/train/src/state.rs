//! What a checkpoint keeps beside the model, and how a run finds its way back: to the same bits as without
//! interruption.

use std::path::Path;

use half::bf16;
use serde::{Deserialize, Serialize};
use tritforge_checkpoint::{Checkpoint, MODEL, TensorView, Tensors, Writer, latest};
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL, LoraConfig, ModelConfig};
use tritforge_data::BatchPosition;
use tritforge_model::{Decoder, Parameter};
use tritforge_text::Tokenizer;

use crate::ema::EmaWeights;
use crate::guard::Guard;
use crate::hessian::Scores;
use crate::optimizer::{Buffer, Optimizer, OptimizerConfig, StateTensor, StoredType};
use crate::recipe::Recipe;
use crate::recipe::resume::Changes;
use crate::{TrainError, identity, init};

/// The optimizer's moments.
const OPTIMIZER: &str = "optimizer.safetensors";
/// The average of the weights, where it is not the model.
const AVERAGE: &str = "ema.safetensors";
/// The weights that training goes on with, where the model is their average.
const LATEST: &str = "latest.safetensors";
/// Everything else.
const STATE: &str = "training.json";
/// The resolved recipe.
const RECIPE: &str = "recipe.toml";

/// Where a run stands, apart from its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Steps of the run: updates and skipped steps.
    pub(crate) step: u64,
    /// Target tokens seen.
    pub(crate) tokens: u64,
    /// Where the data stands: with the seed it also fixes all randomness of the batches.
    pub(crate) position: BatchPosition,
    /// Fingerprint of the token shards: the position means nothing in other data.
    pub(crate) data: String,
    /// Which optimizer's state this is, and in which types: [`describe`].
    pub(crate) optimizer: String,
    /// Updates that the optimizer made.
    pub(crate) updates: u64,
    /// Those that it made before its state began anew; 0 where it never did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) updates_before_reset: u64,
    /// What the guard remembers.
    pub(crate) guard: Guard,
    /// The lowest held-out loss so far, in nats a token.
    pub(crate) best_loss: Option<f64>,
    /// The step at which it was.
    pub(crate) best_step: Option<u64>,
    /// Evaluations since the held-out loss was last lower by `min_delta`.
    pub(crate) stale_evaluations: u64,
    /// The loss that it was compared with.
    pub(crate) reference_loss: Option<f64>,
    /// The base of an adapter ([`base_fingerprint`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) base_model: Option<String>,
    /// The model that the objective compares with, such as a teacher or a reference, by its content.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        alias = "teacher_model",
        alias = "reference_model"
    )]
    pub(crate) other_model: Option<String>,
    /// How sensitive each matrix was before the first step that needed to know, by the name of its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hessian_scores: Option<Scores>,
}

// serde hands references to `skip_serializing_if`.
fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The base that a recipe's adapter stands on, by its content; none without an adapter.
pub(crate) fn base_fingerprint(recipe: &Recipe) -> Result<Option<String>, TrainError> {
    let named = recipe.lora.as_ref().and(recipe.model.base.as_deref());
    named.map(|base| identity::of_model(&init::base(base)?)).transpose()
}

fn progress(checkpoint: &Checkpoint) -> Result<Progress, TrainError> {
    serde_json::from_slice(&checkpoint.file(STATE)?)
        .map_err(|e| TrainError::State(format!("{}: {STATE}: {e}", checkpoint.dir().display())))
}

/// Whether a recipe may go on from the newest checkpoint in its directory, as far as can be told from its
/// keys alone: before its data is prepared. Without a checkpoint it may.
///
/// # Errors
/// If a key has changed with which no run goes on; the message names it. If the checkpoint cannot be read.
pub fn check_resume(recipe: &Recipe) -> Result<(), TrainError> {
    match latest(&recipe.run.out)? {
        Some(found) => changes(&Checkpoint::open(&found)?, recipe).map(|_| ()),
        None => Ok(()),
    }
}

/// What has changed since a checkpoint was written.
fn changes(checkpoint: &Checkpoint, recipe: &Recipe) -> Result<Changes, TrainError> {
    if !checkpoint.has(RECIPE) {
        return Ok(Changes::default());
    }
    let before = checkpoint.file(RECIPE)?;
    let changes = Changes::between(&String::from_utf8_lossy(&before), recipe)
        .map_err(|e| TrainError::State(format!("{}: {RECIPE}: {e}", checkpoint.dir().display())))?;
    match changes.refused() {
        Some(message) => Err(TrainError::Resume { path: checkpoint.dir().to_path_buf(), message }),
        None => Ok(changes),
    }
}

/// What a checkpoint is made of.
#[derive(Clone, Copy)]
pub(crate) struct Snapshot<'a> {
    pub(crate) model: &'a Decoder,
    /// The checkpoint on which the model's adapter stands.
    pub(crate) base: Option<&'a Path>,
    pub(crate) optimizer: &'a Optimizer,
    /// The average of the weights, and whether it is the model.
    pub(crate) average: Option<(&'a EmaWeights, bool)>,
    pub(crate) tokenizer: &'a Tokenizer,
    /// The resolved recipe.
    pub(crate) recipe: &'a str,
    pub(crate) progress: &'a Progress,
}

/// An optimizer's kind and types in a word: what a checkpoint's state must agree with.
pub(crate) fn describe(config: &OptimizerConfig) -> String {
    let rule = config.rule.name();
    let name = |kind| if kind == StoredType::F32 { "f32" } else { "bf16" };
    format!("{rule} with {} state and {} weights", name(config.state), name(config.master))
}

/// Writes a checkpoint that a run can go on from and an exporter can read.
pub(crate) fn save(dir: &Path, snapshot: Snapshot<'_>) -> Result<(), TrainError> {
    let Snapshot { model, base, optimizer, average, tokenizer, recipe, progress } = snapshot;
    let parameters = model.parameters();
    let mut writer = Writer::create(dir)?;
    writer.write_config(model.config())?;
    let names: Vec<String> = parameters.iter().map(|p| stored_name(model.lora(), &p.name)).collect();
    let file = weights_file(model.lora());
    let (weights, averaged) = match average {
        Some((average, true)) => (LATEST, Some((file, average))),
        Some((average, false)) => (file, Some((AVERAGE, average))),
        None => (file, None),
    };
    write_weights(&mut writer, weights, parameters, &names, optimizer.config().master)?;
    if let Some((name, average)) = averaged {
        let views: Vec<_> = parameters
            .iter()
            .zip(&names)
            .zip(average.values())
            .map(|((p, name), values)| TensorView::new(name, p.tensor.dims(), values))
            .collect();
        writer.write_tensors(name, &views)?;
    }
    if let (Some(lora), Some(base)) = (model.lora(), base) {
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_path_buf());
        writer.write_file(ADAPTER_CONFIG, lora.to_json(&base.to_string_lossy()).as_bytes())?;
    }
    let named: Vec<_> = parameters
        .iter()
        .zip(optimizer.states())
        .flat_map(|(p, state)| {
            optimizer.config().state_tensors(p).into_iter().zip(state).map(move |t| (p, t))
        })
        .map(|(p, (tensor, values))| (format!("{}.{}", p.name, tensor.name), tensor.dims, values))
        .collect();
    let views: Vec<_> = named
        .iter()
        .map(|(name, dims, values)| match values {
            Buffer::F32(values) => TensorView::new(name, dims, values),
            Buffer::Bf16(values) => TensorView::bf16(name, dims, values),
        })
        .collect();
    writer.write_tensors(OPTIMIZER, &views)?;
    writer.write_file(tritforge_checkpoint::TOKENIZER, tokenizer.to_json()?.as_bytes())?;
    writer.write_file(tritforge_checkpoint::TOKENIZER_CONFIG, tokenizer.to_config_json().as_bytes())?;
    writer.write_file(RECIPE, recipe.as_bytes())?;
    let json = serde_json::to_vec_pretty(progress).map_err(|e| TrainError::State(e.to_string()))?;
    writer.write_file(STATE, &json)?;
    writer.commit()?;
    Ok(())
}

/// The file with the weights that a checkpoint is known by: a model's, or an adapter's as peft names it.
fn weights_file(lora: Option<&LoraConfig>) -> &'static str {
    if lora.is_some() { ADAPTER_MODEL } else { MODEL }
}

/// The name of a parameter in the files.
fn stored_name(lora: Option<&LoraConfig>, parameter: &str) -> String {
    if lora.is_some() { LoraConfig::peft_name(parameter) } else { parameter.to_string() }
}

fn write_weights(
    writer: &mut Writer,
    name: &str,
    parameters: &[Parameter],
    names: &[String],
    kind: StoredType,
) -> Result<(), TrainError> {
    let values: Vec<_> = parameters.iter().zip(names).map(|(p, name)| (p, name, p.tensor.read())).collect();
    match kind {
        StoredType::F32 => {
            let views: Vec<_> =
                values.iter().map(|(p, name, v)| TensorView::new(name, p.tensor.dims(), v)).collect();
            writer.write_tensors(name, &views)?;
        }
        StoredType::Bf16 => {
            // Exact: the optimizer leaves no other numbers.
            let narrow: Vec<(_, _, Vec<bf16>)> = (values.iter())
                .map(|(p, name, v)| (p, name, v.iter().map(|x| bf16::from_f32(*x)).collect()))
                .collect();
            let views: Vec<_> =
                narrow.iter().map(|(p, name, v)| TensorView::bf16(name, p.tensor.dims(), v)).collect();
            writer.write_tensors(name, &views)?;
        }
    }
    Ok(())
}

/// A run as it stood.
#[derive(Debug)]
pub(crate) struct Restored {
    pub(crate) model: Decoder,
    pub(crate) optimizer: Optimizer,
    pub(crate) average: Option<EmaWeights>,
    pub(crate) progress: Progress,
}

/// Reads a checkpoint of the recipe's model `wanted` back. If the recipe asks for an average of the weights
/// that the checkpoint does not have, it begins with its weights.
///
/// A run may go on with another length or schedule, never with another model, other data or another
/// optimizer.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    wanted: &ModelConfig,
    data: &str,
    recipe: &Recipe,
) -> Result<Restored, TrainError> {
    let (config, ema_decay) = (recipe.optimizer_config(), recipe.ema.map(|ema| ema.decay));
    let fault = |message: String| TrainError::Resume { path: checkpoint.dir().to_path_buf(), message };
    let progress = progress(checkpoint)?;
    let changes = changes(checkpoint, recipe)?;
    if &checkpoint.config()? != wanted {
        let suspects = changes.suspects(&["model", "tokenizer", "data"]);
        return Err(fault(format!(
            "the recipe now describes a different model than the checkpoint's config.json{suspects}"
        )));
    }
    if progress.data != data {
        let suspects = changes.suspects(&["data", "tokenizer", "model"]);
        return Err(fault(format!(
            "the training data or the tokenizer differ from those of the checkpoint{suspects}"
        )));
    }
    if let (Some(before), Some(now)) = (&progress.base_model, base_fingerprint(recipe)?)
        && *before != now
    {
        let suspects = changes.suspects(&["model"]);
        return Err(fault(format!(
            "model.base is not the checkpoint that the adapter was trained on so far{suspects}: its files \
             have different contents; set model.base to the original checkpoint"
        )));
    }
    let optimizer = describe(&config);
    if progress.optimizer != optimizer {
        let found = &progress.optimizer;
        return Err(fault(format!("the recipe now asks for {optimizer}, but the checkpoint has {found}")));
    }
    let lora = recipe.lora.as_ref().map(|lora| lora.config());
    if let Some(lora) = &lora {
        let text = checkpoint.file(ADAPTER_CONFIG)?;
        let (found, _) = LoraConfig::from_json(&String::from_utf8_lossy(&text))?;
        if found != *lora {
            return Err(fault(format!(
                "the recipe now asks for the adapter {lora:?}, but the checkpoint has {found:?}"
            )));
        }
    }
    let file = weights_file(lora.as_ref());
    let (weights, averaged) = match (checkpoint.has(LATEST), checkpoint.has(AVERAGE)) {
        (true, _) => (LATEST, Some(file)),
        (false, true) => (file, Some(AVERAGE)),
        (false, false) => (file, None),
    };
    let tensors = checkpoint.tensors(weights)?;
    let read = |name: &str, shape: &[usize]| {
        let values = tensors.f32(&stored_name(lora.as_ref(), name), shape).map_err(|e| {
            tritforge_model::ModelError::Tensor { name: name.to_string(), message: e.to_string() }
        })?;
        Ok(values.into_owned())
    };
    let mut model = match &lora {
        Some(lora) => init::adapted(recipe, wanted, lora, read)?,
        None => Decoder::load(wanted, read)?,
    };
    recipe.freeze(&mut model);
    let parameters = model.parameters();
    let average = match (ema_decay, averaged) {
        (Some(decay), Some(name)) => {
            let tensors = checkpoint.tensors(name)?;
            let read = |p: &Parameter| {
                let name = stored_name(lora.as_ref(), &p.name);
                Ok(tensors.f32(&name, p.tensor.dims())?.into_owned())
            };
            let values = parameters.iter().map(read);
            Some(EmaWeights::restore(decay, values.collect::<Result<_, TrainError>>()?))
        }
        (Some(decay), None) => Some(EmaWeights::new(decay, parameters)),
        (None, _) => None,
    };
    let stored = checkpoint.tensors(OPTIMIZER)?;
    // What a run froze so far has no state to go on with.
    let thawed = parameters.iter().find(|p| {
        let tensors = config.state_tensors(p);
        tensors.iter().any(|tensor| !stored.has(&format!("{}.{}", p.name, tensor.name)))
    });
    if let Some(p) = thawed.filter(|_| changes.has("optim", "groups")) {
        return Err(fault(format!(
            "optim.groups no longer freezes {}, but the checkpoint has no state of the optimizer for it: freeze it, or begin a \
             run whose model.base is this checkpoint",
            p.name
        )));
    }
    let states = parameters.iter().map(|p| {
        let tensors = config.state_tensors(p);
        tensors.iter().map(|tensor| read_buffer(&stored, p, tensor, config.state)).collect()
    });
    let states = states.collect::<Result<Vec<Vec<Buffer>>, TrainError>>()?;
    let optimizer = Optimizer::restore(config, states, progress.updates, progress.updates_before_reset);
    Ok(Restored { model, optimizer, average, progress })
}

fn read_buffer(
    stored: &Tensors,
    parameter: &Parameter,
    tensor: &StateTensor,
    kind: StoredType,
) -> Result<Buffer, TrainError> {
    let (name, shape) = (format!("{}.{}", parameter.name, tensor.name), &tensor.dims);
    Ok(match kind {
        StoredType::F32 => Buffer::F32(stored.f32(&name, shape)?.into_owned()),
        StoredType::Bf16 => Buffer::Bf16(stored.bf16(&name, shape)?),
    })
}

#[cfg(test)]
mod tests {
    use tritforge_data::Batches;

    use super::*;

    #[test]
    fn checkpoints_of_earlier_versions_name_their_teacher_or_reference() {
        let progress = |name: &str| {
            let json = serde_json::json!({
                "step": 3, "tokens": 9, "position": Batches::start(7), "data": "d", "optimizer": "o", "updates": 3,
                "guard": Guard::default(), "best_loss": 1.5, "best_step": 2, "stale_evaluations": 0,
                "reference_loss": null, name: "abc",
            });
            serde_json::from_value::<Progress>(json).unwrap()
        };
        for name in ["teacher_model", "reference_model", "other_model"] {
            assert_eq!(progress(name).other_model.as_deref(), Some("abc"), "{name}");
        }
        assert_eq!(progress("base_model").other_model, None);
    }
}
