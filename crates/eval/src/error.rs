//! What can keep a model from being evaluated.

use std::path::PathBuf;

use tritforge_checkpoint::CheckpointError;
use tritforge_data::DataError;
use tritforge_export::ExportError;
use tritforge_infer::InferError;
use tritforge_model::ModelError;
use tritforge_text::TextError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The training forward failed.
    #[error(transparent)]
    Nn(#[from] ModelError),
    /// The engine failed.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A sample of a task cannot be asked.
    #[error("{}: {place}: {message}", path.display())]
    Sample {
        /// The file.
        path: PathBuf,
        /// Where in it: `line 3`, or `row 3` in Parquet; both count from 1.
        place: String,
        /// What was found, what was expected.
        message: String,
    },
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] ExportError),
    /// A logit of the training forward is NaN or infinite.
    #[error(
        "the logit of token {token} at position {position} is {value}: the model's weights are finite, but \
         activations overflow f32, so it cannot be evaluated"
    )]
    NotFinite {
        /// The position in the sequence, from 0.
        position: usize,
        /// The token whose logit it is.
        token: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// What was measured is not a finite number.
    #[error("{name} is {value}: expected a finite number")]
    Metric {
        /// What was measured.
        name: &'static str,
        /// What came of it.
        value: f64,
    },
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
