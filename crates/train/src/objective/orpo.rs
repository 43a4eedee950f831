//! Odds ratio preference optimization (Hong et al. 2024, arXiv 2403.07691): fine-tuning on the chosen answer that also raises its
//! odds over those of the rejected one. No reference.

use schemars::JsonSchema;
use serde::Serialize;

use super::preference::{Pair, PairFormula, PairLoss, PairsLoss, Sft, check, minus_log_sigmoid};
use super::{Criterion, DataKind, LossFunction, Objective, RunStart, SftLoss, other_data};
use crate::recipe::{Range, Reader, Recipe};
use crate::{TrainError, TrainingData};

/// Odds ratio preference optimization (ORPO, arXiv 2403.07691) on the pairs of `data.records = "preference"`, without a reference:
/// `cross-entropy of the chosen answer − β ln σ(ln odds(chosen) − ln odds(rejected))`, odds(p) = p/(1 − p) of the geometric mean p of an
/// answer's probabilities, the cross-entropy a mean over its tokens. A sample of `train.batch_size` is a pair.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Orpo {
    /// The weight of the odds, λ of the paper; by default 0.1.
    pub beta: f64,
}

impl Criterion for Orpo {
    fn read(r: &mut Reader) -> Option<Objective> {
        let beta = r.number("orpo", "beta", Range::above(0.0)).unwrap_or(0.1);
        r.has_any("orpo").then_some(Objective::Orpo(Self { beta }))
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        check(recipe, r, ("orpo", "beta"), false);
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
        let sft = Sft { weight: 1.0, loss: SftLoss::Mean };
        Ok(Box::new(PairsLoss { formula: Box::new(self.clone()), sft, reference: None }))
    }
}

/// ln(p / (1 − p)) of p = e^a and its derivative by a. Of a certain answer, whose odds are infinite, those of 1 − p = 1e-12.
fn log_odds(a: f64) -> [f64; 2] {
    let rest = -a.exp_m1();
    if rest > 1e-12 { [a - rest.ln(), 1.0 / rest] } else { [a - 1e-12f64.ln(), 1.0] }
}

impl PairFormula for Orpo {
    fn pair(&self, pair: &Pair) -> PairLoss {
        let means = pair.means();
        let [[chosen, by_chosen], [rejected, by_rejected]] = means.map(log_odds);
        let [loss, by] = minus_log_sigmoid(chosen - rejected).map(|x| self.beta * x);
        PairLoss { loss, by: pair.by_means([by * by_chosen, -by * by_rejected]), margin: means[0] - means[1] }
    }
}

#[cfg(test)]
mod tests {
    use super::super::preference::tests::has_its_derivatives;
    use super::*;

    #[test]
    fn the_derivatives_are_those_of_differences() {
        has_its_derivatives(&Orpo { beta: 0.1 });
        has_its_derivatives(&Orpo { beta: 1.0 });
    }

    #[test]
    fn a_certain_answer_is_finite() {
        let pair = Pair { policy: [0.0, -1e4], reference: [0.0; 2], tokens: [3, 3] };
        let found = Orpo { beta: 1.0 }.pair(&pair);
        assert!(found.loss.is_finite() && found.by.iter().all(|by| by.is_finite()), "{found:?}");
        let found = Orpo { beta: 1.0 }.pair(&Pair { policy: [-1e4, 0.0], ..pair });
        assert!(found.loss > 1e3 && found.by.iter().all(|by| by.is_finite()), "{found:?}");
    }
}
