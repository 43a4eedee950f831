//! What can keep a model from becoming a file of another format.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::CheckpointError;
use tritforge_config::ConfigError;
use tritforge_model::ModelError;
use tritforge_support::IoError;
use tritforge_ternary::TernaryError;
use tritforge_text::TextError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// No GGUF architecture describes the model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer cannot be described in GGUF metadata.
    #[error("tokenizer: {0}")]
    Text(#[from] TextError),
    /// The file cannot be written.
    #[error(transparent)]
    Gguf(#[from] tritforge_gguf::Error),
    /// A tensor cannot be packed.
    #[error("tensor {tensor}: {source}")]
    Ternary {
        /// The tensor's name in the checkpoint.
        tensor: String,
        /// What is wrong.
        source: TernaryError,
    },
    /// A tensor cannot be stored as asked.
    #[error("tensor {tensor}: {message}")]
    Tensor {
        /// The tensor's name in the checkpoint.
        tensor: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A source cannot be imported.
    #[error("{}: {message}", path.display())]
    Import {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// An adapter cannot be merged.
    #[error("{}: cannot merge: {message}", path.display())]
    Merge {
        /// The adapter's checkpoint.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A model cannot be made of its tensors.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file or directory cannot be written.
    #[error(transparent)]
    Io(#[from] IoError),
    /// Weights and activations are quantized in a way that no file describes.
    #[error(
        "the model has weights = \"{weights}\", activations = \"{activations}\": files can describe only \
         ternary weights with absmax or int4 activations, or neither quantized"
    )]
    NotTernary {
        /// The configuration's weight quantizer.
        weights: String,
        /// The configuration's activation quantizer.
        activations: String,
    },
}

impl ExportError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let at = IoError::at(path, action);
        move |source| at(source).into()
    }
}
