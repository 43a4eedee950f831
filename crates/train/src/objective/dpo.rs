//! Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) and its variants: of two answers to a prompt the
//! preferred one is to gain on the other, compared with a reference model, whose log-probabilities are computed once.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::ModelConfig;
use tritforge_report::Sink;

use super::other_model::decoder_bytes;
use super::preference::{
    Pair, PairFormula, PairLoss, PairsLoss, Reference, Sft, check, fingerprint, minus_log_sigmoid,
};
use super::{Criterion, DataKind, LossFunction, Objective, RunStart, SftLoss, other_data};
use crate::recipe::resume::OnResume;
use crate::recipe::{Range, Reader, Recipe};
use crate::training_data::both;
use crate::{TrainError, TrainingData};

/// Direct preference optimization (arXiv 2305.18290) on the pairs of `data.records = "preference"`, of which the model learns
/// to prefer one answer: `−ln σ(β · margin) + sft · cross-entropy of the chosen answer`, the margin being by how much more
/// than a reference the model prefers the chosen answer, in nats. A sample of `train.batch_size` is a pair.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Dpo {
    /// DPO's β; by default 0.1.
    pub beta: f64,
    /// With z = β · margin: `"sigmoid"` (−ln σ(z), the default), `"sigmoid_norm"` (the same of the margin between the means over each answer's
    /// tokens: length-normalized DPO, arXiv 2411.15124, which has β = 5), `"hinge"` (max(0, 1 − z); SLiC, arXiv 2305.10425), `"ipo"`
    /// ((m − 1/(2β))² of the margin m between the means over each answer's tokens; arXiv 2310.12036) or `"robust"` (unbiased where a
    /// part `label_smoothing` of the preferences is the wrong way round; arXiv 2403.00409).
    pub loss: DpoLoss,
    /// The part of the preferences that is taken to be the wrong way round, below 0.5; by default 0. With `"sigmoid"` it is cDPO's:
    /// −(1 − ε) ln σ(z) − ε ln σ(−z).
    pub label_smoothing: f64,
    /// Weight of the chosen answer's cross-entropy; by default 0.
    pub sft: f64,
    /// Whether that is the `"mean"` (the default) over the answer's tokens, or their `"sum"`.
    pub sft_loss: SftLoss,
    /// The reference: a model in any of the forms of `distill.teacher`, with the tokenizer of the model; by default the
    /// initial model. Its log-probabilities are computed once and kept in the run's `data/reference.bin`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<PathBuf>,
}

/// What is made of a margin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DpoLoss {
    /// −ln σ(z).
    #[default]
    Sigmoid,
    /// −ln σ(z) of the margin between means.
    SigmoidNorm,
    /// max(0, 1 − z).
    Hinge,
    /// (m − 1/(2β))².
    Ipo,
    /// −ln σ(z), unbiased by wrong preferences.
    Robust,
}

impl Default for Dpo {
    /// As in the paper.
    fn default() -> Self {
        Self {
            beta: 0.1,
            loss: DpoLoss::Sigmoid,
            label_smoothing: 0.0,
            sft: 0.0,
            sft_loss: SftLoss::Mean,
            reference: None,
        }
    }
}

