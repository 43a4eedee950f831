//! How good a model is, and whether two files are the same model.
//!
//! * [`EvalModel`]: a model to be evaluated: a checkpoint through the training forward, or a GGUF file
//!   through the engine.
//! * [`perplexity`]: cross-entropy over a text in windows, per token and per byte.
//! * [`tasks`]: multiple choice by log-likelihood, word problems, programs; with the prompts and metrics of
//!   lm-evaluation-harness. A [`Scorer`] and [`generate_greedy`] answer them.
//! * [`verify`]: two models of any form side by side, such as a checkpoint and its exported file: codes,
//!   scales, int8 activations, int32 sums, logits and greedy tokens.
//!
//! ```no_run
//! use tritforge_eval::tasks::{Task, TaskData, TaskOptions, evaluate};
//! use tritforge_eval::EvalModel;
//!
//! let model = EvalModel::open("model.gguf".as_ref())?;
//! let data = TaskData::read("arc_easy/test.jsonl".as_ref(), Some(100))?;
//! let task = Task::named("arc_easy")?;
//! let result = evaluate(&model, task, &data, None, &TaskOptions::default(), &mut |_sample| {})?;
//! for metric in &result.metrics {
//!     println!("{} {:.4} ± {:.4}", metric.name, metric.value, metric.stderr.unwrap_or(f64::NAN));
//! }
//! # Ok::<(), tritforge_eval::EvalError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod dump;
mod error;
mod finite;
mod greedy;
mod model;
mod perplexity;
mod score;
pub mod tasks;
mod verify;

pub use dump::write_logits;
pub use error::EvalError;
pub use greedy::{GreedyOptions, generate_greedy};
pub use model::EvalModel;
pub use perplexity::{Perplexity, PerplexityOptions, Scoring, perplexity};
pub use score::{LogLikelihood, ScoredSequence, Scorer};
pub use verify::{
    Comparison, FirstDifference, ProjectionReport, Quantity, VerifyOptions, VerifyReport, verify,
};
