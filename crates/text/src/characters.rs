//! Vocabularies of characters: one token for each character of a corpus.
//!
//! They are byte-level BPEs whose merges only put the bytes of one character together, so that one
//! description, GGUF's included, holds for all vocabularies. Ids are those of nanoGPT: the characters by code
//! point, from 0. After them come the bytes and beginnings from which characters beyond ASCII are made, then
//! the special tokens.

use std::collections::{BTreeSet, HashSet};

use crate::byte_level::spell;
use crate::train::finish;
use crate::{SpecialTokens, TextError, Tokenizer};

impl Tokenizer {
    /// The vocabulary of all characters of the texts. Other characters cannot be encoded: they are an error
    /// that names the character and its place.
    ///
    /// # Errors
    /// If a special token's name is a character of the texts.
    pub fn characters<I>(texts: I, specials: &SpecialTokens) -> Result<Self, TextError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut found: BTreeSet<char> = BTreeSet::new();
        for text in texts {
            found.extend(text.as_ref().chars());
        }
        let mut tokens: Vec<String> = found.iter().map(|c| spelled(*c)).collect();
        let (mut parts, mut merges, mut seen) = (BTreeSet::new(), Vec::new(), HashSet::new());
        for c in found.iter().filter(|c| !c.is_ascii()) {
            let bytes: Vec<char> = spelled(*c).chars().collect();
            parts.extend(bytes.iter().map(|b| (1, b.to_string())));
            for len in 1..bytes.len() {
                let left: String = bytes[..len].iter().collect();
                let merge = (left.clone(), bytes[len].to_string());
                if len > 1 {
                    parts.insert((len, left));
                }
                // Characters that begin alike share the merges of their beginning.
                if seen.insert(merge.clone()) {
                    merges.push(merge);
                }
            }
        }
        tokens.extend(parts.into_iter().map(|(_, part)| part));
        tokens.extend(specials.names().into_iter().map(str::to_string));
        finish(tokens, merges, specials)
    }
}

fn spelled(c: char) -> String {
    spell(c.encode_utf8(&mut [0; 4]).as_bytes())
}
