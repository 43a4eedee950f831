//! How good a model is, and whether two files are the same model.
//!
//! * [`Subject`]: a model to be evaluated: a checkpoint through the training forward, or a GGUF file through the engine.
//! * [`perplexity`]: cross-entropy over a text in windows, per token and per byte.
//! * [`verify`]: two models of any form side by side, such as a checkpoint and its exported file: codes, scales, int8 activations,
//!   int32 sums, logits and greedy tokens.

mod dump;
mod error;
mod perplexity;
mod subject;
mod verify;

pub use dump::write_logits;
pub use error::EvalError;
pub use perplexity::{Perplexity, perplexity};
pub use subject::{Subject, load_decoder};
pub use verify::{
    Comparison, FirstDifference, ProjectionReport, Quantity, Side, VerifyOptions, VerifyReport, verify,
};
