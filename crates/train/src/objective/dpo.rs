//! Direct preference optimization: its section of a recipe, and its run over pairs of answers, whose
//! log-probabilities by a reference model are computed once.

mod loss;
mod reference;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::ModelConfig;
use tritforge_data::{Packing, RecordKind};
use tritforge_model::{Batch, Decoder, IGNORE_INDEX, Score};
use tritforge_report::{Event, Sink};

use self::loss::{PreferenceStats, compare, dpo_forward_backward};
use self::reference::Reference;
use super::log_probs::sequence_log_probs;
use super::other_model::decoder_bytes;
use super::{Criterion, DataKind, LossFunction, Objective, Pass, RunStart, other_data};
use crate::recipe::resume::OnResume;
use crate::recipe::{Loss, Range, Reader, Recipe};
use crate::{TrainError, TrainingData};

/// Direct preference optimization (arXiv 2305.18290) on the pairs of `data.records = "preference"`, of which the model learns
/// to prefer one answer: `−ln σ(β · margin) + sft · cross-entropy of the chosen answer`, the margin being by how much more
/// than a reference the model prefers the chosen answer, in nats. A sample of `train.batch_size` is a pair.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Dpo {
    /// DPO's β; by default 0.1.
    pub beta: f64,
    /// Weight of the chosen answer's cross-entropy; by default 0.
    pub sft: f64,
    /// Whether that is the `"mean"` (the default) over the answer's tokens, or their `"sum"`.
    pub sft_loss: SftLoss,
    /// The reference: a model in any of the forms of `distill.teacher`, with the tokenizer of the model; by default the
    /// initial model. Its log-probabilities are computed once and kept in the run's `data/reference.bin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
}

/// What is added of an answer's cross-entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SftLoss {
    /// Its mean over the answer's tokens.
    Mean,
    /// Its sum over them.
    Sum,
}

/// β where the recipe does not say: that of the paper.
const BETA: f64 = 0.1;

impl Criterion for Dpo {
    fn read(r: &mut Reader) -> Option<Objective> {
        let losses = [("mean", SftLoss::Mean), ("sum", SftLoss::Sum)];
        let beta = r.number("dpo", "beta", Range::above(0.0));
        let sft = r.number("dpo", "sft", Range::at_least(0.0));
        let sft_loss = r.choice("dpo", "sft_loss", &losses);
        let reference = r.path("dpo", "reference");
        r.has_any("dpo").then(|| {
            Objective::Dpo(Self {
                beta: beta.unwrap_or(BETA),
                sft: sft.unwrap_or(0.0),
                sft_loss: sft_loss.unwrap_or(SftLoss::Mean),
                reference,
            })
        })
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        let data = &recipe.data;
        if recipe.model.base.is_none() {
            let message = "[dpo]: model.base is missing: expected the model to train on preferences";
            r.fault("dpo", "beta", message);
        }
        if !matches!(data.samples.records, Some(RecordKind::Preference | RecordKind::Auto)) {
            let message = "[dpo] trains on pairs of answers: expected data.records = \"preference\"";
            r.fault("data", "records", message);
        }
        if data.samples.loss == Loss::All {
            let message =
                "data.loss = \"all\" contradicts [dpo]: only the answers are compared, not the prompt";
            r.fault("data", "loss", message);
        }
        if data.packing == Packing::Masked {
            let message =
                "data.packing = \"masked\" contradicts [dpo]: answers are not packed; expected \"documents\"";
            r.fault("data", "packing", message);
        }
        if recipe.convert.is_some() {
            let message = "[convert] contradicts [dpo]: the reference log-probabilities would not match the \
                           trained model; convert first";
            r.fault("convert", "schedule", message);
        }
        if recipe.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0) {
            let message = "lora.dropout contradicts [dpo]: the reference log-probabilities would not match \
                           the trained model; leave it out";
            r.fault("lora", "dropout", message);
        }
    }

    fn on_resume(&self, key: &str) -> OnResume {
        if key == "reference" { OnResume::Content } else { OnResume::Fixed }
    }

    fn data(&self) -> DataKind {
        DataKind::Pairs
    }

    /// Pairs are scored before it is known how much their tokens count.
    fn extra_passes(&self) -> u32 {
        1
    }

    /// A reference with a name, which is there while it scores the pairs.
    fn memory(&self, _: &ModelConfig, _: &dyn Sink) -> Result<u64, TrainError> {
        let bytes = self.reference.as_deref().map_or(Ok(0), decoder_bytes);
        bytes.map_err(|e| TrainError::State(format!("dpo.reference: {e}")))
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        let TrainingData::Pairs(pairs) = &run.prepared.data else { return Err(other_data()) };
        let fingerprint = reference::fingerprint(self, run.recipe.model.base.as_deref())?;
        let message = "model.base or dpo.reference is not the reference model that this run was started \
                       with: set it to the original checkpoint";
        run.same_model(&fingerprint, message)?;
        let reference = Reference::open(self, run, pairs, &fingerprint)?;
        Ok(Box::new(DpoLoss { section: self.clone(), reference, fingerprint }))
    }
}

/// The loss of pairs against a reference.
#[derive(Debug)]
struct DpoLoss {
    section: Dpo,
    reference: Reference,
    /// SHA-256 of the reference's files.
    fingerprint: String,
}

impl LossFunction for DpoLoss {
    fn other_model(&self) -> Option<&str> {
        Some(&self.fingerprint)
    }

    /// What stands behind an answer need not look at it.
    fn separates_padding(&self) -> bool {
        true
    }

    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, pairs, samples, gradients, .. } = pass;
        let reference = self.reference.of(pairs);
        let (section, normalizer) = (&self.section, samples as f32);
        let found =
            dpo_forward_backward(model, workspace, batch, &reference, section, normalizer, gradients)?;
        Ok(found.to_sums())
    }

    fn loss(&self, sums: &[f64]) -> f64 {
        PreferenceStats::of_sums(sums).map_or(f64::NAN, |pairs| pairs.objective())
    }

    fn event(&self, step: u64, held_out: bool, sums: &[f64]) -> Option<Event> {
        let pairs = PreferenceStats::of_sums(sums)?;
        let (accuracy, margin) = (pairs.accuracy(), pairs.mean_margin());
        Some(Event::Preferences { step, held_out, loss: pairs.loss / pairs.pairs as f64, accuracy, margin })
    }

    /// The targets are those of the chosen answers.
    fn score(
        &self,
        model: &Decoder,
        batch: &Batch<'_>,
        row: usize,
        score: &mut Score,
    ) -> Result<Vec<f64>, TrainError> {
        let policy = sequence_log_probs(model, batch)?;
        let first = row / 2;
        let reference = self.reference.held_out[first..first + policy.len() / 2].as_flattened();
        let (sums, _) = compare(&policy, reference, batch.targets, &self.section);
        let rows = batch.targets.chunks_exact(batch.targets.len() / policy.len());
        for (chosen, row) in policy.iter().zip(rows).step_by(2) {
            let targets = row.iter().filter(|target| **target != IGNORE_INDEX).count();
            score.add(Score { nats: -chosen, targets });
        }
        Ok(sums.to_sums())
    }

    fn held_out_loss(&self, _: &Score, sums: &[f64]) -> f64 {
        self.loss(sums)
    }
}
