//! Exact evaluation: the forward whose logits are those of the exported file, bit for bit.
//!
//! Training computes the head by a blocked GEMM, whose order of summation is its own; evaluation computes it
//! by the kernel of the engine.

use tritforge_kernels::{
    DenseMatrix, LM_HEAD, Observer, Step, log_sum_exp, quantize_rows, ternary_matmul, ternary_matmul_i32,
};

use crate::decoder::{AttentionStates, Batch};
use crate::exact::Observers;
use crate::{Decoder, IGNORE_INDEX, ModelError};

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
    /// Logits of every token of equally long sequences, [tokens, vocab_size] row-major. The observer
    /// sees every quantized product.
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
        let hidden = self.hidden(ids, sequences, &[], Observers::default())?;
        let width = self.config().hidden_size;
        let wanted: Vec<f32> =
            rows.iter().flat_map(|row| &hidden[row * width..(row + 1) * width]).copied().collect();
        self.logits_of_hidden(&wanted, None)
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
        mut observer: Option<&mut Observer<'_>>,
    ) -> Result<Vec<f32>, ModelError> {
        let products = observer.as_mut().map(|observer| &mut **observer as &mut Observer<'_>);
        let hidden = self.hidden(ids, sequences, segments, Observers { products, states: None })?;
        self.logits_of_hidden(&hidden, observer)
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
        Ok((self.logits_of_hidden(&hidden, None)?, states))
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
    ) -> Result<(Vec<f32>, AttentionStates), ModelError> {
        if layer >= self.blocks.len() {
            let expected = format!("below the model's {}", self.blocks.len());
            return Err(ModelError::Input { what: "layer", found: layer.to_string(), expected });
        }
        let mut states = AttentionStates::default();
        let observers = Observers { products: None, states: Some((layer, &mut states)) };
        let hidden = self.hidden(ids, sequences, segments, observers)?;
        Ok((hidden, states))
    }

    fn logits_of_hidden(
        &self,
        hidden: &[f32],
        observer: Option<&mut Observer<'_>>,
    ) -> Result<Vec<f32>, ModelError> {
        let (vocab, width) = (self.config().vocab_size, self.config().hidden_size);
        let mut logits = vec![0f32; hidden.len() / width * vocab];
        let Some(table) = self.output_table() else {
            let weight = self.output_weight().read();
            DenseMatrix::from_f32(&weight, vocab, width).matmul(hidden, &mut logits);
            return Ok(logits);
        };
        match table.quantized() {
            Some(weights) => {
                let input = quantize_rows(hidden, width);
                if let Some(observer) = observer {
                    let mut sums = vec![0i32; logits.len()];
                    ternary_matmul_i32(&input, weights, &mut sums);
                    let layer = self.config().num_hidden_layers;
                    observer(Step { layer, projection: LM_HEAD, input: &input, sums: &sums });
                }
                ternary_matmul(&input, weights, &mut logits);
            }
            None => table.with_values(|weight| {
                DenseMatrix::from_f32(weight, vocab, width).matmul(hidden, &mut logits);
            })?,
        }
        Ok(logits)
    }

    /// ln p(target) at every position of the batch, 0 where the target is ignored.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn log_probs(&self, batch: &Batch<'_>) -> Result<Vec<f32>, ModelError> {
        let vocab = self.config().vocab_size;
        self.check_targets(batch)?;
        let logits = self.segment_logits(batch.ids, batch.sequences, batch.segments, None)?;
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
        let vocab = self.config().vocab_size;
        self.check_targets(batch)?;
        let logits = self.segment_logits(batch.ids, batch.sequences, batch.segments, None)?;
        let mut score = Score::default();
        for (row, target) in logits.chunks_exact(vocab).zip(batch.targets) {
            if *target != IGNORE_INDEX {
                score.nats += f64::from(log_sum_exp(row) - row[*target as usize]);
                score.targets += 1;
            }
        }
        Ok(score)
    }

    /// Whether there is a target for each id, in the vocabulary or ignored.
    pub(crate) fn check_targets(&self, batch: &Batch<'_>) -> Result<(), ModelError> {
        let vocab = self.config().vocab_size;
        let fault = |what, found: String, expected| Err(ModelError::Input { what, found, expected });
        if batch.targets.len() != batch.ids.len() {
            let expected = format!("{}, one an id", batch.ids.len());
            return fault("targets", batch.targets.len().to_string(), expected);
        }
        let known = |target: u32| target == IGNORE_INDEX || (target as usize) < vocab;
        match batch.targets.iter().find(|target| !known(**target)) {
            Some(bad) => fault("target", bad.to_string(), format!("below the vocabulary's {vocab}")),
            None => Ok(()),
        }
    }
}
