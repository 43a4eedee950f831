//! Prompt look-up: what came after the same words before is proposed to come again (Saxena 2023; `transformers` calls it
//! prompt lookup decoding, llama.cpp `lookup`). The model looks at all proposed tokens in one pass, and each is kept
//! only if it is the one that would have been chosen.

/// Tokens of the end of a text at most, and at least, that are looked for in it.
const LONGEST: usize = 3;
const SHORTEST: usize = 2;

/// So many tokens that followed the end of a text where it occurred before, the last time and the longest end first, and
/// what followed then is taken to repeat itself; none if the end did not occur.
pub(crate) fn propose(ids: &[u32], most: usize) -> Vec<u32> {
    for length in (SHORTEST..=LONGEST).rev() {
        let Some(before) = ids.len().checked_sub(length) else { continue };
        let end = &ids[before..];
        // The end itself is no occurrence.
        let found = (0..before).rev().find(|at| ids[*at..].starts_with(end));
        if let Some(at) = found {
            return ids[at + length..].iter().copied().cycle().take(most).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_followed_the_longest_end_the_last_time_is_proposed() {
        assert_eq!(propose(&[1, 2, 3, 4, 9, 2, 3, 5, 1, 2, 3], 2), [4, 9]);
        assert_eq!(propose(&[2, 3, 4, 2, 3, 5, 7, 2, 3], 6), [5, 7, 2, 3, 5, 7]);
        assert_eq!(propose(&[7, 7, 7], 4), [7, 7, 7, 7]);
        for ids in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4], &[3, 1, 2, 3]] {
            assert!(propose(ids, 4).is_empty(), "{ids:?}");
        }
        assert!(propose(&[1, 2, 1, 2], 0).is_empty());
    }
}
