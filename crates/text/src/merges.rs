//! From tokens in an order of preference to merges: how a vocabulary that says only which tokens are better
//! becomes a BPE.
//!
//! tiktoken's ranks and sentencepiece's scores both say: of all neighbours that make a token together, merge
//! those that make the best one, the leftmost first. A list of merges says the same if it holds every way of
//! putting a token together, the ways of better tokens first (`extract_vocab_merges_from_model` of
//! `transformers` does so).

use std::collections::HashMap;

/// More bytes than a token of text has; the work of looking for its parts grows with the square.
pub(crate) const MAX_TOKEN: usize = 1024;

/// All merges of tokens given best first, as pairs of their places in the list: those of better tokens first,
/// and of one token those with the longer left part.
pub(crate) fn merges(tokens: &[&[u8]]) -> Vec<(usize, usize)> {
    let places: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(i, token)| (*token, i)).collect();
    let mut merges = Vec::new();
    for token in tokens.iter().filter(|token| token.len() <= MAX_TOKEN) {
        for at in (1..token.len()).rev() {
            let (left, right) = token.split_at(at);
            if let (Some(left), Some(right)) = (places.get(left), places.get(right)) {
                merges.push((*left, *right));
            }
        }
    }
    merges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_make_a_token_is_a_merge() {
        let tokens: Vec<&[u8]> = vec![b"aa", b"aaa", b"b", b"a", b"aab", b"c"];
        let spelled: Vec<String> = merges(&tokens)
            .iter()
            .map(|(l, r)| [tokens[*l], b" ", tokens[*r]].concat())
            .map(|merge| String::from_utf8(merge).unwrap())
            .collect();
        assert_eq!(spelled, ["a a", "aa a", "a aa", "aa b"]);
    }
}
