//! Simple preference optimization (Meng et al. 2024, arXiv 2405.14734): the chosen answer's mean log-probability is to exceed the
//! rejected one's by a margin. No reference.

use schemars::JsonSchema;
use serde::Serialize;

use super::preference::{Pair, PairFormula, PairLoss, PairsLoss, Sft, check, minus_log_sigmoid};
use super::{Criterion, DataKind, LossFunction, Objective, RunStart, SftLoss, other_data};
use crate::recipe::{Range, Reader, Recipe};
use crate::{TrainError, TrainingData};

/// Simple preference optimization (SimPO, arXiv 2405.14734) on the pairs of `data.records = "preference"`, without a reference:
/// `−ln σ(β · (mean ln p of the chosen answer − that of the rejected one) − γ)`, means over the answers' tokens. A sample of
/// `train.batch_size` is a pair.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Simpo {
    /// β; by default 2.
    pub beta: f64,
    /// γ, by how much β times the difference is to exceed 0; by default 1.
    pub gamma: f64,
    /// Weight of the chosen answer's cross-entropy, a mean over its tokens; by default 0.
    pub sft: f64,
}

impl Criterion for Simpo {
    fn read(r: &mut Reader) -> Option<Objective> {
        let beta = r.number("simpo", "beta", Range::above(0.0)).unwrap_or(2.0);
        let gamma = r.number("simpo", "gamma", Range::at_least(0.0)).unwrap_or(1.0);
        let sft = r.number("simpo", "sft", Range::at_least(0.0)).unwrap_or(0.0);
        r.has_any("simpo").then_some(Objective::Simpo(Self { beta, gamma, sft }))
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        check(recipe, r, ("simpo", "beta"), false);
    }

    fn data(&self) -> DataKind {
        DataKind::Pairs
    }

    /// Pairs are scored before it is known how much their tokens count.
    fn extra_passes(&self) -> u32 {
        1
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        let TrainingData::Pairs(_) = &run.prepared.data else { return Err(other_data()) };
        let sft = Sft { weight: self.sft, loss: SftLoss::Mean };
        Ok(Box::new(PairsLoss { formula: Box::new(self.clone()), sft, reference: None }))
    }
}

impl PairFormula for Simpo {
    fn pair(&self, pair: &Pair) -> PairLoss {
        let [chosen, rejected] = pair.means();
        let margin = chosen - rejected;
        let [loss, by_z] = minus_log_sigmoid(self.beta * margin - self.gamma);
        PairLoss { loss, by: pair.by_means([self.beta * by_z, -self.beta * by_z]), margin }
    }
}

#[cfg(test)]
mod tests {
    use super::super::preference::tests::has_its_derivatives;
    use super::*;

    #[test]
    fn the_derivatives_are_those_of_differences() {
        has_its_derivatives(&Simpo { beta: 2.0, gamma: 1.0, sft: 0.0 });
        has_its_derivatives(&Simpo { beta: 0.3, gamma: 0.0, sft: 0.0 });
    }
}
