//! Training without a tape: loss and gradients in one call, a block at a time.
//!
//! The forward is [`crate::forward`]. The backward is written by hand. It keeps the int8 inputs of the products
//! instead of floats, computes norms and gates again, sums every gradient where it is kept, and allocates
//! nothing after the first step.

mod adapter;
mod block;
mod divergence;
mod embedding_noise;
mod head;
mod input_gradient;
mod objective;
mod products;
mod relation;
mod workspace;

use tritforge_kernels::{LossTerms, RopeTable};

use self::block::Pass;
pub use self::embedding_noise::EmbeddingNoise;
use self::objective::Objective;
pub use self::objective::{CrossEntropyLoss, Distillation, DistillationLoss};
pub(crate) use self::products::Segments;
pub use self::relation::Relation;
use self::workspace::Scratch;
pub use self::workspace::Workspace;
use crate::block::Block;
use crate::decoder::Batch;
use crate::device::sized;
use crate::{Decoder, Gradients, ModelError};

impl Decoder {
    /// Adds the gradients of `Σ cross-entropy / normalizer` over the batch's targets to `gradients`, and
    /// returns that loss. The normalizer is the number of targets of the whole optimizer step, so that
    /// micro-batches add up to one large batch.
    ///
    /// The result does not depend on the number of threads, nor on whether the workspace checkpoints.
    ///
    /// # Errors
    /// If the batch does not fit the model, the gradients are another model's, or the weights changed without
    /// [`Decoder::requantize`].
    pub fn forward_backward(
        &self,
        workspace: &mut Workspace,
        batch: &Batch<'_>,
        normalizer: f32,
        gradients: &mut Gradients,
    ) -> Result<f64, ModelError> {
        let objective = Objective::CrossEntropy;
        Ok(self.run_forward_backward(workspace, batch, objective, normalizer, gradients)?.total)
    }

    /// [`Decoder::forward_backward`] of `Σ loss / normalizer`, the loss of a target being its cross-entropy with
    /// these terms. Without any term it gives the same bits.
    ///
    /// # Errors
    /// As [`Decoder::forward_backward`], and if the label smoothing is not in [0, 1), or the z-loss is negative or not
    /// finite.
    pub fn forward_backward_with_terms(
        &self,
        workspace: &mut Workspace,
        batch: &Batch<'_>,
        terms: LossTerms,
        normalizer: f32,
        gradients: &mut Gradients,
    ) -> Result<CrossEntropyLoss, ModelError> {
        let fault = |what, found: f32, expected: &str| {
            Err(ModelError::Input { what, found: found.to_string(), expected: expected.to_string() })
        };
        if !(0.0..1.0).contains(&terms.label_smoothing) {
            return fault("label smoothing", terms.label_smoothing, "a number from 0 to less than 1");
        }
        if !(terms.z_loss >= 0.0 && terms.z_loss.is_finite()) {
            return fault("z-loss", terms.z_loss, "a number of at least 0");
        }
        self.run_forward_backward(workspace, batch, Objective::WithTerms(terms), normalizer, gradients)
    }

    /// [`Decoder::forward_backward`] of `Σ weight · cross-entropy / normalizer`, with a weight for each
    /// target: what objectives over log-probabilities need, whose derivatives by them the weights are. They
    /// may be negative; those of ignored targets do not count.
    ///
    /// # Errors
    /// As [`Decoder::forward_backward`], and if there is not one finite weight for each target.
    pub fn forward_backward_weighted(
        &self,
        workspace: &mut Workspace,
        batch: &Batch<'_>,
        weights: &[f32],
        normalizer: f32,
        gradients: &mut Gradients,
    ) -> Result<f64, ModelError> {
        let fault = |found: String, expected| Err(ModelError::Input { what: "weights", found, expected });
        if weights.len() != batch.targets.len() {
            return fault(weights.len().to_string(), format!("{}, one a target", batch.targets.len()));
        }
        if let Some(bad) = weights.iter().find(|weight| !weight.is_finite()) {
            return fault(bad.to_string(), "finite numbers".to_string());
        }
        let objective = Objective::Weighted(weights);
        Ok(self.run_forward_backward(workspace, batch, objective, normalizer, gradients)?.total)
    }