impl Criterion for Dpo {
    fn read(r: &mut Reader) -> Option<Objective> {
        let losses = [
            ("sigmoid", DpoLoss::Sigmoid),
            ("sigmoid_norm", DpoLoss::SigmoidNorm),
            ("hinge", DpoLoss::Hinge),
            ("ipo", DpoLoss::Ipo),
            ("robust", DpoLoss::Robust),
        ];
        let sft_losses = [("mean", SftLoss::Mean), ("sum", SftLoss::Sum)];
        let default = Self::default();
        let section = Self {
            beta: r.number("dpo", "beta", Range::above(0.0)).unwrap_or(default.beta),
            loss: r.choice("dpo", "loss", &losses).unwrap_or(default.loss),
            label_smoothing: r
                .number("dpo", "label_smoothing", Range::at_least(0.0).below(0.5))
                .unwrap_or(default.label_smoothing),
            sft: r.number("dpo", "sft", Range::at_least(0.0)).unwrap_or(default.sft),
            sft_loss: r.choice("dpo", "sft_loss", &sft_losses).unwrap_or(default.sft_loss),
            reference: r.path("dpo", "reference"),
        };
        r.has_any("dpo").then_some(Objective::Dpo(section))
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        check(recipe, r, ("dpo", "beta"), true);
        let smoothed = matches!(self.loss, DpoLoss::Sigmoid | DpoLoss::Robust);
        if self.label_smoothing > 0.0 && !smoothed {
            let message = format!(
                "dpo.label_smoothing = {}: expected dpo.loss = \"sigmoid\" or \"robust\"; the others have none",
                self.label_smoothing
            );
            r.fault("dpo", "label_smoothing", message);
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
        let named = self.reference.as_deref();
        let fingerprint = fingerprint(named, run.recipe.model.base.as_deref())?;
        let message = "model.base or dpo.reference is not the reference model that this run was started \
                       with: set it to the original checkpoint";
        run.same_model(&fingerprint, message)?;
        let answers = [both(&pairs.train), both(&pairs.held_out)];
        let reference = Reference::open(named, run, answers, &fingerprint)?;
        Ok(Box::new(PairsLoss {
            formula: Box::new(self.clone()),
            sft: Sft { weight: self.sft, loss: self.sft_loss },
            reference: Some((reference, fingerprint)),
        }))
    }
}

impl PairFormula for Dpo {
    fn pair(&self, pair: &Pair) -> PairLoss {
        let (margin, beta, flipped) = (pair.margin(), self.beta, self.label_smoothing);
        let z = beta * margin;
        // The loss and its derivative by z.
        let [loss, by_z] = match self.loss {
            DpoLoss::Sigmoid | DpoLoss::Robust => {
                let [right, by_right] = minus_log_sigmoid(z);
                let [wrong, by_wrong] = minus_log_sigmoid(-z);
                // The derivative of −ln σ(−z) by z is that by its argument, negated.
                if self.loss == DpoLoss::Robust {
                    let unbiased = 1.0 - 2.0 * flipped;
                    [
                        ((1.0 - flipped) * right - flipped * wrong) / unbiased,
                        ((1.0 - flipped) * by_right + flipped * by_wrong) / unbiased,
                    ]
                } else if flipped == 0.0 {
                    [right, by_right]
                } else {
                    [
                        (1.0 - flipped) * right + flipped * wrong,
                        (1.0 - flipped) * by_right - flipped * by_wrong,
                    ]
                }
            }
            DpoLoss::Hinge => [(1.0 - z).max(0.0), if z < 1.0 { -1.0 } else { 0.0 }],
            DpoLoss::Ipo | DpoLoss::SigmoidNorm => {
                let ([chosen, rejected], [own, other]) =
                    (pair.means(), Pair { policy: pair.reference, ..*pair }.means());
                let apart = (chosen - rejected) - (own - other);
                let [loss, by] = if self.loss == DpoLoss::Ipo {
                    let off = apart - 0.5 / beta;
                    [off * off, 2.0 * off]
                } else {
                    let [loss, by_z] = minus_log_sigmoid(beta * apart);
                    [loss, beta * by_z]
                };
                return PairLoss { loss, by: pair.by_means([by, -by]), margin };
            }
        };
        PairLoss { loss, by: [beta * by_z, -beta * by_z], margin }
    }
}

#[cfg(test)]
mod tests {
    use super::super::preference::tests::has_its_derivatives;
    use super::*;

    #[test]
    fn the_derivatives_are_those_of_differences() {
        for (loss, label_smoothing) in [
            (DpoLoss::Sigmoid, 0.0),
            (DpoLoss::Sigmoid, 0.2),
            (DpoLoss::Robust, 0.2),
            (DpoLoss::SigmoidNorm, 0.0),
            (DpoLoss::Hinge, 0.0),
            (DpoLoss::Ipo, 0.0),
        ] {
            for beta in [0.1, 0.5] {
                has_its_derivatives(&Dpo { beta, loss, label_smoothing, ..Dpo::default() });
            }
        }
    }

    #[test]
    fn the_loss_is_ln_2_at_no_margin_and_finite_far_away() {
        let of = |policy, reference, beta| {
            Dpo { beta, ..Dpo::default() }.pair(&Pair { policy, reference, tokens: [1, 1] }).loss
        };
        assert!((of([-5.0, -6.0], [-3.0, -4.0], 0.1) - std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!(of([-1e6, 0.0], [0.0, 0.0], 1.0), 1e6);
        assert_eq!(of([0.0, -1e6], [0.0, 0.0], 1.0), 0.0);
    }
}
