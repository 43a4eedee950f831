//! Batches of samples that have a row each: answers that are judged one by one, or pairs of answers, whose rows belong together.

use tritforge_support::counted;

use crate::batches::{rng, shuffled};
use crate::sample_batches::{check, check_size, fill};
use crate::{Batch, BatchPosition, DataError, LabelledSample, Preference, Sample};

/// Samples in rows of `seq_len` inputs, padded.
///
/// # Errors
/// If there are none, or one is longer than a row.
pub fn row_batch(rows: &[&Sample], seq_len: usize) -> Result<Batch, DataError> {
    check(rows.iter().copied(), seq_len)?;
    let mut batch = Batch { inputs: Vec::new(), targets: Vec::new(), segments: Vec::new() };
    rows.iter().for_each(|row| fill(&mut batch, [*row], seq_len));
    Ok(batch)
}

/// An endless sequence of batches of groups of `N` rows, which stay together, in an order that can be taken up again at any point:
/// every epoch shuffles the groups by its seed and number.
#[derive(Debug)]
pub struct RowBatches<'a, const N: usize> {
    groups: Vec<[&'a Sample; N]>,
    seq_len: usize,
    position: BatchPosition,
    order: Vec<usize>,
}

/// Batches of pairs, of which the better answer stands first.
pub type PreferenceBatches<'a> = RowBatches<'a, 2>;

/// Batches of answers that are judged one by one.
pub type LabelledBatches<'a> = RowBatches<'a, 1>;

impl<'a> PreferenceBatches<'a> {
    /// Batches of pairs in rows of `seq_len` inputs, from a position on, whose index counts pairs of the
    /// epoch.
    ///
    /// # Errors
    /// If there are no pairs, one is longer than a row, or the position is beyond its epoch.
    pub fn new(pairs: &'a [Preference], seq_len: usize, position: BatchPosition) -> Result<Self, DataError> {
        Self::of(pairs.iter().map(|pair| [&pair.chosen, &pair.rejected]).collect(), seq_len, position)
    }
}

impl<'a> LabelledBatches<'a> {
    /// Batches of answers in rows of `seq_len` inputs, from a position on, whose index counts answers of the
    /// epoch.
    ///
    /// # Errors
    /// If there are no answers, one is longer than a row, or the position is beyond its epoch.
    pub fn new(
        answers: &'a [LabelledSample],
        seq_len: usize,
        position: BatchPosition,
    ) -> Result<Self, DataError> {
        Self::of(answers.iter().map(|answer| [&answer.sample]).collect(), seq_len, position)
    }
}

impl<'a, const N: usize> RowBatches<'a, N> {
    fn of(groups: Vec<[&'a Sample; N]>, seq_len: usize, position: BatchPosition) -> Result<Self, DataError> {
        check(groups.iter().flatten().copied(), seq_len)?;
        if position.index > groups.len() as u64 {
            return Err(DataError::Value {
                what: "position in the epoch",
                found: position.index,
                expected: format!(
                    "the data set has {}: the position belongs to a different data set",
                    counted(groups.len(), if N == 2 { "pair" } else { "answer" })
                ),
            });
        }
        let order = shuffled(groups.len(), &mut rng(position.seed, 0, position.epoch));
        Ok(Self { groups, seq_len, position, order })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> BatchPosition {
        self.position
    }

    /// The rows of the next `groups` groups, as [`row_batch`] lays them out, with the number of each group in the data: for what
    /// is computed once, such as the answers' probabilities by a reference model.
    ///
    /// # Errors
    /// If `groups` is 0.
    pub fn next_batch(&mut self, groups: usize) -> Result<(Batch, Vec<usize>), DataError> {
        check_size(groups)?;
        let mut drawn = Vec::new();
        for _ in 0..groups {
            if self.position.index == self.groups.len() as u64 {
                (self.position.epoch, self.position.index) = (self.position.epoch + 1, 0);
                self.order =
                    shuffled(self.groups.len(), &mut rng(self.position.seed, 0, self.position.epoch));
            }
            drawn.push(self.order[self.position.index as usize]);
            self.position.index += 1;
        }
        let rows: Vec<&Sample> = drawn.iter().flat_map(|group| self.groups[*group]).collect();
        Ok((row_batch(&rows, self.seq_len)?, drawn))
    }
}
