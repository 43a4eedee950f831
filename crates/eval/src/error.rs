//! What can keep a model from being evaluated.

use tritforge_checkpoint::CheckpointError;
use tritforge_export::ExportError;
use tritforge_infer::InferError;
use tritforge_nn::NnError;
use tritforge_text::TextError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The training forward failed.
    #[error(transparent)]
    Nn(#[from] NnError),
    /// The engine failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] ExportError),
    /// The text or the options do not fit.
    #[error("{0}")]
    Input(String),
    /// The two models have different shapes.
    #[error("the models differ: {key} is {left} in the first and {right} in the second")]
    Shape {
        /// The configuration's key.
        key: &'static str,
        /// The first model's value.
        left: String,
        /// The second model's value.
        right: String,
    },
}
