//! The output head and the cross-entropy in one op: the [tokens, vocab] logits never exist at once.
//!
//! The gradients of both inputs are known as soon as a chunk of logits is, so the forward computes them there
//! and the backward only scales them.

use std::sync::{Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use tritforge_kernels::{log_sum_exp, softmax_in_place};

use super::composed;
use super::values::on_kernels;

/// The target that means: no loss at this position.
pub const IGNORE_INDEX: u32 = u32::MAX;

/// Logits a chunk holds at most: 8 Mi numbers, 32 MiB.
const CHUNK_LOGITS: usize = 8 << 20;

struct Computed {
    loss: f32,
    gradients: Mutex<Option<(Tensor, Tensor)>>,
}

impl CustomOp2 for Computed {
    fn name(&self) -> &'static str {
        "linear-cross-entropy"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F32(vec![self.loss]), Shape::from(())))
    }

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let Some((dh, dw)) = self.gradients.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            bail!("linear-cross-entropy: backward can run once only");
        };
        let upstream = f64::from(grad.to_scalar::<f32>()?);
        if upstream == 1.0 {
            return Ok((Some(dh), Some(dw)));
        }
        Ok((Some((dh * upstream)?), Some((dw * upstream)?)))
    }
}

/// `Σ −log softmax(h · Wᵀ)[target] / normalizer` over all rows whose target is not [`IGNORE_INDEX`].
///
/// h [tokens, width], weight [vocab, width], one target a row; the result is a scalar. The normalizer is the
/// number of targets of the whole optimizer step, so that the gradients of micro-batches add up to those of
/// one large batch.
///
/// # Errors
/// If shapes do not fit, a target is outside the vocabulary, or the normalizer is not positive.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    normalizer: f32,
) -> Result<Tensor> {
    let (tokens, _) = hidden.dims2()?;
    let (vocab, _) = weight.dims2()?;
    if targets.len() != tokens {
        bail!("linear-cross-entropy: {} targets for {tokens} rows", targets.len());
    }
    if let Some(bad) = targets.iter().find(|t| **t != IGNORE_INDEX && **t as usize >= vocab) {
        bail!("linear-cross-entropy: target {bad} is outside the vocabulary of {vocab}");
    }
    if normalizer.is_nan() || normalizer <= 0.0 {
        bail!("linear-cross-entropy: normalizer {normalizer}, expected the number of targets");
    }
    if !on_kernels(&[hidden, weight]) {
        return composed::linear_cross_entropy(hidden, weight, targets, normalizer);
    }
    let (h, w) = (hidden.detach(), weight.detach());
    let head = w.t()?;
    let rows_a_chunk = (CHUNK_LOGITS / vocab).clamp(1, tokens.max(1));
    let mut total = 0f64;
    let mut dh_chunks = Vec::new();
    let mut dw: Option<Tensor> = None;
    for start in (0..tokens).step_by(rows_a_chunk) {
        let rows = rows_a_chunk.min(tokens - start);
        let chunk = h.narrow(0, start, rows)?;
        let mut logits = chunk.matmul(&head)?.flatten_all()?.to_vec1::<f32>()?;
        let losses: Vec<f64> = logits
            .par_chunks_exact_mut(vocab)
            .zip(&targets[start..start + rows])
            .map(|(row, target)| row_gradient(row, *target, normalizer))
            .collect();
        total += losses.iter().sum::<f64>();
        let dlogits = Tensor::from_vec(logits, (rows, vocab), h.device())?;
        dh_chunks.push(dlogits.matmul(&w)?);
        let part = dlogits.t()?.matmul(&chunk)?;
        dw = Some(match dw {
            Some(sum) => (sum + part)?,
            None => part,
        });
    }
    let Some(dw) = dw else { bail!("linear-cross-entropy: no rows") };
    let dh = Tensor::cat(&dh_chunks, 0)?;
    let loss = (total / f64::from(normalizer)) as f32;
    hidden.apply_op2(weight, Computed { loss, gradients: Mutex::new(Some((dh, dw))) })
}

/// Turns a row of logits into the gradient of its loss over the normalizer, and returns the loss.
fn row_gradient(row: &mut [f32], target: u32, normalizer: f32) -> f64 {
    if target == IGNORE_INDEX {
        row.fill(0.0);
        return 0.0;
    }
    let target = target as usize;
    let loss = f64::from(log_sum_exp(row) - row[target]);
    softmax_in_place(row);
    row[target] -= 1.0;
    let factor = 1.0 / normalizer;
    row.iter_mut().for_each(|p| *p *= factor);
    loss
}
