//! Several texts in given shares: each a list of shards, and which of them gives the next sample.

use crate::{DataError, Shard};

/// A text that was written as one or several shards.
#[derive(Debug)]
pub struct MixturePart {
    /// Its shards in order; together they are one sequence of tokens.
    pub shards: Vec<Shard>,
    /// Its share of the samples, relative to the other parts'.
    pub weight: f64,
}

impl MixturePart {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Texts to train on, in shares by weight. One text alone is a mixture too.
#[derive(Debug)]
pub struct Mixture {
    parts: Vec<MixturePart>,
}

impl Mixture {
    /// A mixture of parts.
    ///
    /// # Errors
    /// If there is no part, or a weight is not a positive number.
    pub fn new(parts: Vec<MixturePart>) -> Result<Self, DataError> {
        if parts.is_empty() {
            return Err(DataError::NoText("a mixture without sources: expected at least one".to_string()));
        }
        if let Some(part) = parts.iter().find(|p| !(p.weight.is_finite() && p.weight > 0.0)) {
            let message = format!("the mixture weight is {}: expected a number above 0", part.weight);
            return Err(DataError::NoText(message));
        }
        Ok(Self { parts })
    }

    /// The parts.
    pub fn parts(&self) -> &[MixturePart] {
        &self.parts
    }

    /// Number of tokens of all parts.
    pub fn len(&self) -> usize {
        self.parts.iter().map(MixturePart::len).sum()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokens of all parts, one after the other.
    pub fn iter(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts.iter().flat_map(|p| &p.shards).flat_map(Shard::iter)
    }
}

/// The part that gives the next sample: the one that lags most behind its share, the first of several.
/// `drawn` counts the samples that each part gave.
pub(crate) fn next_part(weights: &[f64], drawn: &[u64]) -> usize {
    let due = |i: usize| (drawn[i] + 1) as f64 / weights[i];
    (0..weights.len()).min_by(|a, b| due(*a).total_cmp(&due(*b))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_in_their_shares() {
        let weights = [3.0, 1.0, 0.5];
        let mut drawn = [0u64; 3];
        for _ in 0..4500 {
            let part = next_part(&weights, &drawn);
            drawn[part] += 1;
            let total: u64 = drawn.iter().sum();
            for i in 0..3 {
                let share = total as f64 * weights[i] / 4.5;
                assert!((drawn[i] as f64 - share).abs() < 2.0, "{drawn:?}");
            }
        }
        assert_eq!(drawn, [3000, 1000, 500]);
    }
}
