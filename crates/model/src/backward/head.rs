//! The output head: logits, loss and their gradients, a chunk of tokens at a time.

use tritforge_kernels::{Matrix, WriteMode, gemm, parallel_for_each, rms_norm, rms_norm_backward};

use super::objective::Objective;
use super::workspace::Scratch;
use crate::device::sized;
use crate::{Decoder, Gradients, IGNORE_INDEX};

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
    /// Σ loss of the targets, given the residual stream x [tokens, hidden_size] behind the last block; its
    /// gradient over the normalizer goes to `scratch.dx`, the final norm's and the head's are added.
    pub(super) fn head(
        &self,
        x: &[f32],
        targets: &[u32],
        objective: Objective<'_>,
        normalizer: f32,
        scratch: &mut Scratch,
        gradients: &mut Gradients,
    ) -> f64 {
        let (vocab, width) = (self.config().vocab_size, self.config().hidden_size);
        let (tokens, eps) = (targets.len(), self.config().rms_norm_eps);
        let Scratch { dx, passing, dgate, logits, .. } = scratch;
        let hidden = &mut passing.hidden;
        let norm = self.norm.read();
        let hidden = sized(hidden, x.len());
        rms_norm(x, &norm, eps, hidden);
        let dhidden = sized(dgate, x.len());

        let chunk = chunk_tokens(vocab);
        let table = self.output_weight().read();
        let table = Matrix::f32(&table, vocab, width);
        let mut total = 0f64;
        for first in (0..tokens).step_by(chunk) {
            let rows = first..tokens.min(first + chunk);
            let numbers = rows.start * width..rows.end * width;
            let hidden = Matrix::f32(&hidden[numbers.clone()], rows.len(), width);
            let logits = sized(logits, rows.len() * vocab);
            gemm(hidden, table.transposed(), logits, WriteMode::Overwrite);
            let mut losses = vec![0f64; rows.len()];
            let each = logits.chunks_exact_mut(vocab).zip(rows.clone()).zip(&mut losses);
            parallel_for_each(each, |((row, at), loss)| match targets[at] {
                IGNORE_INDEX => row.fill(0.0),
                target => *loss = objective.loss_and_grad(row, at, target as usize, 1.0 / normalizer),
            });
            total += losses.iter().sum::<f64>();
            let dlogits = Matrix::f32(logits, rows.len(), vocab);
            if let Some((dtable, write)) = gradients.slot(self.indices.output) {
                gemm(dlogits.transposed(), hidden, dtable, write);
            }
            gemm(dlogits, table, &mut dhidden[numbers], WriteMode::Overwrite);
        }
        let dx = sized(dx, x.len());
        let dnorm = gradients.slot(self.indices.norm);
        rms_norm_backward(x, &norm, eps, dhidden, (dx, WriteMode::Overwrite), dnorm);
        total
    }
}
