//! What objectives over pairs of answers share: a formula of one pair over the log-probabilities of its answers, and the run that
//! makes of it the gradients of a model.
//!
//! A formula ([`PairFormula`]) gives a pair's loss and its derivatives by the log-probabilities of both answers. These become
//! the weights of the answers' tokens in a backward pass ([`pass`]).

#[cfg(test)]
mod golden;
mod pass;
mod reference;
mod stats;

use std::fmt::Debug;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_data::{Packing, RecordKind};

pub(super) use self::pass::PairsLoss;
pub(super) use self::pass::tokens;
pub(super) use self::reference::{Reference, fingerprint, log_probs};
pub(super) use self::stats::PreferenceStats;
use super::DataKind;
use crate::recipe::{Loss, Reader, Recipe};

/// A pair of answers, the chosen one first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Pair {
    /// The answers' log-probabilities by the model, in nats.
    pub policy: [f64; 2],
    /// Those by the reference; 0 without one.
    pub reference: [f64; 2],
    /// Tokens of the answers.
    pub tokens: [usize; 2],
}

impl Pair {
    /// By how much more than the reference the model prefers the chosen answer, in nats: `(πc − πr) − (ρc − ρr)`.
    pub(super) fn margin(&self) -> f64 {
        (self.policy[0] - self.policy[1]) - (self.reference[0] - self.reference[1])
    }

    /// The answers' log-probabilities by the model, a token.
    pub(super) fn means(&self) -> [f64; 2] {
        let [chosen, rejected] = self.tokens.map(|tokens| tokens.max(1) as f64);
        [self.policy[0] / chosen, self.policy[1] / rejected]
    }

    /// Derivatives by the log-probabilities, of those by the means.
    pub(super) fn by_means(&self, by: [f64; 2]) -> [f64; 2] {
        let [chosen, rejected] = self.tokens.map(|tokens| tokens.max(1) as f64);
        [by[0] / chosen, by[1] / rejected]
    }
}

/// The loss of one pair and its derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PairLoss {
    /// The loss, without what an answer's own cross-entropy adds.
    pub loss: f64,
    /// The derivatives by the log-probabilities of the chosen and of the rejected answer.
    pub by: [f64; 2],
    /// How much the model prefers the chosen answer, in nats: above 0 it is right.
    pub margin: f64,
}

/// What a pair comes to.
pub(super) trait PairFormula: Debug {
    /// Loss and derivatives.
    fn pair(&self, pair: &Pair) -> PairLoss;
}

/// What is added of the chosen answer's own cross-entropy: it keeps the answer likely while the odds of both move (Pang et al.
/// 2024, arXiv 2404.19733).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sft {
    /// Its weight.
    pub weight: f64,
    /// Of what.
    pub loss: SftLoss,
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

/// `−ln σ(z)` and its derivative `−σ(−z)`, neither of which overflows.
pub(super) fn minus_log_sigmoid(z: f64) -> [f64; 2] {
    // ln(1 + e^−z).
    let small = (-z.abs()).exp();
    let loss = (-z).max(0.0) + small.ln_1p();
    let wrong = if z > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
    [loss, -wrong]
}

/// Notes what contradicts an objective over answers, by the name of its section and one of its keys; `compares` if it
/// compares with what a reference thought of the answers once.
pub(super) fn check(
    recipe: &Recipe,
    r: &mut Reader,
    (section, key): (&'static str, &'static str),
    compares: bool,
) {
    let data = &recipe.data;
    let judges = recipe.objective.chosen().data() == DataKind::Labelled;
    if recipe.model.base.is_none() {
        let message =
            format!("[{section}]: model.base is missing: expected the model to train on preferences");
        r.fault(section, key, message);
    }
    let fits = match data.samples.records {
        Some(RecordKind::Preference | RecordKind::Auto) => true,
        Some(RecordKind::UnpairedPreference) => judges,
        _ => false,
    };
    if !fits {
        let message = match judges {
            true => format!(
                "[{section}] trains on answers that were judged: expected data.records = \"unpaired-preference\" or \"preference\""
            ),
            false => {
                format!("[{section}] trains on pairs of answers: expected data.records = \"preference\"")
            }
        };
        r.fault("data", "records", message);
    }
    if data.samples.loss == Loss::All {
        let message = format!(
            "data.loss = \"all\" contradicts [{section}]: only the answers are compared, not the prompt"
        );
        r.fault("data", "loss", message);
    }
    if data.packing == Packing::Masked {
        let message = format!(
            "data.packing = \"masked\" contradicts [{section}]: answers are not packed; expected \"documents\""
        );
        r.fault("data", "packing", message);
    }
    if !compares {
        return;
    }
    if recipe.convert.is_some() {
        let message = format!(
            "[convert] contradicts [{section}]: the reference log-probabilities would not match the trained model; \
             convert first"
        );
        r.fault("convert", "schedule", message);
    }
    if recipe.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0) {
        let message = format!(
            "lora.dropout contradicts [{section}]: the reference log-probabilities would not match the trained model; \
             leave it out"
        );
        r.fault("lora", "dropout", message);
    }
}

/// What tests of formulas compare with.
#[cfg(test)]
pub(super) mod tests {
    use super::{Pair, PairFormula};

    /// Pairs of different lengths, some of them far apart.
    pub(in crate::objective) const PAIRS: [Pair; 4] = [
        Pair { policy: [-10.0, -12.0], reference: [-11.0, -11.5], tokens: [4, 6] },
        Pair { policy: [-40.0, -3.0], reference: [-20.0, -22.0], tokens: [9, 2] },
        Pair { policy: [-3.0, -40.0], reference: [-20.0, -20.0], tokens: [5, 31] },
        Pair { policy: [-0.5, -0.7], reference: [-0.6, -0.6], tokens: [1, 1] },
    ];

    /// The derivatives of a formula are those of differences, but for the places where it has a corner.
    pub(in crate::objective) fn has_its_derivatives(formula: &dyn PairFormula) {
        for pair in PAIRS {
            let found = formula.pair(&pair);
            let h = 1e-5;
            for i in 0..2 {
                let at = |step: f64| {
                    let mut moved = pair;
                    moved.policy[i] += step;
                    formula.pair(&moved).loss
                };
                let slope = (at(h) - at(-h)) / (2.0 * h);
                assert!(
                    (found.by[i] - slope).abs() < 1e-6 * slope.abs().max(1.0),
                    "{pair:?}: {found:?} {slope}"
                );
            }
        }
    }
}
