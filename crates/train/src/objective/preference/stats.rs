//! What pairs of answers, or answers alone, came to, as sums that add up over micro-batches.

use tritforge_report::Event;

/// Sums over pairs, or over answers that are judged one by one.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(in crate::objective) struct PreferenceStats {
    /// Pairs, or answers.
    pub pairs: usize,
    /// Σ of their losses.
    pub loss: f64,
    /// Σ of what the chosen answers' own cross-entropy adds, weighted.
    pub sft: f64,
    /// Those with a margin above 0: pairs whose chosen answer the model prefers.
    pub right: usize,
    /// Σ margin, in nats.
    pub margin: f64,
}

impl PreferenceStats {
    /// What is minimized: the mean of both losses together.
    pub(in crate::objective) fn objective(&self) -> f64 {
        (self.loss + self.sft) / self.pairs as f64
    }

    /// Share of the pairs with a margin above 0.
    pub(in crate::objective) fn accuracy(&self) -> f64 {
        self.right as f64 / self.pairs as f64
    }

    /// Mean margin, in nats.
    pub(in crate::objective) fn mean_margin(&self) -> f64 {
        self.margin / self.pairs as f64
    }

    /// The sums as numbers that add up.
    pub(in crate::objective) fn to_sums(self) -> Vec<f64> {
        vec![self.pairs as f64, self.loss, self.sft, self.right as f64, self.margin]
    }

    /// The sums that such numbers are; none where there are no pairs.
    pub(in crate::objective) fn of_sums(sums: &[f64]) -> Option<Self> {
        let [pairs, loss, sft, right, margin] = *sums else { return None };
        Some(Self { pairs: pairs as usize, loss, sft, right: right as usize, margin })
    }

    /// As an event of a step or an evaluation; with the reference point that answers are judged by, if there is one.
    pub(in crate::objective) fn event(self, step: u64, held_out: bool, point: Option<f64>) -> Event {
        let loss = self.loss / self.pairs as f64;
        Event::Preferences {
            step,
            held_out,
            loss,
            accuracy: self.accuracy(),
            margin: self.mean_margin(),
            point,
        }
    }

    /// Adds other pairs.
    pub(in crate::objective) fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.sft += other.sft;
        self.right += other.right;
        self.margin += other.margin;
    }
}
