//! What a token's logits are to be: the gradient of its loss takes their place.

use tritforge_kernels::{LossTerms, cross_entropy_backward, cross_entropy_backward_with};

use super::divergence::divergence;
use super::relation::Relation;

/// What the loss of a pass is a sum of.
#[derive(Debug, Clone, Copy)]
pub(super) enum Objective<'a> {
    /// −ln p(target).
    CrossEntropy,
    /// The same, each times its weight.
    Weighted(&'a [f32]),
    /// The same with label smoothing, z-loss or DFT's weights.
    WithTerms(LossTerms),
    /// −ln p(target), and the distance from a teacher.
    Distilled(&'a Distillation<'a>),
}

/// Distillation (arXiv 1503.02531): `ce · −ln p(target) + kl · T² · KL(teacher ‖ model)`, both distributions
/// at temperature T, the teacher's over its `k` likeliest tokens.
#[derive(Debug, Clone, Copy)]
pub struct Distillation<'a> {
    /// The teacher's likeliest tokens at every position, [tokens, k].
    pub ids: &'a [u32],
    /// Their logits, [tokens, k].
    pub logits: &'a [f32],
    /// Tokens a position.
    pub k: usize,
    /// Weight of the cross-entropy.
    pub ce: f32,
    /// Weight of the divergence.
    pub kl: f32,
    /// β of the generalized Jensen-Shannon divergence, from 0 to 1. 0 is KL(teacher ‖ model), the model's distribution that over
    /// all tokens; above it both distributions are those over the teacher's `k` tokens, and 1 is KL(model ‖ teacher).
    pub jsd_beta: f32,
    /// What logits are divided by, teacher's and model's alike; above 1 it makes the unlikely count more.
    pub temperature: f32,
    /// A further loss, of how the tokens relate to each other in one layer.
    pub relation: Option<Relation<'a>>,
}

/// The loss of a pass whose cross-entropy has further terms.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CrossEntropyLoss {
    /// All of it, as the gradient has it.
    pub total: f64,
    /// The cross-entropy alone.
    pub cross_entropy: f64,
}

/// The loss of a pass that learned from a teacher.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DistillationLoss {
    /// All of it, as the gradient has it.
    pub total: f64,
    /// What the relations are apart, without the weight γ; 0 where they are not learned.
    pub relation: f64,
}

impl<'a> Objective<'a> {
    /// The loss of one layer's states.
    pub(super) fn relation(self) -> Option<&'a Relation<'a>> {
        match self {
            Objective::Distilled(distillation) => distillation.relation.as_ref(),
            Objective::CrossEntropy | Objective::Weighted(_) | Objective::WithTerms(_) => None,
        }
    }

    /// Turns the logits of position `at` into the gradient of its loss times `scale`, and returns the loss and
    /// −ln p(target).
    pub(super) fn loss_and_grad(self, row: &mut [f32], at: usize, target: usize, scale: f32) -> [f64; 2] {
        match self {
            Objective::CrossEntropy => [f64::from(cross_entropy_backward(row, target, scale)); 2],
            Objective::Weighted(weights) => {
                let weight = weights[at];
                let cross_entropy = f64::from(cross_entropy_backward(row, target, weight * scale));
                [f64::from(weight) * cross_entropy, cross_entropy]
            }
            Objective::WithTerms(terms) => {
                let loss = cross_entropy_backward_with(row, target, scale, terms);
                [loss.total, loss.cross_entropy].map(f64::from)
            }
            Objective::Distilled(distillation) => distillation.loss_and_grad(row, at, target, scale),
        }
    }
}

impl Distillation<'_> {
    fn loss_and_grad(&self, row: &mut [f32], at: usize, target: usize, scale: f32) -> [f64; 2] {
        let (k, t) = (self.k, self.temperature);
        let (ids, theirs) = (&self.ids[at * k..][..k], &self.logits[at * k..][..k]);
        if self.jsd_beta > 0.0 && self.kl > 0.0 {
            return self.over_the_same_tokens(row, ids, theirs, target, scale);
        }
        let likeliest = theirs.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let parts: Vec<f64> = theirs.iter().map(|z| f64::from((z - likeliest) / t).exp()).collect();
        let whole: f64 = parts.iter().sum();

        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum_at = |t: f32| row.iter().map(|z| f64::from(((z - largest) / t).exp())).sum::<f64>();
        let (sum, softened) = (sum_at(1.0), if t == 1.0 { 0.0 } else { sum_at(t) });
        let softened = if t == 1.0 { sum } else { softened };
        let ln_p = f64::from(row[target] - largest) - sum.ln();
        let divergence: f64 = (ids.iter().zip(&parts))
            .map(|(id, part)| {
                let p = part / whole;
                let ln_q = f64::from((row[*id as usize] - largest) / t) - softened.ln();
                if p > 0.0 { p * (p.ln() - ln_q) } else { 0.0 }
            })
            .sum();

        // d KL / dz = (q − p) / T; T² of the loss leaves T.
        let (ce, kl) = (self.ce * scale, self.kl * t * scale);
        let (of_ce, of_kl) = (ce / sum as f32, kl / softened as f32);
        for z in row.iter_mut() {
            let x = *z - largest;
            *z = of_ce * x.exp() + of_kl * (x / t).exp();
        }
        row[target] -= ce;
        for (id, part) in ids.iter().zip(&parts) {
            row[*id as usize] -= kl * (part / whole) as f32;
        }
        [-f64::from(self.ce) * ln_p + f64::from(self.kl * t * t) * divergence, -ln_p]
    }

    /// As [`Self::loss_and_grad`], with a divergence of which both distributions are those over the teacher's tokens.
    fn over_the_same_tokens(
        &self,
        row: &mut [f32],
        ids: &[u32],
        theirs: &[f32],
        target: usize,
        scale: f32,
    ) -> [f64; 2] {
        let mut by: Vec<f64> = ids.iter().map(|id| f64::from(row[*id as usize])).collect();
        let teacher: Vec<f64> = theirs.iter().map(|z| f64::from(*z)).collect();
        let t = f64::from(self.temperature);
        let apart = divergence(&mut by, &teacher, f64::from(self.jsd_beta), t);
        let cross_entropy = f64::from(cross_entropy_backward(row, target, self.ce * scale));
        let weight = f64::from(self.kl) * t * t;
        for (id, by) in ids.iter().zip(by) {
            row[*id as usize] += (weight * f64::from(scale) * by) as f32;
        }
        [f64::from(self.ce) * cross_entropy + weight * apart, cross_entropy]
    }
}
