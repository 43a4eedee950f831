//! What a model says has to be numbers before anything is measured by it.

use tritforge_ternary::{NotFinite, check_finite};

use crate::EvalError;

/// The logits of the training forward, [rows, vocab], if all are finite; the first is that of position
/// `first`. (The engine checks its own.)
///
/// # Errors
/// The first one that is NaN or infinite.
pub(crate) fn finite(logits: Vec<f32>, vocab: usize, first: usize) -> Result<Vec<f32>, EvalError> {
    match check_finite(&logits, vocab) {
        Ok(()) => Ok(logits),
        Err(NotFinite { row, column, value }) => {
            Err(EvalError::NotFinite { position: first + row.unwrap_or(0), token: column, value })
        }
    }
}

/// A metric, if it is a number.
///
/// # Errors
/// If it is NaN or infinite.
pub(crate) fn metric(name: &'static str, value: f64) -> Result<f64, EvalError> {
    if value.is_finite() { Ok(value) } else { Err(EvalError::Metric { name, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logit_that_is_no_number_is_named() {
        assert_eq!(finite(vec![1.0, -2.0], 2, 0).unwrap(), [1.0, -2.0]);
        let error = finite(vec![0.0, 0.0, 0.0, f32::NEG_INFINITY], 2, 5).unwrap_err().to_string();
        assert!(
            error.contains("position 6") && error.contains("token 1") && error.contains("-inf"),
            "{error}"
        );
        let error = metric("perplexity", f64::NAN).unwrap_err().to_string();
        assert!(error.starts_with("perplexity is NaN"), "{error}");
    }
}
