//! Exact evaluation: the forward whose logits are those of the exported file, bit for bit.
//!
//! Training computes the head by a blocked GEMM, whose order of summation is its own; evaluation computes it
//! by the kernel of the engine.

use candle_core::Tensor;
use tritforge_kernels::{DenseMatrix, Observer, log_sum_exp};

use crate::decoder::{AttentionStates, Batch};
use crate::ops::{IGNORE_INDEX, score_rows, values};
use crate::{Decoder, ModelError};

/// Cross-entropy over a number of targets.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Score {
    /// Σ −ln p(target), in nats.
    pub nats: f64,
    /// Number of targets.
    pub targets: usize,
}

impl Score {
    /// Mean cross-entropy in nats a target.
    pub fn mean(&self) -> f64 {
        self.nats / self.targets as f64
    }

    /// Adds another score.
    pub fn add(&mut self, other: Score) {
        self.nats += other.nats;
        self.targets += other.targets;
    }
}

impl Decoder {
    /// Logits of every token of equally long sequences, [tokens, vocab_size] row-major; nothing is put on the
    /// tape. The observer sees every quantized product.
    ///
    /// # Errors
    /// If the ids do not fit the model.
    pub fn logits(
        &self,
        ids: &[u32],
        sequences: usize,
        observer: Option<&mut Observer<'_>>,
    ) -> Result<Vec<f32>, ModelError> {
        self.segment_logits(ids, sequences, &[], observer)
    }

    /// [`Self::logits`] of the given tokens alone, [rows, vocab_size]; `rows` are positions in `ids`.
    ///
    /// # Errors
    /// If the ids do not fit the model, or a row is none of them.
    pub fn logits_of_rows(
        &self,
        ids: &[u32],
        sequences: usize,
        rows: &[usize],
    ) -> Result<Vec<f32>, ModelError> {
        if let Some(row) = rows.iter().find(|row| **row >= ids.len()) {
            let expected = format!("positions below {}", ids.len());
            return Err(ModelError::Input { what: "rows", found: row.to_string(), expected });
        }
        let hidden = self.hidden(ids, sequences, &[], false, None)?;
        let hidden = values(&hidden)?;
        let (vocab, width) = (self.config().vocab_size, self.config().hidden_size);
        let wanted: Vec<f32> =
            rows.iter().flat_map(|row| &hidden[row * width..(row + 1) * width]).copied().collect();
        let weight = values(self.output_weight())?;
        let mut logits = vec![0f32; rows.len() * vocab];
        DenseMatrix::from_f32(&weight, vocab, width).matmul(&wanted, &mut logits);
        Ok(logits)
    }

    /// [`Self::logits`] of sequences that hold several segments ([`Batch::segments`]).
    ///
    /// # Errors
    /// As [`Self::logits`], and if the segments do not ascend.
    pub fn segment_logits(
        &self,
        ids: &[u32],
        sequences: usize,
        segments: &[usize],
        observer: Option<&mut Observer<'_>>,
    ) -> Result<Vec<f32>, ModelError> {
        self.logits_of_hidden(&self.hidden(ids, sequences, segments, false, observer)?)
    }

    /// [`Self::segment_logits`], and the queries, keys and values of a layer, counted from 0.
    ///
    /// # Errors
    /// As [`Self::segment_logits`], and if there is no such layer.
    pub fn segment_logits_and_states(
        &self,
        ids: &[u32],
        sequences: usize,
        segments: &[usize],
        layer: usize,
    ) -> Result<(Vec<f32>, AttentionStates), ModelError> {
        let (hidden, states) = self.hidden_and_states(ids, sequences, segments, layer)?;
        Ok((self.logits_of_hidden(&hidden)?, states))
    }

    /// The queries, keys and values of a layer, counted from 0: what relations of tokens are made of
    /// ([`crate::Relation`]).
    ///
    /// # Errors
    /// As [`Self::segment_logits_and_states`].
    pub fn attention_states(
        &self,
        ids: &[u32],
        sequences: usize,
        segments: &[usize],
        layer: usize,
    ) -> Result<AttentionStates, ModelError> {
        Ok(self.hidden_and_states(ids, sequences, segments, layer)?.1)
    }

    fn hidden_and_states(
        &self,
        ids: &[u32],
        sequences: usize,
        segments: &[usize],
        layer: usize,
    ) -> Result<(Tensor, AttentionStates), ModelError> {
        if layer >= self.blocks.len() {
            let expected = format!("below the model's {}", self.blocks.len());
            return Err(ModelError::Input { what: "layer", found: layer.to_string(), expected });
        }
        let mut states = AttentionStates::default();
        let hidden = self.pass(ids, sequences, segments, false, None, Some((layer, &mut states)))?;
        Ok((hidden, states))
    }

    fn logits_of_hidden(&self, hidden: &Tensor) -> Result<Vec<f32>, ModelError> {
        let weight = values(self.output_weight())?;
        let (vocab, width) = (self.config().vocab_size, self.config().hidden_size);
        let head = DenseMatrix::from_f32(&weight, vocab, width);
        let hidden = values(hidden)?;
        let mut logits = vec![0f32; hidden.len() / width * vocab];
        head.matmul(&hidden, &mut logits);
        Ok(logits)
    }

    /// ln p(target) at every position of the batch, 0 where the target is ignored; nothing is put on the
    /// tape.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn log_probs(&self, batch: &Batch<'_>) -> Result<Vec<f32>, ModelError> {
        let vocab = self.config().vocab_size;
        let logits = self.segment_logits(batch.ids, batch.sequences, batch.segments, None)?;
        let fault = |what, found: String, expected| Err(ModelError::Input { what, found, expected });
        if batch.targets.len() != batch.ids.len() {
            let expected = format!("{}, one an id", batch.ids.len());
            return fault("targets", batch.targets.len().to_string(), expected);
        }
        if let Some(bad) = batch.targets.iter().find(|t| **t != IGNORE_INDEX && **t as usize >= vocab) {
            return fault("target", bad.to_string(), format!("below the vocabulary's {vocab}"));
        }
        let each = logits.chunks_exact(vocab).zip(batch.targets);
        Ok(each
            .map(|(row, target)| match *target {
                IGNORE_INDEX => 0.0,
                target => row[target as usize] - log_sum_exp(row),
            })
            .collect())
    }

    /// Scores the batch's targets.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn score(&self, batch: &Batch<'_>) -> Result<Score, ModelError> {
        let logits = self.segment_logits(batch.ids, batch.sequences, batch.segments, None)?;
        let (nats, targets) = score_rows(&logits, self.config().vocab_size, batch.targets)?;
        Ok(Score { nats, targets })
    }
}
