//! Where attention ends: the segments of a batch and the positions in them.

use std::ops::Range;

use crate::{Batch, ModelError};

/// The lengths of the segments of `tokens` tokens: of every sequence, cut where `starts` says. Segments
/// follow each other.
///
/// # Errors
/// If `starts` do not ascend or lie outside the tokens.
pub(crate) fn segment_lengths(
    tokens: usize,
    sequences: usize,
    starts: &[usize],
    lengths: &mut Vec<usize>,
) -> Result<(), ModelError> {
    lengths.clear();
    if starts.windows(2).any(|pair| pair[0] >= pair[1]) || starts.last().is_some_and(|last| *last >= tokens) {
        return Err(ModelError::Input {
            what: "segments",
            found: format!("{starts:?}"),
            expected: format!("ascending positions below {tokens}"),
        });
    }
    let length = tokens / sequences;
    let mut starts = starts.iter().copied().peekable();
    for sequence in 0..sequences {
        let mut begin = sequence * length;
        let end = begin + length;
        while let Some(start) = starts.next_if(|start| *start < end) {
            if start > begin {
                lengths.push(start - begin);
                begin = start;
            }
        }
        lengths.push(end - begin);
    }
    Ok(())
}

/// Where the segments lie among the tokens.
pub(crate) fn ranges(lengths: &[usize]) -> impl Iterator<Item = Range<usize>> {
    lengths.iter().scan(0, |end, n| {
        let begin = *end;
        *end += n;
        Some(begin..*end)
    })
}

/// The position of every token in its segment.
pub(crate) fn positions(lengths: &[usize]) -> impl Iterator<Item = u32> {
    lengths.iter().flat_map(|n| 0..*n as u32)
}

impl Batch<'_> {
    /// The lengths of the batch's segments.
    pub(crate) fn segment_lengths(&self, lengths: &mut Vec<usize>) -> Result<(), ModelError> {
        segment_lengths(self.ids.len(), self.sequences, self.segments, lengths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(tokens: usize, sequences: usize, starts: &[usize]) -> Option<Vec<usize>> {
        let mut lengths = vec![99];
        segment_lengths(tokens, sequences, starts, &mut lengths).ok().map(|()| lengths)
    }

    #[test]
    fn sequences_are_cut_where_documents_begin() {
        assert_eq!(lengths(12, 2, &[]), Some(vec![6, 6]));
        assert_eq!(lengths(12, 2, &[0, 2, 5, 6, 11]), Some(vec![2, 3, 1, 5, 1]));
        // A sequence begins a segment, whether named or not.
        assert_eq!(lengths(12, 3, &[1, 9]), Some(vec![1, 3, 4, 1, 3]));
        assert_eq!(positions(&[2, 1, 3]).collect::<Vec<_>>(), [0, 1, 0, 0, 1, 2]);
        assert_eq!(ranges(&[2, 1, 3]).collect::<Vec<_>>(), [0..2, 2..3, 3..6]);
    }

    #[test]
    fn starts_that_do_not_ascend_or_lie_outside_are_refused() {
        assert_eq!(lengths(4, 1, &[2, 2]), None);
        assert_eq!(lengths(4, 1, &[3, 1]), None);
        assert_eq!(lengths(4, 1, &[4]), None);
    }
}
