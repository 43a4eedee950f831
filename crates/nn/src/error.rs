//! What can go wrong in building a module.

use tritforge_config::ConfigError;
use tritforge_ternary::TernaryError;

/// An error of this crate. It turns into a candle error, so that `?` works in functions that return candle's.
#[derive(Debug, thiserror::Error)]
pub enum NnError {
    /// The configuration describes no possible model.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// candle refused an operation.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
    /// A weight has no ternary form.
    #[error(transparent)]
    Ternary(#[from] TernaryError),
    /// A setting or an input does not fit.
    #[error("{what}: found {found}, expected {expected}")]
    Input {
        /// What was looked at.
        what: &'static str,
        /// What was found.
        found: String,
        /// What would be right.
        expected: String,
    },
}

impl From<NnError> for candle_core::Error {
    fn from(error: NnError) -> Self {
        match error {
            NnError::Candle(error) => error,
            other => candle_core::Error::wrap(other),
        }
    }
}