    /// [`Decoder::forward_backward`] of `Σ (ce · cross-entropy + kl · T² · KL(teacher ‖ model)) /
    /// normalizer`, and of the loss of [`Relation`], if there is one. Its gradient is one of the projections'
    /// outputs q, k, v: before norms of heads and RoPE.
    ///
    /// # Errors
    /// As [`Decoder::forward_backward`], and if the teacher's tokens and logits are not `k` for each of the
    /// batch's, a token is unknown, a logit is not finite, or a temperature is not above 0; if the relation
    /// is of a layer that does not exist, its heads do not divide the widths of both models, or its states
    /// are not those of the batch's tokens.
    pub fn forward_backward_distilled(
        &self,
        workspace: &mut Workspace,
        batch: &Batch<'_>,
        distillation: &Distillation<'_>,
        normalizer: f32,
        gradients: &mut Gradients,
    ) -> Result<DistillationLoss, ModelError> {
        let Distillation { ids, logits, k, temperature, relation, .. } = *distillation;
        let fault = |what, found: String, expected| Err(ModelError::Input { what, found, expected });
        let wanted = batch.ids.len() * k;
        if k == 0 || ids.len() != wanted || logits.len() != wanted {
            let expected = format!("{k} of each for {} tokens", batch.ids.len());
            return fault(
                "the teacher's tokens",
                format!("{} with {} logits", ids.len(), logits.len()),
                expected,
            );
        }
        let vocab = self.config().vocab_size;
        if let Some(bad) = ids.iter().find(|id| **id as usize >= vocab) {
            return fault("the teacher's token", bad.to_string(), format!("below the vocabulary's {vocab}"));
        }
        if let Some(bad) = logits.iter().find(|logit| !logit.is_finite()) {
            return fault("the teacher's logit", bad.to_string(), "a finite number".to_string());
        }
        if !(temperature > 0.0 && temperature.is_finite()) {
            return fault("temperature", temperature.to_string(), "a number above 0".to_string());
        }
        if !(0.0..=1.0).contains(&distillation.jsd_beta) {
            return fault("jsd_beta", distillation.jsd_beta.to_string(), "a number from 0 to 1".to_string());
        }
        if let Some(relation) = relation {
            relation.check(self.config(), batch.ids.len())?;
        }
        let objective = Objective::Distilled(distillation);
        let rest = self.run_forward_backward(workspace, batch, objective, normalizer, gradients)?.total;
        let Some(relation) = relation else { return Ok(DistillationLoss { total: rest, relation: 0.0 }) };
        let apart = workspace.scratch.relation.loss;
        Ok(DistillationLoss { total: rest + f64::from(relation.weight) * apart, relation: apart })
    }

    fn run_forward_backward(
        &self,
        workspace: &mut Workspace,
        batch: &Batch<'_>,
        objective: Objective<'_>,
        normalizer: f32,
        gradients: &mut Gradients,
    ) -> Result<CrossEntropyLoss, ModelError> {
        self.check(batch, normalizer, gradients)?;
        let mut lengths = std::mem::take(&mut workspace.lengths);
        batch.segment_lengths(&mut lengths)?;
        let relation = objective.relation();
        if relation.is_some() {
            workspace.scratch.relation.begin(&lengths, batch.targets);
        }
        self.embed(batch.ids, false, workspace.begin(lengths, self.blocks.len()))?;
        if let Some(noise) = workspace.embedding_noise {
            noise.check()?;
            let length = batch.ids.len() / batch.sequences;
            noise.add(&mut workspace.inputs[0], self.config().hidden_size, length, &workspace.lengths);
        }
        let mut cross_entropy = 0.0;
        let head = |x: &[f32], scratch: &mut Scratch, gradients: &mut Gradients| {
            let [total, plain] = self.head(x, batch.targets, objective, normalizer, scratch, gradients)?;
            cross_entropy = plain;
            Ok(total)
        };
        // Below the first block with anything to train nobody needs a gradient.
        let layers = self.blocks.len();
        let first = self.first_trained(gradients).min(relation.map_or(layers, |relation| relation.layer));
        let total = run_blocks(&self.blocks, first, &self.rope, relation, workspace, gradients, head)?;
        self.embed_backward(batch.ids, &workspace.scratch.dx, gradients);
        let n = f64::from(normalizer);
        Ok(CrossEntropyLoss { total: total / n, cross_entropy: cross_entropy / n })
    }

