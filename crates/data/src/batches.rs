//! Training samples from a shard, in an order that can be taken up again at any point.
//!
//! An epoch cuts the tokens into windows of `seq_len + 1` that overlap by one token (so that each token is a target once)
//! and shuffles them. Where the first window begins and in which order they come depends on the seed and the epoch's
//! number alone, so a position is three numbers.

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::{DataError, Shard};

/// Where a run stands in its data: all that the next batch depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchPosition {
    /// The seed of all epochs.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
    /// Windows of the epoch that were drawn.
    pub index: u64,
}

/// Samples for one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Input ids, [batch, `seq_len`] row-major.
    pub inputs: Vec<u32>,
    /// The token after each input, [batch, `seq_len`] row-major.
    pub targets: Vec<u32>,
}

/// An endless sequence of batches.
#[derive(Debug)]
pub struct Batches<'a> {
    shard: &'a Shard,
    seq_len: usize,
    position: BatchPosition,
    epoch: Epoch,
}

impl<'a> Batches<'a> {
    /// The position before the first batch.
    pub fn start(seed: u64) -> BatchPosition {
        BatchPosition { seed, epoch: 0, index: 0 }
    }

    /// Batches of windows of `seq_len` inputs, from a position on.
    ///
    /// # Errors
    /// If `seq_len` is 0, the shard has fewer than `seq_len + 1` tokens, or its epochs have fewer windows than the
    /// position says were drawn.
    pub fn new(shard: &'a Shard, seq_len: usize, position: BatchPosition) -> Result<Self, DataError> {
        check_seq_len(shard, seq_len, "a training sample of seq_len + 1 tokens")?;
        let epoch = Epoch::new(shard.len(), seq_len, position.seed, position.epoch);
        if position.index > epoch.order.len() as u64 {
            return Err(DataError::Value {
                what: "position in the epoch",
                found: position.index,
                expected: format!(
                    "{} has {} windows of {seq_len}: the position is another data set's",
                    shard.path().display(),
                    epoch.order.len()
                ),
            });
        }
        Ok(Self { shard, seq_len, position, epoch })
    }

    /// Where the next batch begins.
    pub fn position(&self) -> BatchPosition {
        self.position
    }

    /// Windows of the current epoch.
    pub fn windows(&self) -> usize {
        self.epoch.order.len()
    }

    /// The next `batch_size` windows. A batch may hold the end of an epoch and the beginning of the next.
    ///
    /// # Errors
    /// If `batch_size` is 0.
    pub fn next_batch(&mut self, batch_size: usize) -> Result<Batch, DataError> {
        if batch_size == 0 {
            return Err(DataError::Value {
                what: "batch_size",
                found: 0,
                expected: "expected at least 1".to_string(),
            });
        }
        let mut batch = Batch { inputs: Vec::new(), targets: Vec::new() };
        for _ in 0..batch_size {
            if self.position.index == self.epoch.order.len() as u64 {
                let BatchPosition { seed, epoch, .. } = self.position;
                self.position = BatchPosition { seed, epoch: epoch + 1, index: 0 };
                self.epoch = Epoch::new(self.shard.len(), self.seq_len, seed, epoch + 1);
            }
            let window = self.epoch.order[self.position.index as usize];
            let tokens = self.shard.tokens(self.epoch.offset + window * self.seq_len, self.seq_len + 1);
            batch.inputs.extend_from_slice(&tokens[..self.seq_len]);
            batch.targets.extend_from_slice(&tokens[1..]);
            self.position.index += 1;
        }
        Ok(batch)
    }
}

/// A shard must have a window of `seq_len` inputs and as many targets.
pub(crate) fn check_seq_len(shard: &Shard, seq_len: usize, purpose: &'static str) -> Result<(), DataError> {
    if seq_len == 0 {
        return Err(DataError::Value {
            what: "seq_len",
            found: 0,
            expected: "expected at least 1".to_string(),
        });
    }
    if shard.len() <= seq_len {
        return Err(DataError::TooShort {
            tokens: shard.len(),
            needed: seq_len.saturating_add(1),
            purpose,
            advice: "give more text, or a smaller seq_len",
        });
    }
    Ok(())
}

/// One pass through the shard.
#[derive(Debug)]
struct Epoch {
    /// Where window 0 begins; below `seq_len`, so that epochs differ in where they cut.
    offset: usize,
    /// The windows in the order in which they come.
    order: Vec<usize>,
}

impl Epoch {
    fn new(tokens: usize, seq_len: usize, seed: u64, epoch: u64) -> Self {
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&epoch.to_le_bytes());
        let mut rng = ChaCha20Rng::from_seed(key);
        // At least one window must remain: tokens > seq_len.
        let offset = below(&mut rng, seq_len.min(tokens - seq_len));
        let mut order: Vec<usize> = (0..(tokens - 1 - offset) / seq_len).collect();
        // Fisher and Yates, written out: the order of old checkpoints must not change with a library.
        for last in (1..order.len()).rev() {
            order.swap(last, below(&mut rng, last + 1));
        }
        Self { offset, order }
    }
}

/// A uniform number below `bound` ≥ 1, by the high half of a 128-bit product; its bias is below bound / 2⁶⁴.
fn below(rng: &mut ChaCha20Rng, bound: usize) -> usize {
    ((u128::from(rng.next_u64()) * bound as u128) >> 64) as usize
}
