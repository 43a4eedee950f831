//! What pairs of answers came to, as sums that add up over micro-batches.

/// Sums over pairs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct PreferenceStats {
    /// Pairs.
    pub pairs: usize,
    /// Σ of the pairs' losses.
    pub loss: f64,
    /// Σ of what the chosen answers' own cross-entropy adds, weighted.
    pub sft: f64,
    /// Pairs whose chosen answer the model prefers.
    pub right: usize,
    /// Σ margin, in nats.
    pub margin: f64,
}

impl PreferenceStats {
    /// What is minimized: the mean of both losses together.
    pub(super) fn objective(&self) -> f64 {
        (self.loss + self.sft) / self.pairs as f64
    }

    /// Share of the pairs with a margin above 0.
    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.pairs as f64
    }

    /// Mean margin, in nats.
    pub(super) fn mean_margin(&self) -> f64 {
        self.margin / self.pairs as f64
    }

    /// The sums as numbers that add up.
    pub(super) fn to_sums(self) -> Vec<f64> {
        vec![self.pairs as f64, self.loss, self.sft, self.right as f64, self.margin]
    }

    /// The sums that such numbers are; none where there are no pairs.
    pub(super) fn of_sums(sums: &[f64]) -> Option<Self> {
        let [pairs, loss, sft, right, margin] = *sums else { return None };
        Some(Self { pairs: pairs as usize, loss, sft, right: right as usize, margin })
    }

    /// Adds other pairs.
    pub(super) fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.sft += other.sft;
        self.right += other.right;
        self.margin += other.margin;
    }
}
