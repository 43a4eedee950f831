//! The cross-entropy of the next token, which a recipe minimizes if it names no other objective, and the terms that change it.

mod tape;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_model::LossTerms;

use self::tape::TapeEngine;
use super::{Criterion, LossFunction, Objective, Pass, RunStart};
use crate::TrainError;
use crate::recipe::resume::OnResume;
use crate::recipe::{Range, Reader, Recipe, TrainEngine};

/// The mean cross-entropy of the targets, which is minimized without any section, and what changes it: of a target t with softmax p of its
/// n logits, `(1 − label_smoothing) · −ln p(t) + label_smoothing/n · Σ −ln p(v) + z_loss · ln²Z`, Z = Σ exp(logit). `loss` of training is
/// all of it, with the plain cross-entropy beside it as `cross_entropy`; what is held out is always scored by the plain one.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct CrossEntropy {
    /// `"nll"` (the default), −ln p(t), or `"dft"` (dynamic fine-tuning, arXiv 2508.05629; TRL's `loss_type = "dft"`): p(t) · −ln p(t) with
    /// p(t) taken as a constant, so that targets the model finds improbable are learned less. For fine-tuning: an untrained model learns
    /// nothing by it.
    pub loss: TargetLoss,
    /// The part of a target's probability that is spread evenly over the whole vocabulary, the target included, as in PyTorch's
    /// `cross_entropy` and transformers' `label_smoothing_factor`; by default 0.
    pub label_smoothing: f64,
    /// Weight of the z-loss (PaLM, arXiv 2204.02311 §5, which has 1e-4), which keeps logits from drifting; by default 0.
    pub z_loss: f64,
}

/// What a target's own loss is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TargetLoss {
    /// Its cross-entropy.
    #[default]
    Nll,
    /// Its cross-entropy times its probability.
    Dft,
}

impl Criterion for CrossEntropy {
    fn read(r: &mut Reader) -> Option<Objective> {
        let losses = [("nll", TargetLoss::Nll), ("dft", TargetLoss::Dft)];
        let loss = r.choice("cross_entropy", "loss", &losses).unwrap_or_default();
        let smoothing = Range::at_least(0.0).below(1.0);
        let label_smoothing = r.number("cross_entropy", "label_smoothing", smoothing).unwrap_or(0.0);
        let z_loss = r.number("cross_entropy", "z_loss", Range::at_least(0.0).at_most(1.0)).unwrap_or(0.0);
        let read = Self { loss, label_smoothing, z_loss };
        r.has_any("cross_entropy").then_some(Objective::CrossEntropy(read))
    }

    fn check(&self, _: &Recipe, r: &mut Reader) {
        if self.loss == TargetLoss::Dft && self.label_smoothing > 0.0 {
            let message = "cross_entropy.label_smoothing contradicts cross_entropy.loss = \"dft\", which weighs a target by its \
                           probability and has no loss of the other tokens: expected one of them";
            r.fault("cross_entropy", "label_smoothing", message);
        }
    }

    /// What is held out is scored without them, so losses before and after can be compared.
    fn on_resume(&self, _: &str) -> OnResume {
        OnResume::Free
    }

    fn runs_on_tape(&self) -> bool {
        *self == Self::default()
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        run.check_targets()?;
        if *self != Self::default() {
            return Ok(Box::new(WithTerms(self.terms())));
        }
        let on_tape = run.recipe.train.engine == TrainEngine::Candle;
        Ok(Box::new(CrossEntropyLoss { tape: on_tape.then(|| TapeEngine::new(run.model)).transpose()? }))
    }
}

impl CrossEntropy {
    fn terms(&self) -> LossTerms {
        LossTerms {
            label_smoothing: self.label_smoothing as f32,
            z_loss: self.z_loss as f32,
            dft: self.loss == TargetLoss::Dft,
        }
    }
}

/// What computes it.
#[derive(Debug)]
struct CrossEntropyLoss {
    /// In the place of the fused pass.
    tape: Option<TapeEngine>,
}

impl LossFunction for CrossEntropyLoss {
    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, targets, gradients, .. } = pass;
        Ok(vec![match &self.tape {
            Some(tape) => tape.forward_backward(model, batch, targets as f32, gradients)?,
            None => model.forward_backward(workspace, batch, targets as f32, gradients)?,
        }])
    }
}

/// What computes it with terms: its sums are the whole loss and the cross-entropy alone.
#[derive(Debug)]
struct WithTerms(LossTerms);

impl LossFunction for WithTerms {
    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, targets, gradients, .. } = pass;
        let found = model.forward_backward_with_terms(workspace, batch, self.0, targets as f32, gradients)?;
        Ok(vec![found.total, found.cross_entropy])
    }

    fn metrics(&self, sums: &[f64]) -> Vec<(&'static str, f64)> {
        sums.get(1).map(|cross_entropy| ("cross_entropy", *cross_entropy)).into_iter().collect()
    }
}
