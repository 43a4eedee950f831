//! What can be wrong with a grammar, or with a text that is to fit one.

/// A grammar cannot be compiled or followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstrainError {
    /// The grammar is wrong, too large, or uses what there is not.
    #[error("{what} cannot be used: {problem}")]
    Grammar {
        /// What it is: `the JSON schema`, `the regular expression`, …
        what: &'static str,
        /// What is wrong, and where.
        problem: String,
    },
    /// The tokens of the vocabulary do not spell text byte by byte.
    #[error(
        "the model's tokenizer cannot be constrained: the text of its tokens depends on their neighbors; use a \
         byte-level or sentencepiece vocabulary"
    )]
    Tokenizer,
    /// The vocabulary is beyond what the parser takes.
    #[error("the model's tokenizer cannot be constrained: {0}")]
    Vocabulary(String),
    /// No token leads on.
    #[error(
        "the constraint cannot be met: no token of the vocabulary continues {text:?} as the grammar wants it"
    )]
    DeadEnd {
        /// The end of the text so far.
        text: String,
    },
    /// The parser gave up.
    #[error("the constraint is too complex after {text:?}: {problem}")]
    TooComplex {
        /// The end of the text so far.
        text: String,
        /// What it says.
        problem: String,
    },
}
