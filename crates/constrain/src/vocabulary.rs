//! The tokens of a vocabulary as the parser wants them: a trie of their bytes.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};
use tritforge_support::caught;
use tritforge_text::Tokenizer;

use crate::ConstrainError;

/// The trie of so many tokens. Special tokens and those of `end_ids` are no text: a grammar has to name them.
pub(crate) fn trie(tokenizer: &Tokenizer, end_ids: &[u32], size: usize) -> Result<TokEnv, ConstrainError> {
    if !tokenizer.spells_bytes() {
        return Err(ConstrainError::Tokenizer);
    }
    let words: Vec<Vec<u8>> = (0..size as u32).map(|id| word(tokenizer, end_ids, id)).collect();
    // Whose ends are told apart from outside: which tokens end a text is a matter of each request.
    let info = TokRxInfo::new(size as u32, INVALID_TOKEN);
    let trie = caught(|| TokTrie::from(&info, &words)).ok_or_else(|| {
        let longest = words.iter().map(Vec::len).max().unwrap_or(0);
        ConstrainError::Vocabulary(format!("{size} tokens of up to {longest} bytes are more than it takes"))
    })?;
    // Not canonical: which tokens spell a text that is certain is left to the model.
    Ok(Arc::new(ApproximateTokEnv::new(trie)))
}

/// The bytes of a token; none of one that never comes in a constrained text.
fn word(tokenizer: &Tokenizer, end_ids: &[u32], id: u32) -> Vec<u8> {
    let named = |mut name: Vec<u8>| {
        name.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
        name
    };
    match tokenizer.text_bytes(id) {
        Some(bytes) if end_ids.contains(&id) => named(bytes),
        // No text has this byte, by which the parser knows special tokens.
        Some(bytes) if bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER) => Vec::new(),
        Some(bytes) => bytes,
        None if tokenizer.is_special(id) => named(tokenizer.bytes(id).unwrap_or_default()),
        None => Vec::new(),
    }
}
