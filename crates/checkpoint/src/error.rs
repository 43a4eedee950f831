//! What can be wrong with a checkpoint.

use std::path::{Path, PathBuf};

use tritforge_config::ConfigError;

/// An error of this crate: it names the file, what was found, and what was expected.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
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
    /// A file is missing, damaged or of the wrong form.
    #[error("{}: {message}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong, and what to do.
        message: String,
    },
    /// A tensor is missing, or has another type or shape than expected.
    #[error("{}: tensor {tensor}: {message}", path.display())]
    Tensor {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong.
        message: String,
    },
    /// The disk is too full for a run's checkpoints.
    #[error(
        "{}: {:.1} MB free, but the run's checkpoints need {:.1} MB more: free some space, keep fewer \
         checkpoints (train.keep_last), or write to another disk",
        path.display(),
        *free as f64 / 1e6,
        *needed as f64 / 1e6
    )]
    NoRoom {
        /// The run's directory.
        path: PathBuf,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The configuration describes no possible model.
    #[error("{}: {source}", path.display())]
    Config {
        /// The configuration's file.
        path: PathBuf,
        /// What is wrong.
        source: ConfigError,
    },
}

impl CheckpointError {
    pub(crate) fn io(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, action, source }
    }

    pub(crate) fn damaged(path: &Path, message: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), message: message.into() }
    }
}
