//! What can keep a model from being made ternary.

use std::path::PathBuf;

use tritforge_checkpoint::CheckpointError;
use tritforge_config::ConfigError;
use tritforge_export::ExportError;
use tritforge_model::ModelError;
use tritforge_ternary::TernaryError;
use tritforge_text::TextError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum QuantizeError {
    /// The model cannot be read.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// What is stored on the way, or the result, cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The ternary model would be impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A block cannot be computed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The groups do not fit.
    #[error(transparent)]
    Ternary(#[from] TernaryError),
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The optimizer failed.
    #[error("optimizer: {0}")]
    Optimizer(#[from] candle_core::Error),
    /// An option is impossible.
    #[error("{option}: found {found}, expected {expected}")]
    Option {
        /// Its name on the command line.
        option: &'static str,
        /// What was given.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// The model is of a kind that is not converted.
    #[error("{}: {message}", path.display())]
    Source {
        /// The model.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },
    /// The loss of a window is no number any more.
    #[error(
        "blocks {first} to {last}: the loss is {loss} in step {step}: a smaller --learning-rate may help (it is {lr})"
    )]
    Diverged {
        /// The window's first block, from 0.
        first: usize,
        /// Its last.
        last: usize,
        /// The step, from 0.
        step: usize,
        /// `NaN` or `inf`.
        loss: f64,
        /// The learning rate.
        lr: f64,
    },
    /// An unfinished conversion cannot go on.
    #[error("{}: {message}", path.display())]
    Unfinished {
        /// Its directory.
        path: PathBuf,
        /// Why, and what to do.
        message: String,
    },
    /// A file or directory cannot be written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl QuantizeError {
    pub(crate) fn io(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}
