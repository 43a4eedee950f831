//! Kahneman-Tversky optimization (Ethayarajh et al. 2024, arXiv 2402.01306): each answer was judged by itself. A good one is to
//! become likelier than a reference thinks, a bad one less likely, by more than the model has moved away from the reference at all.

#[cfg(test)]
mod golden;
mod pass;

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::ModelConfig;
use tritforge_data::{LabelledSample, Sample, mismatched};
use tritforge_report::Sink;

use self::pass::{Judged, KtoPass};
use super::other_model::decoder_bytes;
use super::preference::{Reference, check, fingerprint};
use super::{Criterion, DataKind, LossFunction, Objective, RunStart, other_data};
use crate::recipe::resume::OnResume;
use crate::recipe::{Range, Reader, Recipe};
use crate::{LabelledData, TrainError, TrainingData};

/// Kahneman-Tversky optimization (KTO, arXiv 2402.01306) on answers that were judged one by one, `data.records =
/// "unpaired-preference"`, or on the two answers of each pair: with `r = ln π − ln ρ` of an answer by the model and a reference,
/// `desirable_weight · (1 − σ(β (r − z)))` for a good answer, `undesirable_weight · (1 − σ(β (z − r)))` for a bad one. z, at least
/// 0, is the mean r of a step's prompts with answers to other prompts, an estimate of KL(π ‖ ρ); it has no gradient. A sample of
/// `train.batch_size` is an answer.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Kto {
    /// β; by default 0.1.
    pub beta: f64,
    /// `"kto"` (the default) or `"apo_zero_unpaired"`: without z (APO-zero, arXiv 2408.06266), which saves the pass over the other
    /// answers.
    pub loss: KtoLoss,
    /// Weight of good answers, λ_D of the paper; by default 1.
    pub desirable_weight: f64,
    /// Weight of bad answers, λ_U of the paper; by default 1. Where good and bad answers are not equally many, the paper has the
    /// weights such that `desirable_weight · good / (undesirable_weight · bad)` is from 1 to 4/3.
    pub undesirable_weight: f64,
    /// The reference: a model in any of the forms of `distill.teacher`, with the tokenizer of the model; by default the
    /// initial model. Its log-probabilities are computed once and kept in the run's `data/reference.bin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
}

/// What an answer is judged against.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KtoLoss {
    /// An estimate of the divergence from the reference.
    #[default]
    Kto,
    /// Nothing: 0.
    ApoZeroUnpaired,
}

impl Default for Kto {
    /// As in TRL.
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss: KtoLoss::Kto,
            desirable_weight: 1.0,
            undesirable_weight: 1.0,
            reference: None,
        }
    }
}

impl Criterion for Kto {
    fn read(r: &mut Reader) -> Option<Objective> {
        let losses = [("kto", KtoLoss::Kto), ("apo_zero_unpaired", KtoLoss::ApoZeroUnpaired)];
        let (default, weight) = (Self::default(), Range::at_least(0.0));
        let section = Self {
            beta: r.number("kto", "beta", Range::above(0.0)).unwrap_or(default.beta),
            loss: r.choice("kto", "loss", &losses).unwrap_or(default.loss),
            desirable_weight: r.number("kto", "desirable_weight", weight).unwrap_or(default.desirable_weight),
            undesirable_weight: r
                .number("kto", "undesirable_weight", weight)
                .unwrap_or(default.undesirable_weight),
            reference: r.path("kto", "reference"),
        };
        r.has_any("kto").then_some(Objective::Kto(section))
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        check(recipe, r, ("kto", "beta"), true);
        if self.desirable_weight == 0.0 && self.undesirable_weight == 0.0 {
            let message =
                "kto.desirable_weight and kto.undesirable_weight are both 0: at least one must be above 0";
            r.fault("kto", "desirable_weight", message);
        }
        let train = &recipe.train;
        if self.loss == KtoLoss::Kto && train.batch_size * train.gradient_accumulation < 2 {
            let message = "train.batch_size = 1: [kto] estimates the divergence from its reference over the answers of a step: expected \
                           train.batch_size · train.gradient_accumulation of at least 2, or kto.loss = \"apo_zero_unpaired\"";
            r.fault("train", "batch_size", message);
        }
    }

    fn on_resume(&self, key: &str) -> OnResume {
        if key == "reference" { OnResume::Content } else { OnResume::Fixed }
    }

    fn data(&self) -> DataKind {
        DataKind::Labelled
    }

    /// Answers are scored before it is known how much their tokens count, and so are those to other prompts.
    fn extra_passes(&self) -> u32 {
        if self.loss == KtoLoss::Kto { 2 } else { 1 }
    }

