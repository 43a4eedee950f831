//! What can keep a checkpoint from becoming a GGUF file.

use tritforge_checkpoint::CheckpointError;
use tritforge_config::ConfigError;
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
    /// The model has no ternary weights to export.
    #[error(
        "the model was trained with weights = \"{weights}\", activations = \"{activations}\": only absmean weights with absmax \
         activations are what a ternary GGUF runs"
    )]
    NotTernary {
        /// The configuration's weight quantizer.
        weights: String,
        /// The configuration's activation quantizer.
        activations: String,
    },
}
