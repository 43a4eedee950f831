//! The run of [`Kto`]: log-probabilities of answers and of answers to other prompts, what they are judged against, losses, and
//! the gradients of a model.

use tritforge_data::{LabelledSample, Sample};
use tritforge_model::{Batch, Decoder, Score};
use tritforge_report::Event;

use super::{Kto, KtoLoss};
use crate::TrainError;
use crate::objective::log_probs::sequence_log_probs;
use crate::objective::preference::{PreferenceStats, log_probs, tokens};
use crate::objective::{LossFunction, Pass};
use crate::training_data::counts;

/// The answers of a side of the split.
#[derive(Debug)]
pub(super) struct Judged {
    /// Whether each is a good one.
    desirable: Vec<bool>,
    /// Whether the cross-entropy of each counts in an evaluation, and its tokens.
    counts: Vec<bool>,
    targets: Vec<usize>,
    /// Each prompt with an answer to another one; none where nothing is judged against them.
    others: Vec<Sample>,
    /// The reference's log-probability of each answer, and then of each of `others`.
    reference: Vec<f64>,
    seq_len: usize,
}

impl Judged {
    pub(super) fn new(
        answers: &[LabelledSample],
        others: Vec<Sample>,
        reference: Vec<f64>,
        seq_len: usize,
    ) -> Self {
        Self {
            desirable: answers.iter().map(|answer| answer.desirable).collect(),
            counts: counts(answers).collect(),
            targets: answers.iter().map(|answer| answer.sample.targets()).collect(),
            others,
            reference,
            seq_len,
        }
    }

    /// The mean of `ln π − ln ρ` over the others of these answers, and at least 0. NaN if it is not finite: the loss is then
    /// NaN, too, which `train.on_nonfinite` decides about.
    fn point(&self, model: &Decoder, answers: &[usize]) -> Result<f64, TrainError> {
        let others: Vec<&Sample> = answers.iter().filter_map(|answer| self.others.get(*answer)).collect();
        if others.is_empty() {
            return Ok(0.0);
        }
        let (count, own) = (others.len() as f64, self.desirable.len());
        let policy = log_probs(model, others, self.seq_len)?;
        let apart = policy.iter().zip(answers).map(|(policy, i)| policy - self.reference[own + i]);
        let mean = apart.sum::<f64>() / count;
        Ok(if mean.is_finite() { mean.max(0.0) } else { f64::NAN })
    }
}

/// The loss of answers that were judged.
#[derive(Debug)]
pub(super) struct KtoPass {
    section: Kto,
    train: Judged,
    held_out: Judged,
    /// The SHA-256 of the reference's files.
    fingerprint: String,
    /// What the answers of the step and of the evaluation are judged against, in nats.
    pub(super) points: [f64; 2],
}

impl KtoPass {
    pub(super) fn new(section: Kto, train: Judged, held_out: Judged, fingerprint: String) -> Self {
        Self { section, train, held_out, fingerprint, points: [0.0; 2] }
    }

    /// What answers come to, by their log-probabilities, and the derivative of the sum of their losses by each of these.
    fn judge(
        &self,
        side: &Judged,
        answers: impl Iterator<Item = usize>,
        policy: &[f64],
        point: f64,
    ) -> (PreferenceStats, Vec<f64>) {
        let mut sums = PreferenceStats::default();
        let each = answers.zip(policy).map(|(answer, policy)| {
            let (desirable, r) = (side.desirable[answer], policy - side.reference[answer]);
            let [loss, by] = self.section.answer(desirable, r, point);
            let margin = if desirable { r - point } else { point - r };
            let right = usize::from(margin > 0.0);
            sums.add(PreferenceStats { pairs: 1, loss, sft: 0.0, right, margin });
            by
        });
        let by = each.collect();
        (sums, by)
    }
}

impl LossFunction for KtoPass {
    fn other_model(&self) -> Option<&str> {
        Some(&self.fingerprint)
    }

    /// What stands behind an answer need not look at it.
    fn separates_padding(&self) -> bool {
        true
    }

    /// The point is that of the whole step, however it is split into micro-batches.
    fn begin_step(&mut self, model: &Decoder, _: &[Batch<'_>], drawn: &[usize]) -> Result<(), TrainError> {
        self.points[0] = self.train.point(model, drawn)?;
        Ok(())
    }

    /// The point is that of the answers that every evaluation scores.
    fn begin_evaluation(&mut self, model: &Decoder, limit: usize) -> Result<(), TrainError> {
        let mut scored = 0;
        let first =
            self.held_out.targets.iter().zip(&self.held_out.counts).take_while(|(targets, counts)| {
                let within = scored < limit;
                scored += if **counts { **targets } else { 0 };
                within
            });
        let answers: Vec<usize> = (0..first.count()).collect();
        self.points[1] = self.held_out.point(model, &answers)?;
        Ok(())
    }

    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, pairs: answers, samples, gradients, .. } = pass;
        let policy = sequence_log_probs(model, batch)?;
        let (sums, by) = self.judge(&self.train, answers.iter().copied(), &policy, self.points[0]);
        // Cross-entropy is the negative log-probability: so is its weight the derivative.
        let length = batch.targets.len() / batch.sequences.max(1);
        let weights: Vec<f32> = by.iter().flat_map(|by| std::iter::repeat_n(-*by as f32, length)).collect();
        model.forward_backward_weighted(workspace, batch, &weights, samples as f32, gradients)?;
        Ok(sums.to_sums())
    }

    fn loss(&self, sums: &[f64]) -> f64 {
        PreferenceStats::of_sums(sums).map_or(f64::NAN, |answers| answers.objective())
    }

    fn event(&self, step: u64, held_out: bool, sums: &[f64]) -> Option<Event> {
        let point = self.points[usize::from(held_out)];
        let judged_by = (self.section.loss == KtoLoss::Kto).then_some(point);
        Some(PreferenceStats::of_sums(sums)?.event(step, held_out, judged_by))
    }

    /// The targets are those of the good answers.
    fn score(
        &self,
        model: &Decoder,
        batch: &Batch<'_>,
        row: usize,
        score: &mut Score,
    ) -> Result<Vec<f64>, TrainError> {
        let policy = sequence_log_probs(model, batch)?;
        let (sums, _) = self.judge(&self.held_out, row.., &policy, self.points[1]);
        let rows = batch.targets.chunks_exact(batch.targets.len() / policy.len());
        for ((answer, row), counts) in policy.iter().zip(rows).zip(&self.held_out.counts[row..]) {
            if *counts {
                score.add(Score { nats: -answer, targets: tokens(row) });
            }
        }
        Ok(sums.to_sums())
    }

    fn held_out_loss(&self, _: &Score, sums: &[f64]) -> f64 {
        self.loss(sums)
    }
}
