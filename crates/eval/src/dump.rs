//! Logits as a file, for comparing with other runtimes.

use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};

use crate::EvalError;

/// Writes `ids`, one a token (U32), and `logits` [tokens, vocab] (F32) as safetensors.
///
/// # Errors
/// If the lengths do not fit or the file cannot be written.
pub fn write_logits(path: &Path, ids: &[u32], logits: &[f32], vocab: usize) -> Result<(), EvalError> {
    let fault = |e: &dyn std::fmt::Display| EvalError::Input(format!("{}: {e}", path.display()));
    let id_bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let logit_bytes: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let ids = TensorView::new(Dtype::U32, vec![ids.len()], &id_bytes).map_err(|e| fault(&e))?;
    let logits =
        TensorView::new(Dtype::F32, vec![ids.shape()[0], vocab], &logit_bytes).map_err(|e| fault(&e))?;
    let bytes = safetensors::serialize([("ids", ids), ("logits", logits)], None).map_err(|e| fault(&e))?;
    std::fs::write(path, bytes).map_err(|e| fault(&e))
}
