//! Which tokens see each other: the segments of a batch and the positions in them.

use std::sync::Arc;

use crate::NnError;

/// Segments of tokens that follow each other; attention does not look over their borders, and positions count
/// from their beginning.
#[derive(Debug, Clone)]
pub struct Segments {
    lengths: Vec<usize>,
    positions: Arc<[u32]>,
}

impl Segments {
    /// `tokens` tokens in `sequences` sequences of equal length, cut further where a document begins:
    /// `starts` are positions among all the tokens, ascending. Beginnings of sequences need not be named.
    ///
    /// # Errors
    /// If the tokens do not divide into the sequences, or the starts do not ascend or lie outside.
    pub fn new(tokens: usize, sequences: usize, starts: &[usize]) -> Result<Self, NnError> {
        if tokens == 0 || sequences == 0 || !tokens.is_multiple_of(sequences) {
            return Err(NnError::Input {
                what: "token ids",
                found: format!("{tokens} in {sequences} sequences"),
                expected: "at least one, in sequences of equal length".to_string(),
            });
        }
        let ascending = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || starts.last().is_some_and(|last| *last >= tokens) {
            return Err(NnError::Input {
                what: "segments",
                found: format!("{starts:?}"),
                expected: format!("ascending positions below {tokens}"),
            });
        }
        let length = tokens / sequences;
        let mut borders: Vec<usize> = (0..=sequences).map(|sequence| sequence * length).collect();
        borders.extend(starts);
        borders.sort_unstable();
        borders.dedup();
        let lengths: Vec<usize> = borders.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let positions = lengths.iter().flat_map(|n| 0..*n as u32).collect();
        Ok(Self { lengths, positions })
    }

    /// Tokens of each segment.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The position of every token in its segment.
    pub fn positions(&self) -> &Arc<[u32]> {
        &self.positions
    }
}
