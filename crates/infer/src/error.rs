//! What can go wrong between a GGUF file and a text.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::CheckpointError;
use tritforge_config::ConfigError;
use tritforge_constrain::ConstrainError;
use tritforge_ternary::TernaryError;
use tritforge_text::TextError;

/// An error of the engine: it names the file and the tensor or option, what was found and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum InferError {
    /// The file is no GGUF file, or damaged.
    #[error("{}", in_file(path, source))]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: tritforge_gguf::Error,
    },
    /// The file describes no model that this engine runs.
    #[error("{}: {source}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
    /// A tensor is missing, or has another type, shape or content than the model needs.
    #[error("{}: tensor {tensor}: {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        message: String,
    },
    /// The file is no adapter, or not one of this model.
    #[error("{}: adapter: {message}", path.display())]
    Adapter {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The model cannot propose tokens to the other one.
    #[error("{}: draft model: {message}", path.display())]
    Draft {
        /// The draft's file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The files of an adapter cannot be read.
    #[error("adapter: {0}")]
    AdapterFiles(#[from] CheckpointError),
    /// A ternary tensor's bytes are wrong.
    #[error("{}: tensor {tensor}: {source}", path.display())]
    Ternary {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        source: TernaryError,
    },
    /// The tokenizer cannot be read, or cannot encode a text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A result is NaN or infinite, though no weight is: a sum or a product went beyond what f32 holds.
    #[error(
        "{}: {what} at position {position} is {value}: the model's weights are finite, but activations \
         overflow f32, so it cannot be used",
        path.display()
    )]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// What it is: the logit of a token, or an output of a projection.
        what: String,
        /// The position in the context, from 0.
        position: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// The prompt is empty.
    #[error("the prompt is empty: give at least one token")]
    EmptyPrompt,
    /// A token is not in the vocabulary.
    #[error("token id {id} is outside the vocabulary of {vocab_size}")]
    Token {
        /// The id.
        id: u32,
        /// The vocabulary's size.
        vocab_size: usize,
    },
    /// The session's context is full.
    #[error(
        "{asked} more tokens after {used} do not fit in a context of {context}: use a larger context or a \
         shorter prompt"
    )]
    ContextFull {
        /// Tokens in the cache.
        used: usize,
        /// Tokens to be added.
        asked: usize,
        /// The session's context length.
        context: usize,
    },
    /// The model's logits are not numbers.
    #[error(
        "the logit of token {id} at position {position} is {value}: the model's weights or adapters are damaged"
    )]
    Logit {
        /// The position, from 0, of the token that was to be chosen.
        position: usize,
        /// The token.
        id: usize,
        /// Its logit.
        value: f32,
    },
    /// A grammar is wrong, or no text of the vocabulary fits it.
    #[error(transparent)]
    Constraint(#[from] ConstrainError),
    /// Every token is barred.
    #[error("no token is left to choose from")]
    NothingToChoose,
    /// A device cannot be used, or something went wrong on it.
    #[error("device {device}: {message}")]
    Device {
        /// The device, as `--device` names it.
        device: crate::Device,
        /// What is missing or went wrong.
        message: String,
    },
    /// An option is out of its range.
    #[error("{option} = {found}: expected {expected}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// Its value.
        found: String,
        /// What would be right.
        expected: &'static str,
    },
}

/// The reader's errors about bytes name the file themselves.
fn in_file(path: &Path, source: &tritforge_gguf::Error) -> String {
    let (path, text) = (path.display().to_string(), source.to_string());
    if text.contains(&path) { text } else { format!("{path}: {text}") }
}
