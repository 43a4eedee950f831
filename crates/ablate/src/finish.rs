//! What is kept of a run that has ended: its result, its exported model, and nothing else that grows.

use tritforge_checkpoint::{Checkpoint, latest, prune, step_dir};
use tritforge_export::{ExportOptions, export_gguf};
use tritforge_report::history;
use tritforge_train::document_losses;

use crate::AblateError;
use crate::experiment::Outputs;
use crate::plan::FrozenRun;
use crate::store::{RunResult, keep, was_stopped};

/// The exported model's name in the directory of its run.
pub(crate) const MODEL: &str = "model.gguf";

/// Reads what a run reached, exports its model, and keeps the result. None if it has not come to its end: it was
/// stopped. Its checkpoints stay if they are wanted or another run is to go on from them.
pub(crate) fn finish(
    run: &FrozenRun,
    diverged: Option<String>,
    outputs: &Outputs,
    goes_on: bool,
) -> Result<Option<RunResult>, AblateError> {
    let log = history(&run.dir)?;
    let last = log.train.last();
    let mut result = RunResult {
        id: run.id.clone(),
        diverged,
        bits_per_byte: None,
        held_out_loss: None,
        parameters: log.parameters,
        steps: last.map_or(0, |t| t.step),
        tokens: last.map_or(0, |t| t.tokens),
        seconds: seconds(&log.train),
        peak_memory: log.train.iter().filter_map(|t| t.peak_rss).max(),
        file_bytes: None,
        not_exported: None,
        documents: document_losses(&run.dir)?.map(|documents| documents.len()),
    };
    if result.diverged.is_none() {
        let Some(end) = log.evaluations.last().filter(|_| ended(run, &log)) else { return Ok(None) };
        (result.bits_per_byte, result.held_out_loss) = (Some(end.bits_per_byte), Some(end.loss));
        if outputs.export {
            match export(run) {
                Ok(bytes) => result.file_bytes = Some(bytes),
                Err(message) => result.not_exported = Some(message),
            }
        }
    }
    // The result comes before checkpoints are removed: without it the run would be made again.
    keep(&run.dir, &result)?;
    if !outputs.checkpoints && !goes_on {
        remove_checkpoints(run)?;
    }
    Ok(Some(result))
}

fn remove_checkpoints(run: &FrozenRun) -> Result<(), AblateError> {
    prune(&run.dir, 0, &[]).map_err(|error| AblateError::Train(error.into()))
}

/// Removes the checkpoint of a run that was kept for a longer one (`kept_step`), or all if none are wanted, once nothing
/// goes on from them.
pub(crate) fn release(run: &FrozenRun, kept_step: Option<u64>, outputs: &Outputs) -> Result<(), AblateError> {
    if !outputs.checkpoints {
        return remove_checkpoints(run);
    }
    let kept = kept_step.filter(|step| *step < run.recipe.train.steps).map(|step| step_dir(&run.dir, step));
    match kept.filter(|dir| dir.exists()) {
        Some(dir) => std::fs::remove_dir_all(&dir).map_err(AblateError::io(&dir, "remove")),
        None => Ok(()),
    }
}

/// Whether the last evaluation is that of the end: the run took all its steps, or ran out of patience.
fn ended(run: &FrozenRun, log: &tritforge_report::History) -> bool {
    let train = &run.recipe.train;
    let step = log.evaluations.last().map_or(0, |e| e.step);
    step == train.steps || (train.patience.is_some() && !was_stopped(&run.dir))
}

/// Seconds in training steps: the tokens between two lines of the log by the speed that the second gives.
pub(crate) fn seconds(steps: &[tritforge_report::Train]) -> f64 {
    let mut before = 0;
    let mut seconds = 0.0;
    for step in steps {
        // A run that went on logs some steps again.
        let tokens = step.tokens.saturating_sub(before);
        before = step.tokens;
        if step.tokens_per_second > 0.0 {
            seconds += tokens as f64 / step.tokens_per_second;
        }
    }
    seconds
}

/// Exports the model as its recipe says, and returns the file's length.
fn export(run: &FrozenRun) -> Result<u64, String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let checkpoint = latest(&run.dir).map_err(|e| text(&e))?.ok_or("no checkpoint is left")?;
    let checkpoint = Checkpoint::open(&checkpoint).map_err(|e| text(&e))?;
    let options = ExportOptions {
        packing: run.recipe.export.format,
        embeddings: run.recipe.export.embeddings,
        name: run.recipe.run.name.clone(),
        ..ExportOptions::default()
    };
    let path = run.dir.join(MODEL);
    export_gguf(&checkpoint, &path, &options).map_err(|e| text(&e))?;
    std::fs::metadata(&path).map(|file| file.len()).map_err(|e| text(&e))
}
