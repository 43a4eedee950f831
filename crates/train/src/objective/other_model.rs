//! The memory of models that objectives compare with.

use std::fs;
use std::path::Path;

use tritforge_config::WeightQuant;
use tritforge_export::{ImportOptions, LoadedModel, ModelFormat};

use crate::TrainError;

/// Bytes that a model takes in the training forward.
///
/// # Errors
/// If there is no model at the path.
pub(super) fn decoder_bytes(path: &Path) -> Result<u64, TrainError> {
    let model = LoadedModel::open(path, &ImportOptions::default())?;
    let parameters = model.config().parameters();
    let (total, projections) = (parameters.total() as u64, parameters.projections as u64);
    // Codes take two bits, in both orders.
    Ok(match model.config().weights {
        WeightQuant::None => 4 * total,
        WeightQuant::Absmean => 4 * total + projections / 2,
        WeightQuant::Ternary => 4 * (total - projections) + projections / 2,
    })
}

/// Bytes that a teacher takes: of a GGUF file, which the engine runs as it is stored, about those of its files.
///
/// # Errors
/// As [`decoder_bytes`].
pub(super) fn teacher_bytes(path: &Path) -> Result<u64, TrainError> {
    let model = LoadedModel::open(path, &ImportOptions::default())?;
    if model.format() != ModelFormat::Gguf {
        return decoder_bytes(path);
    }
    let files = model.files();
    files.iter().map(|file| Ok(fs::metadata(file).map_err(TrainError::io(file, "read"))?.len())).sum()
}
