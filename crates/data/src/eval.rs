//! Held-out tokens, each a target once.

use crate::batches::check_seq_len;
use crate::{DataError, Shard};

/// The target at a position that does not count; no vocabulary has this id.
pub const IGNORE_INDEX: u32 = u32::MAX;

/// Consecutive windows that are scored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalBatch {
    /// Input ids, [`sequences`, `seq_len`] row-major; id 0 after the shard's end.
    pub inputs: Vec<u32>,
    /// The token after each input; [`IGNORE_INDEX`] after the shard's end.
    pub targets: Vec<u32>,
    /// Number of windows.
    pub sequences: usize,
}

impl EvalBatch {
    /// Number of targets that count.
    pub fn scored(&self) -> usize {
        self.targets.iter().filter(|t| **t != IGNORE_INDEX).count()
    }
}

/// Goes once through a shard in windows that do not overlap, `sequences` of them at a time. Every token but
/// the first is a target exactly once; the last window is filled up with targets that do not count.
///
/// # Errors
/// If `seq_len` or `sequences` is 0, or the shard has no target.
pub fn eval_windows(shard: &Shard, seq_len: usize, sequences: usize) -> Result<EvalWindows<'_>, DataError> {
    // A text shorter than a window can be scored, only nothing cannot.
    check_seq_len(shard.len(), seq_len.min(1), "an evaluation")?;
    if sequences == 0 {
        return Err(DataError::Value {
            what: "sequences",
            found: 0,
            expected: "expected at least 1".to_string(),
        });
    }
    Ok(EvalWindows { shard, seq_len, sequences, start: 0 })
}

/// The iterator of [`eval_windows`].
#[derive(Debug, Clone)]
pub struct EvalWindows<'a> {
    shard: &'a Shard,
    seq_len: usize,
    sequences: usize,
    /// The next window's first input.
    start: usize,
}

impl Iterator for EvalWindows<'_> {
    type Item = EvalBatch;

    fn next(&mut self) -> Option<EvalBatch> {
        let targets = self.shard.len() - 1;
        let left = targets.checked_sub(self.start).filter(|left| *left > 0)?;
        let sequences = self.sequences.min(left.div_ceil(self.seq_len));
        let width = sequences * self.seq_len;
        let mut inputs = self.shard.tokens(self.start, width.min(left));
        let mut targets = self.shard.tokens(self.start + 1, width);
        inputs.resize(width, 0);
        targets.resize(width, IGNORE_INDEX);
        self.start += width;
        Some(EvalBatch { inputs, targets, sequences })
    }
}
