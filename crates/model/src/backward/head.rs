//! The output head: logits, loss and their gradients, a chunk of tokens at a time.

use tritforge_kernels::{
    Matrix, WriteMode, gemm, parallel_for_each, rms_norm, rms_norm_backward, ternary_matmul,
};

use super::objective::Objective;
use super::workspace::Scratch;
use crate::device::sized;
use crate::linear::Linear;
use crate::{Decoder, Gradients, IGNORE_INDEX, ModelError};

/// Logits a chunk holds at most: 64 MiB.
const CHUNK_LOGITS: usize = 16 << 20;

/// Tokens of a chunk come in multiples of this where there are as many: the product sums the head's gradient
/// over as many terms at a time.
const CHUNK_UNIT: usize = 256;

/// Tokens whose logits are computed at once.
pub(super) fn chunk_tokens(vocab: usize) -> usize {
    let most = (CHUNK_LOGITS / vocab).max(1);
    if most < CHUNK_UNIT { most } else { most / CHUNK_UNIT * CHUNK_UNIT }
}

impl Decoder {
    /// Σ loss and Σ cross-entropy of the targets, given the residual stream x [tokens, hidden_size] behind the last block; the
    /// loss's gradient over the normalizer goes to `scratch.dx`, the final norm's and the head's are added. The products of a ternary
    /// head are those of the projections, its gradients f32.
    ///
    /// # Errors
    /// If a ternary head changed and was not quantized again.
    pub(super) fn head(
        &self,
        x: &[f32],
        targets: &[u32],
        objective: Objective<'_>,
        normalizer: f32,
        scratch: &mut Scratch,
        gradients: &mut Gradients,
    ) -> Result<[f64; 2], ModelError> {
        let (vocab, width) = (self.config().vocab_size, self.config().hidden_size);
        let (tokens, eps) = (targets.len(), self.config().rms_norm_eps);
        let Scratch { dx, passing, dgate, logits, head_input, .. } = scratch;
        let hidden = &mut passing.hidden;
        let norm = self.norm.read();
        let hidden = sized(hidden, x.len());
        rms_norm(x, &norm, eps, hidden);
        let dhidden = sized(dgate, x.len());

        let chunk = chunk_tokens(vocab);
        let ternary = self.output_table();
        let int8 = self.config().activations.is_integer();
        let weight = self.output_weight().read();
        let dense = Matrix::f32(&weight, vocab, width);
        let mut totals = [0f64; 2];
        for first in (0..tokens).step_by(chunk) {
            let rows = first..tokens.min(first + chunk);
            let numbers = rows.start * width..rows.end * width;
            let logits = sized(logits, rows.len() * vocab);
            let hidden = &hidden[numbers.clone()];
            let hidden = match ternary {
                None => Matrix::f32(hidden, rows.len(), width),
                Some(table) => {
                    head_input.take(hidden, width, int8.then(|| table.blend()));
                    head_input.matrix(width)
                }
            };
            match ternary.and_then(Linear::integers) {
                Some(weights) => ternary_matmul(&head_input.rows, weights, logits),
                None => multiply(ternary, dense, |table| {
                    gemm(hidden, table.transposed(), logits, WriteMode::Overwrite);
                })?,
            }
            let mut losses = vec![[0f64; 2]; rows.len()];
            let each = logits.chunks_exact_mut(vocab).zip(rows.clone()).zip(&mut losses);
            parallel_for_each(each, |((row, at), loss)| match targets[at] {
                IGNORE_INDEX => row.fill(0.0),
                target => *loss = objective.loss_and_grad(row, at, target as usize, 1.0 / normalizer),
            });
            for (i, total) in totals.iter_mut().enumerate() {
                *total += losses.iter().map(|loss| loss[i]).sum::<f64>();
            }
            let dlogits = Matrix::f32(logits, rows.len(), vocab);
            if let Some((dtable, write)) = gradients.slot(self.indices.output) {
                gemm(dlogits.transposed(), hidden, dtable, write);
            }
            multiply(ternary, dense, |table| {
                gemm(dlogits, table, &mut dhidden[numbers], WriteMode::Overwrite);
            })?;
        }
        let dx = sized(dx, x.len());
        let dnorm = gradients.slot(self.indices.norm);
        rms_norm_backward(x, &norm, eps, dhidden, (dx, WriteMode::Overwrite), dnorm);
        Ok(totals)
    }
}

/// Hands out the head as training multiplies it: the ternary one, if it is ternary, else `dense`.
fn multiply(
    ternary: Option<&Linear>,
    dense: Matrix<'_>,
    product: impl FnOnce(Matrix<'_>),
) -> Result<(), ModelError> {
    match ternary {
        Some(table) => table.with_matrix(product),
        None => {
            product(dense);
            Ok(())
        }
    }
}
