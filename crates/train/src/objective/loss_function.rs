//! What an objective does in a run: loss and gradients of each micro-batch, the score of what is held out, and what
//! is logged of both.

use std::fmt::Debug;

use tritforge_model::{Batch, Decoder, Gradients, Score, Workspace};
use tritforge_report::Event;

use crate::TrainError;

/// An objective that is ready, with all that it compares the model with.
pub(crate) trait LossFunction: Debug {
    /// Which other model it compares with, by the SHA-256 of its files. A checkpoint keeps it, so that a run goes on
    /// with no other.
    fn other_model(&self) -> Option<&str> {
        None
    }

    /// Whether the padding behind a sample that has a row for itself is a segment of its own, which does not see the
    /// sample.
    fn separates_padding(&self) -> bool {
        false
    }

    /// Looks at all micro-batches of a step before the first of them is passed, with the numbers of all its pairs or answers
    /// in the training data, if it is made of them.
    fn begin_step(
        &mut self,
        _model: &Decoder,
        _batches: &[Batch<'_>],
        _drawn: &[usize],
    ) -> Result<(), TrainError> {
        Ok(())
    }

    /// Gets ready for an evaluation of a model, of which the first samples with about `limit` targets are compared with those of
    /// other evaluations.
    fn begin_evaluation(&mut self, _model: &Decoder, _limit: usize) -> Result<(), TrainError> {
        Ok(())
    }

    /// Adds the gradients of a micro-batch's share of the step's loss, and returns what it comes to: the same numbers
    /// each time, to be added up over the step.
    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError>;

    /// The loss of a step, by the sums of what its micro-batches came to; the first sum where nothing else is said.
    fn loss(&self, sums: &[f64]) -> f64 {
        sums.first().copied().unwrap_or_default()
    }

    /// What is logged of a step beside its loss, by name.
    fn metrics(&self, _sums: &[f64]) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// What is logged in an event of its own, of a step or of an evaluation.
    fn event(&self, _step: u64, _held_out: bool, _sums: &[f64]) -> Option<Event> {
        None
    }

    /// Scores a batch of what is held out, whose first row is number `row` of all: adds its targets to `score`, and
    /// returns further numbers that are added up over the evaluation.
    fn score(
        &self,
        model: &Decoder,
        batch: &Batch<'_>,
        _row: usize,
        score: &mut Score,
    ) -> Result<Vec<f64>, TrainError> {
        score.add(model.score(batch)?);
        Ok(Vec::new())
    }

    /// The held-out loss, by the sums over an evaluation.
    fn held_out_loss(&self, score: &Score, _sums: &[f64]) -> f64 {
        score.mean()
    }
}

/// A micro-batch of a step.
#[derive(Debug)]
pub(crate) struct Pass<'a> {
    pub(crate) model: &'a Decoder,
    pub(crate) workspace: &'a mut Workspace,
    pub(crate) batch: &'a Batch<'a>,
    /// The numbers of its pairs or answers in the training data, if it is made of them.
    pub(crate) pairs: &'a [usize],
    /// The step, from 0, and the number of the micro-batch in it.
    pub(crate) step: u64,
    pub(crate) part: usize,
    /// Targets of the whole step, and its samples or pairs.
    pub(crate) targets: usize,
    pub(crate) samples: usize,
    /// What the gradients are added to.
    pub(crate) gradients: &'a mut Gradients,
}
