//! The cross-entropy of the next token, which a recipe minimizes if it names no other objective. It has no section.

mod tape;

use schemars::JsonSchema;
use serde::Serialize;

use self::tape::TapeEngine;
use super::{Criterion, LossFunction, Objective, Pass, RunStart};
use crate::TrainError;
use crate::recipe::{Reader, TrainEngine};

/// The mean cross-entropy of the targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CrossEntropy;

impl Criterion for CrossEntropy {
    fn read(_: &mut Reader) -> Option<Objective> {
        None
    }

    fn runs_on_tape(&self) -> bool {
        true
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        run.check_targets()?;
        let on_tape = run.recipe.train.engine == TrainEngine::Candle;
        Ok(Box::new(CrossEntropyLoss { tape: on_tape.then(|| TapeEngine::new(run.model)).transpose()? }))
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
