//! How good a model is, and whether two files are the same model.
//!
//! * [`Subject`]: a model to be evaluated: a checkpoint through the training forward, or a GGUF file through the engine.
//! * [`perplexity`]: cross-entropy over a text in windows, per token and per byte.
//! * [`verify`]: a checkpoint and its exported file side by side: codes, scales, int8 activations, int32 sums, logits and
//!   greedy tokens.

mod dump;
mod error;
mod perplexity;
mod subject;
mod verify;

pub use dump::write_logits;
pub use error::EvalError;
pub use perplexity::{Perplexity, perplexity};
pub use subject::{Subject, load_decoder};
pub use verify::{Comparison, ProjectionReport, VerifyOptions, VerifyReport, verify};
