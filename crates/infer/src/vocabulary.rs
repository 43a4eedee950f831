//! What a sequence has to know of its model.

use tritforge_text::Tokenizer;

use crate::Model;

/// The tokens of a model: what a sequence has to know of it.
#[derive(Debug, Clone, Copy)]
pub struct Vocabulary<'m> {
    /// What turns tokens into text.
    pub tokenizer: &'m Tokenizer,
    /// The tokens that end a generation ([`Tokenizer::end_ids`]).
    pub end_ids: &'m [u32],
    /// Number of logits: that of the tokenizer's tokens, or more if the model pads its vocabulary.
    pub size: usize,
}

impl<'m> Vocabulary<'m> {
    /// That of a loaded model.
    pub fn of(model: &'m Model) -> Self {
        Self { tokenizer: model.tokenizer(), end_ids: model.end_ids(), size: model.config().vocab_size }
    }
}
