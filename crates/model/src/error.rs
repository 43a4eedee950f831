//! What can go wrong in a model.

use tritforge_config::ConfigError;
use tritforge_ternary::TernaryError;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The configuration describes no possible model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Weights that are to be ternary as they stand are not.
    #[error(transparent)]
    Ternary(#[from] TernaryError),
    /// A pass over weights or adapters that changed since they were quantized.
    #[error("the ternary codes are stale: call requantize() after changing weights or adapters")]
    Stale,
    /// The input does not fit the model.
    #[error("{what}: found {found}, expected {expected}")]
    Input {
        /// What was looked at.
        what: &'static str,
        /// What was found.
        found: String,
        /// What would be right.
        expected: String,
    },
    /// A tensor cannot be loaded.
    #[error("tensor {name}: {message}")]
    Tensor {
        /// The tensor's name.
        name: String,
        /// What is wrong.
        message: String,
    },
}
