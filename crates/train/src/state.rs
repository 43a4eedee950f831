//! What a checkpoint keeps beside the model, and how a run finds its way back: to the same bits as without interruption.

use std::path::Path;

use serde::{Deserialize, Serialize};
use tritforge_checkpoint::{Checkpoint, TensorView, Writer};
use tritforge_data::BatchPosition;
use tritforge_nn::Decoder;
use tritforge_text::Tokenizer;

use crate::TrainError;
use crate::optimizer::{AdamW, AdamWConfig, Moments};

/// The optimizer's moments.
const OPTIMIZER: &str = "optimizer.safetensors";
/// Everything else.
const STATE: &str = "training.json";
/// The resolved recipe.
const RECIPE: &str = "recipe.toml";

/// Where a run stands, apart from its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Optimizer steps taken.
    pub(crate) step: u64,
    /// Target tokens seen.
    pub(crate) tokens: u64,
    /// Where the data stands: with the seed it also fixes all randomness of the batches.
    pub(crate) position: BatchPosition,
    /// Fingerprint of the token shards: the position means nothing in other data.
    pub(crate) data: String,
    /// The lowest held-out loss so far, in nats a token.
    pub(crate) best_loss: Option<f64>,
}

/// Writes a checkpoint that a run can go on from and an exporter can read.
pub(crate) fn save(
    dir: &Path,
    model: &Decoder,
    optimizer: &AdamW,
    tokenizer: &Tokenizer,
    recipe: &str,
    progress: &Progress,
) -> Result<(), TrainError> {
    let values = model.parameters().iter().map(|p| Ok((p, tritforge_nn::ops::values(&p.var)?)));
    let values = values.collect::<Result<Vec<_>, candle_core::Error>>()?;
    let mut writer = Writer::create(dir)?;
    writer.write_config(model.config())?;
    let views: Vec<_> = values.iter().map(|(p, v)| TensorView::new(&p.name, p.var.dims(), v)).collect();
    writer.write_tensors(tritforge_checkpoint::MODEL, &views)?;
    let named: Vec<_> = values
        .iter()
        .zip(optimizer.moments())
        .flat_map(|((p, _), m)| {
            [("first", &m.first), ("second", &m.second)]
                .map(|(moment, v)| (format!("{}.{moment}", p.name), p.var.dims(), v))
        })
        .collect();
    let views: Vec<_> = named.iter().map(|(name, dims, v)| TensorView::new(name, dims, v)).collect();
    writer.write_tensors(OPTIMIZER, &views)?;
    writer.write_file(tritforge_checkpoint::TOKENIZER, tokenizer.to_json()?.as_bytes())?;
    writer.write_file(tritforge_checkpoint::TOKENIZER_CONFIG, tokenizer.to_config_json().as_bytes())?;
    writer.write_file(RECIPE, recipe.as_bytes())?;
    let json = serde_json::to_vec_pretty(progress).map_err(|e| TrainError::State(e.to_string()))?;
    writer.write_file(STATE, &json)?;
    writer.commit()?;
    Ok(())
}

/// Reads a checkpoint back.
pub(crate) fn load(
    checkpoint: &Checkpoint,
    config: AdamWConfig,
) -> Result<(Decoder, AdamW, Progress), TrainError> {
    let tensors = checkpoint.tensors(tritforge_checkpoint::MODEL)?;
    let model = Decoder::load(&checkpoint.config()?, |name, shape| {
        let values = tensors
            .f32(name, shape)
            .map_err(|e| tritforge_nn::NnError::Tensor { name: name.to_string(), message: e.to_string() })?;
        Ok(values.into_owned())
    })?;
    let stored = checkpoint.tensors(OPTIMIZER)?;
    let moments = model
        .parameters()
        .iter()
        .map(|p| {
            let read = |moment: &str| stored.f32(&format!("{}.{moment}", p.name), p.var.dims());
            Ok(Moments { first: read("first")?.into_owned(), second: read("second")?.into_owned() })
        })
        .collect::<Result<Vec<_>, TrainError>>()?;
    let progress: Progress = serde_json::from_slice(&checkpoint.file(STATE)?)
        .map_err(|e| TrainError::State(format!("{}: {STATE}: {e}", checkpoint.dir().display())))?;
    let optimizer = AdamW::restore(config, moments, progress.step);
    Ok((model, optimizer, progress))
}
