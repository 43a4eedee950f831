//! A text on its way through a grammar.

use std::fmt;

use llguidance::Matcher;
use llguidance::toktrie::TokEnv;

use crate::compiler::first_part;
use crate::error::ConstrainError;

/// Bytes of the text that messages show at most.
const SHOWN: usize = 40;

/// The tokens that may come next: one bit an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    words: Vec<u32>,
    end: bool,
}

impl Allowed {
    /// Whether a token may come.
    pub fn contains(&self, id: u32) -> bool {
        self.words.get(id as usize / 32).is_some_and(|word| word >> (id % 32) & 1 == 1)
    }

    /// Whether the text may end here.
    pub fn end(&self) -> bool {
        self.end
    }

    /// Lets a token of the vocabulary come, whatever the grammar says of it.
    pub fn allow(&mut self, id: u32) {
        if let Some(word) = self.words.get_mut(id as usize / 32) {
            *word |= 1 << (id % 32);
        }
    }
}

/// A text's state: which tokens may come after those that have come.
#[derive(Clone)]
pub struct Progress {
    matcher: Matcher,
    vocabulary: TokEnv,
    /// The tokens at the end of the text, for messages.
    ids: Vec<u32>,
}

impl Progress {
    pub(crate) fn new(matcher: Matcher, vocabulary: TokEnv) -> Self {
        Self { matcher, vocabulary, ids: Vec::new() }
    }

    /// The same state, lexer included, which goes its own way: what it reads leaves no trace in this one.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            matcher: self.matcher.deep_clone(),
            vocabulary: self.vocabulary.clone(),
            ids: self.ids.clone(),
        }
    }

    /// Whether the text fits the grammar and nothing can be added to it.
    pub fn is_complete(&self) -> bool {
        !self.matcher.is_error() && self.matcher.is_stopped()
    }

    /// The tokens that may come next, at least one unless the text may end here. Not to be asked of a text that
    /// is complete.
    ///
    /// # Errors
    /// If no token leads on, or the grammar is too complex here.
    pub fn allowed(&mut self) -> Result<Allowed, ConstrainError> {
        let end = self.matcher.is_accepting().map_err(|error| self.gave_up(&error))?;
        match self.matcher.compute_mask() {
            Ok(mask) => Ok(Allowed { words: mask.into(), end }),
            // The way in which the parser says that it has found nothing.
            Err(error) if first_part(&error) == "NoExtensionBias" => {
                Err(ConstrainError::DeadEnd { text: self.text() })
            }
            Err(error) => Err(self.gave_up(&error)),
        }
    }

    /// Takes the token that was chosen, one of those that are allowed.
    ///
    /// # Errors
    /// If it is none of them, or the grammar is too complex here.
    pub fn accept(&mut self, id: u32) -> Result<(), ConstrainError> {
        self.ids.push(id);
        // Of a token a byte at the least.
        self.ids.drain(..self.ids.len().saturating_sub(SHOWN));
        self.matcher.consume_token(id).map_err(|error| self.gave_up(&error))
    }

    fn gave_up(&self, error: &anyhow::Error) -> ConstrainError {
        ConstrainError::TooComplex { text: self.text(), problem: first_part(error) }
    }

    /// The end of the text.
    fn text(&self) -> String {
        let bytes = self.vocabulary.tok_trie().decode_raw(&self.ids);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let cut = text.char_indices().rev().nth(SHOWN - 1).map_or(0, |(at, _)| at);
        text[cut..].to_string()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("complete", &self.is_complete()).finish_non_exhaustive()
    }
}
