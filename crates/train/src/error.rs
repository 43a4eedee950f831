//! What can keep a run from starting or make it stop.

use std::path::{Path, PathBuf};

use tritforge_checkpoint::CheckpointError;
use tritforge_config::ConfigError;
use tritforge_data::DataError;
use tritforge_export::ExportError;
use tritforge_model::ModelError;
use tritforge_report::ReportError;
use tritforge_text::TextError;

use crate::recipe::RecipeError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The recipe is wrong.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// The model's shape is impossible.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The tokenizer cannot be made or cannot encode the text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The model failed.
    #[error(transparent)]
    Nn(#[from] ModelError),
    /// candle failed.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A batch of preferences is not made of pairs.
    #[error(
        "{sequences} sequences and {reference} reference log-probabilities: expected an even number of \
         sequences and one reference log-probability per sequence"
    )]
    Preferences {
        /// Sequences of the batch.
        sequences: usize,
        /// Log-probabilities that the reference gives.
        reference: usize,
    },
    /// The operating system refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was attempted.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The state of a run cannot be stored or understood.
    #[error("{0}")]
    State(String),
    /// Loss, gradient or weights are no numbers any more.
    #[error(
        "step {step}: {what} is {value}: training stopped; the last good checkpoint is {checkpoint}. Lower \
         optim.lr, lengthen optim.warmup_steps, set optim.grad_clip, or skip such steps with \
         train.on_nonfinite = \"skip\""
    )]
    NotFinite {
        /// The step that failed, from 1.
        step: u64,
        /// What is no number.
        what: &'static str,
        /// Its value.
        value: f64,
        /// Where to go on from.
        checkpoint: String,
    },
    /// The gradient is far larger than before.
    #[error(
        "step {step}: gradient norm spike: {norm:.3} (running mean {mean:.3}): training stopped; the last \
         good checkpoint is {checkpoint}. Lower optim.lr, raise train.spike_threshold, or set train.on_spike \
         = \"skip\""
    )]
    Spike {
        /// The step, from 1.
        step: u64,
        /// Its gradient's norm.
        norm: f64,
        /// The running mean of the norms before.
        mean: f64,
        /// Where to go on from.
        checkpoint: String,
    },
    /// The run's directory already holds a run.
    #[error("{}: already contains checkpoints of a run: continue with --resume, start over with --overwrite, \
             or set another run.out", .0.display())]
    Exists(PathBuf),
    /// A model that the recipe names cannot be opened.
    #[error(transparent)]
    Export(#[from] ExportError),
    /// The log of a run cannot be written.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// A teacher cannot be listened to.
    #[error("{}: the teacher: {message}", path.display())]
    Teacher {
        /// The teacher's checkpoint or file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The engine failed.
    #[error(transparent)]
    Infer(#[from] tritforge_infer::InferError),
    /// A run cannot go on from its checkpoint.
    #[error("{}: cannot resume: {message}", path.display())]
    Resume {
        /// The checkpoint.
        path: PathBuf,
        /// What changed.
        message: String,
    },
}

impl TrainError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }
}