    /// A reference with a name, which is there while it scores the answers.
    fn memory(&self, _: &ModelConfig, _: &dyn Sink) -> Result<u64, TrainError> {
        let bytes = self.reference.as_deref().map_or(Ok(0), decoder_bytes);
        bytes.map_err(|e| TrainError::State(format!("kto.reference: {e}")))
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        let TrainingData::Labelled(data) = &run.prepared.data else { return Err(other_data()) };
        self.say_balance(data, run.sink);
        let named = self.reference.as_deref();
        let fingerprint = fingerprint(named, run.recipe.model.base.as_deref())?;
        let message = "model.base or kto.reference is not the reference model that this run was started \
                       with: set it to the original checkpoint";
        run.same_model(&fingerprint, message)?;
        let seq_len = run.recipe.data.seq_len;
        let others = |answers: &[LabelledSample]| match self.loss {
            KtoLoss::Kto => mismatched(answers, seq_len),
            KtoLoss::ApoZeroUnpaired => Vec::new(),
        };
        let others = [others(&data.train), others(&data.held_out)];
        let sides = [(&data.train, &others[0]), (&data.held_out, &others[1])];
        let answers = sides.map(|(own, others)| {
            own.iter().map(|answer| &answer.sample).chain(others).collect::<Vec<&Sample>>()
        });
        let reference = Reference::open(named, run, answers, &fingerprint)?;
        let [train_others, held_out_others] = others;
        let train = Judged::new(&data.train, train_others, reference.train, seq_len);
        let held_out = Judged::new(&data.held_out, held_out_others, reference.held_out, seq_len);
        Ok(Box::new(KtoPass::new(self.clone(), train, held_out, fingerprint)))
    }
}

impl Kto {
    /// The loss of an answer and its derivative by its log-probability: `r` is the difference of that from the reference's, `z`
    /// what it is judged against, in nats.
    fn answer(&self, desirable: bool, r: f64, z: f64) -> [f64; 2] {
        let (weight, sign) =
            if desirable { (self.desirable_weight, 1.0) } else { (self.undesirable_weight, -1.0) };
        let x = sign * self.beta * (r - z);
        // 1 − σ(x) = σ(−x), whose derivative is −σ(x) σ(−x).
        let small = (-x.abs()).exp();
        let (far, near) = (small / (1.0 + small), 1.0 / (1.0 + small));
        let loss = if x > 0.0 { far } else { near };
        [weight * loss, -weight * sign * self.beta * far * near]
    }

    /// Says how many answers are good and bad, and warns where the paper would choose other weights.
    fn say_balance(&self, data: &LabelledData, sink: &dyn Sink) {
        let good = data.train.iter().filter(|answer| answer.desirable).count();
        let bad = data.train.len() - good;
        sink.message(&format!("{good} desirable and {bad} undesirable answers for training"));
        let ratio = self.desirable_weight * good as f64 / (self.undesirable_weight * bad as f64);
        if good == 0 || bad == 0 {
            sink.message("warning: all answers have the same label: nothing keeps the model from making every answer likelier, or less likely");
        } else if self.desirable_weight == 0.0 || self.undesirable_weight == 0.0 {
            sink.message("warning: one of kto.desirable_weight and kto.undesirable_weight is 0: only answers of the other label are learned from");
        } else if self.loss == KtoLoss::Kto && !(0.999..=1.334).contains(&ratio) {
            let [low, high] = [1.0, 4.0 / 3.0].map(|ratio| ratio * bad as f64 / good as f64);
            sink.message(&format!(
                "warning: weighted, there are {ratio:.2} desirable answers for each undesirable one; the paper has 1 to 1.33: kto.desirable_weight \
                 from {:.2} to {:.2}, or kto.undesirable_weight from {:.2} to {:.2}",
                low * self.undesirable_weight,
                high * self.undesirable_weight,
                self.desirable_weight / high,
                self.desirable_weight / low
            ));
        }
        let prompt = |answer: &LabelledSample| answer.sample.prompt_and_answer().0.to_vec();
        for (side, answers) in [("training", &data.train), ("held-out", &data.held_out)] {
            let first = answers.first().map(prompt);
            if self.loss == KtoLoss::Kto
                && first.is_some()
                && answers.iter().all(|answer| Some(prompt(answer)) == first)
            {
                sink.message(&format!(
                    "warning: all {side} answers are to the same prompt: the divergence from the reference is estimated by answers to it, too"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_derivatives_are_those_of_differences() {
        for loss in [
            Kto::default(),
            Kto { beta: 0.5, desirable_weight: 1.3, undesirable_weight: 0.7, ..Kto::default() },
        ] {
            for (desirable, r, z) in [
                (true, 1.5, 0.2),
                (false, 1.5, 0.2),
                (true, -3.0, 0.0),
                (false, -40.0, 5.0),
                (true, 60.0, 1.0),
            ] {
                let [_, by] = loss.answer(desirable, r, z);
                let at = |r: f64| loss.answer(desirable, r, z)[0];
                let slope = (at(r + 1e-5) - at(r - 1e-5)) / 2e-5;
                assert!((by - slope).abs() < 1e-9, "{desirable} {r}: {by} {slope}");
            }
        }
    }

    #[test]
    fn the_loss_is_half_at_the_reference_point_and_finite_far_away() {
        let kto = Kto { beta: 1.0, desirable_weight: 2.0, ..Kto::default() };
        assert_eq!([kto.answer(true, 3.0, 3.0)[0], kto.answer(false, 3.0, 3.0)[0]], [1.0, 0.5]);
        for (r, losses) in [(1e6, [0.0, 1.0]), (-1e6, [2.0, 0.0])] {
            assert_eq!([kto.answer(true, r, 0.0)[0], kto.answer(false, r, 0.0)[0]], losses);
            assert_eq!(kto.answer(true, r, 0.0)[1], 0.0);
        }
    }
}
