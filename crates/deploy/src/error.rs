//! Why there is no plan.

use std::path::PathBuf;

use tritforge_config::ConfigError;
use tritforge_export::ExportError;
use tritforge_infer::InferError;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeployError {
    /// The target is neither built in nor a file.
    #[error("--target {found:?}: no such file; expected {expected} or a TOML file of these keys: {keys}")]
    NoTarget {
        /// What was given.
        found: String,
        /// The names that there are.
        expected: String,
        /// The keys of a file.
        keys: &'static str,
    },
    /// The target's file cannot be read.
    #[error("{path}: cannot read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The target's file is not one.
    #[error("{place}: {message}")]
    Target {
        /// The file.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// This machine does not say what it has.
    #[error("--target here: {0}")]
    Here(String),
    /// What is asked for cannot be with this model.
    #[error("{option} {found}: expected {expected}")]
    Option {
        /// The option.
        option: &'static str,
        /// What it was.
        found: usize,
        /// What it may be.
        expected: String,
    },
    /// It does not fit.
    #[error(
        "{model} does not fit target {target}: {context} tokens of context for {concurrency} at once take {needed}, the \
         target has {memory}; {ways}"
    )]
    TooLarge {
        /// The model.
        model: String,
        /// The target's name.
        target: String,
        /// Tokens of a request.
        context: usize,
        /// Requests at once.
        concurrency: usize,
        /// What it takes, for people.
        needed: String,
        /// What there is, for people.
        memory: String,
        /// What would fit.
        ways: String,
    },
    /// The model cannot be opened, or exported.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The engine does not load it.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The GGUF file is damaged.
    #[error("{path}: {source}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tritforge_gguf::Error,
    },
    /// The model is none that this program understands.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// The options cannot be written.
    #[error("serve.toml: {0}")]
    Write(String),
}
