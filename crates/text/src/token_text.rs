//! The texts of single tokens, for what has to know all of them at once.

use crate::Tokenizer;

impl Tokenizer {
    /// The bytes that an id adds to a text if it is a token of text: not a special one, not one that only fills
    /// the vocabulary.
    pub fn text_bytes(&self, id: u32) -> Option<Vec<u8>> {
        let is_text = !self.is_special(id) && !self.unused.contains_key(&id);
        is_text.then(|| self.bytes(id).ok()).flatten()
    }

    /// Whether the bytes of tokens, put together, are their text.
    pub fn spells_bytes(&self) -> bool {
        self.spelling.is_bytes()
    }
}
