//! What can go wrong with tokenizers, texts and chat templates.

use std::path::PathBuf;

use tritforge_support::counted;

/// An error of this crate: it names the place, what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A tokenizer file is damaged or contradicts itself.
    #[error("{file}: {place}: {problem}")]
    Malformed {
        /// The file, or the kind of file where its path is not known.
        file: String,
        /// Where in it, such as `model.merges[17]` or `tokenizer.ggml.tokens[3]`.
        place: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// GGUF metadata lacks a key or has it with another type.
    #[error("tokenizer metadata: {0}")]
    Metadata(#[from] tritforge_gguf::Error),
    /// GGUF cannot describe this tokenizer, or describes one that this crate does not build.
    #[error("{what}: found {found}; supported: {supported}")]
    Unsupported {
        /// The part in question.
        what: &'static str,
        /// What it is.
        found: String,
        /// What it may be.
        supported: String,
    },
    /// A character that the vocabulary does not have. Nothing is ever dropped from a text.
    #[error("character {character:?} (U+{:04X}) at byte {offset} of the text is not in the vocabulary", u32::from(*.character))]
    UnknownCharacter {
        /// The character.
        character: char,
        /// Where it begins, in bytes from the start of the text.
        offset: usize,
    },
    /// A run of spaces so long that the pattern that splits text gives up on it. Text after it would be split
    /// in another way than everywhere else.
    #[error("the run of spaces near byte {offset} of the text is too long for the pre-tokenizer: shorten it")]
    RunOfSpaces {
        /// Where the text could not be split any more, in bytes from its start.
        offset: usize,
    },
    /// An id that the vocabulary does not have.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    UnknownId {
        /// The id.
        id: u32,
        /// The number of ids.
        vocab_size: usize,
    },
    /// A vocabulary size that cannot hold what it must.
    #[error("a vocabulary of {} is too small: at least {needed} are needed for {reason}", counted(*found, "token"))]
    VocabularyTooSmall {
        /// The size asked for.
        found: usize,
        /// The least size.
        needed: usize,
        /// What needs them.
        reason: &'static str,
    },
    /// The tokenizer library failed on a text.
    #[error("cannot tokenize: {0}")]
    Tokenize(String),
    /// A chat template does not parse, failed, or refused the messages.
    #[error("chat template{}: {problem}", line.map_or(String::new(), |line| format!(", line {line}")))]
    Template {
        /// The line of the template, from 1, where it is known.
        line: Option<usize>,
        /// What is wrong; what the template itself raised, where it refused.
        problem: String,
    },
}

impl TextError {
    pub(crate) fn malformed(file: &str, place: impl Into<String>, problem: impl Into<String>) -> Self {
        TextError::Malformed { file: file.to_string(), place: place.into(), problem: problem.into() }
    }
}