    /// The first block whose backward is needed: 0 where the embedding is trained, the number of blocks where nothing is.
    fn first_trained(&self, gradients: &Gradients) -> usize {
        if gradients.trains(self.indices.embedding) {
            return 0;
        }
        let trained = |block: &Block| block.parameters().any(|index| gradients.trains(index));
        self.blocks.iter().position(trained).unwrap_or(self.blocks.len())
    }

    /// Whether everything fits.
    fn check(&self, batch: &Batch<'_>, normalizer: f32, gradients: &Gradients) -> Result<(), ModelError> {
        self.sequence_length(batch.ids, batch.sequences)?;
        self.check_targets(batch)?;
        let fault = |what, found: String, expected: String| Err(ModelError::Input { what, found, expected });
        if normalizer.is_nan() || normalizer <= 0.0 {
            return fault("normalizer", normalizer.to_string(), "the number of targets".to_string());
        }
        let lengths = self.parameters().iter().map(|p| p.tensor.len());
        if !gradients.fit(lengths) {
            return fault("gradients", "another model's".to_string(), "this model's".to_string());
        }
        Ok(())
    }

    fn embed_backward(&self, ids: &[u32], dx: &[f32], gradients: &mut Gradients) {
        let width = self.config().hidden_size;
        let Some(table) = gradients.sum(self.indices.embedding) else { return };
        for (id, dx) in ids.iter().zip(dx.chunks_exact(width)) {
            let row = &mut table[*id as usize * width..][..width];
            row.iter_mut().zip(dx).for_each(|(sum, d)| *sum += d);
        }
    }
}

/// The forward through all blocks: of what [`Workspace::begin`] was given to what [`Workspace::output`] has.
pub(crate) fn forward_blocks(
    blocks: &[Block],
    rope: &RopeTable,
    relation: Option<&Relation<'_>>,
    workspace: &mut Workspace,
) -> Result<(), ModelError> {
    let Workspace { checkpointing, inputs, blocks: activations, scratch, positions, lengths, noise, .. } =
        workspace;
    let pass = Pass { lengths, tokens: positions.len(), rope, positions, noise: *noise, relation };
    for (i, block) in blocks.iter().enumerate() {
        let (before, after) = inputs.split_at_mut(i + 1);
        let kept = &mut activations[if *checkpointing { 0 } else { i }];
        block.forward(&before[i], &pass, kept, scratch, Some(&mut after[0]))?;
    }
    Ok(())
}

/// The forward through all blocks, what `head` makes of the last one's output, and the backward down to block `first`.
/// `head` returns a loss and writes its gradient by the output to `scratch.dx`, where afterwards that by the input is.
fn run_blocks(
    blocks: &[Block],
    first: usize,
    rope: &RopeTable,
    relation: Option<&Relation<'_>>,
    workspace: &mut Workspace,
    gradients: &mut Gradients,
    head: impl FnOnce(&[f32], &mut Scratch, &mut Gradients) -> Result<f64, ModelError>,
) -> Result<f64, ModelError> {
    forward_blocks(blocks, rope, relation, workspace)?;
    let Workspace { checkpointing, inputs, blocks: activations, scratch, positions, lengths, noise, .. } =
        workspace;
    let pass = Pass { lengths, tokens: positions.len(), rope, positions, noise: *noise, relation };
    let loss = head(&inputs[blocks.len()], scratch, gradients)?;
    for (i, block) in blocks.iter().enumerate().skip(first).rev() {
        let kept = &mut activations[if *checkpointing { 0 } else { i }];
        // The last block's activations are still there.
        if *checkpointing && i + 1 < blocks.len() {
            block.forward(&inputs[i], &pass, kept, scratch, None)?;
        }
        block.backward(&inputs[i], &pass, kept, scratch, gradients)?;
    }
    Ok(loss)
}

/// [`run_blocks`] with a loss of the output alone, which writes its derivative by each of the numbers.
pub(crate) fn run_blocks_with_loss(
    blocks: &[Block],
    rope: &RopeTable,
    workspace: &mut Workspace,
    gradients: &mut Gradients,
    loss: impl FnOnce(&[f32], &mut [f32]) -> f64,
) -> Result<f64, ModelError> {
    let head =
        |y: &[f32], scratch: &mut Scratch, _: &mut Gradients| Ok(loss(y, sized(&mut scratch.dx, y.len())));
    run_blocks(blocks, 0, rope, None, workspace, gradients, head)
}
