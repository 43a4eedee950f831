//! One pass for many sequences, of which one may fail without the others.

use crate::step::{SequenceInput, step_needed};
use crate::{InferError, Logits, NeededLogits};

/// One pass for all parts. If it fails, one for each: whose fault it is shows when each runs alone, and the
/// sessions are as they were.
pub(crate) fn run_parts(
    parts: &mut [SequenceInput<'_>],
    needed: &[Option<NeededLogits>],
) -> Vec<Result<Logits, InferError>> {
    match step_needed(parts, needed) {
        Ok(logits) => logits.into_iter().map(Ok).collect(),
        Err(error) if parts.len() == 1 => vec![Err(error)],
        Err(_) => {
            let alone = |(part, needed): (&mut SequenceInput<'_>, &Option<NeededLogits>)| {
                let mut logits = step_needed(std::slice::from_mut(part), std::slice::from_ref(needed))?;
                Ok(logits.pop().unwrap_or_else(|| Logits::All(Vec::new())))
            };
            parts.iter_mut().zip(needed).map(alone).collect()
        }
    }
}
