//! Log-probabilities of a batch's targets, for objectives that compare them.

use tritforge_model::{Batch, Decoder};

use crate::TrainError;
use crate::trainer::eval_sequences;

/// ln p of each target of a batch, 0 where it is ignored. At most 64 MiB of logits exist at a time, whatever the
/// size of the batch.
///
/// # Errors
/// If the batch does not fit the model.
pub(super) fn target_log_probs(model: &Decoder, batch: &Batch<'_>) -> Result<Vec<f32>, TrainError> {
    let length = batch.ids.len() / batch.sequences.max(1);
    let most = eval_sequences(length, model.config().vocab_size);
    let even = batch.ids.len() == length * batch.sequences && batch.targets.len() == batch.ids.len();
    if batch.sequences <= most || !even {
        return Ok(model.log_probs(batch)?);
    }
    let mut all = Vec::with_capacity(batch.targets.len());
    for first in (0..batch.sequences).step_by(most) {
        let sequences = most.min(batch.sequences - first);
        let range = first * length..(first + sequences) * length;
        let within = batch.segments.iter().filter(|at| range.contains(*at));
        let segments: Vec<usize> = within.map(|at| at - range.start).collect();
        let (ids, targets) = (&batch.ids[range.clone()], &batch.targets[range]);
        all.extend(model.log_probs(&Batch { ids, targets, sequences, segments: &segments })?);
    }
    Ok(all)
}

/// Σ ln p over the targets of each of a batch's sequences: the log-probabilities of answers whose prompts are
/// ignored.
///
/// # Errors
/// As [`target_log_probs`].
pub(super) fn sequence_log_probs(model: &Decoder, batch: &Batch<'_>) -> Result<Vec<f64>, TrainError> {
    let length = batch.ids.len() / batch.sequences.max(1);
    let each = target_log_probs(model, batch)?;
    Ok(each.chunks_exact(length).map(|own| own.iter().map(|p| f64::from(*p)).sum()).collect())
}
