//! From a recipe to a checkpoint: the trainer and its optimizers.
//!
//! A [`recipe::Recipe`] says everything about a run. [`prepare`] makes the tokenizer and the token shards or
//! samples that it asks for, [`train`] runs it: batches → loss → gradients → optimizer, with evaluations,
//! samples of text, `metrics.jsonl` and checkpoints from which a resumed run gives bit-identical weights.
//! [`dry_run`] says beforehand what it will cost. What happens is written to the run's log and told to a
//! [`Sink`], both of which are `tritforge_report`'s; MFU is measured against what
//! `tritforge_machine` finds.
//! What it minimizes is one of the objectives of [`recipe::Objective`].
//!
//! ```no_run
//! use tritforge_train::recipe::Recipe;
//! use tritforge_train::{RunOptions, prepare, train};
//!
//! let recipe = Recipe::load("recipes/shakespeare-char.toml".as_ref(), &["optim.lr=2e-3".to_string()])?;
//! let sink = |message: &str| println!("{message}");
//! let prepared = prepare(&recipe, &sink)?;
//! let summary = train(&recipe, &prepared, &RunOptions { sink: &sink, ..RunOptions::default() })?;
//! println!("held-out loss {:.4}, in {}", summary.held_out_loss, summary.checkpoint.display());
//! # Ok::<(), tritforge_train::TrainError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod beginning;
mod convert;
mod documents;
mod dry_run;
mod ema;
mod error;
mod flops;
mod guard;
mod health;
mod hessian;
mod identity;
mod init;
mod lint;
mod objective;
mod optimizer;
mod prepare;
mod preview;
pub mod recipe;
mod run_identity;
mod sample;
mod schedule;
mod shared_steps;
mod state;
mod trainer;
mod training_codes;
mod training_data;

pub use beginning::{Beginning, TensorPrint, beginning};
pub use documents::{DocumentLoss, document_losses};
pub use dry_run::{DryRun, Memory, Time, dry_run};
pub use error::TrainError;
pub use flops::flops_per_step;
pub use lint::lint_recipe;
pub use optimizer::{
    AdamW, Buffer, Lion, Muon, Optimizer, OptimizerConfig, ParameterStep, Rule, StateTensor, Step,
    StoredType, TSignSgd, global_norm,
};
pub use prepare::{Prepared, prepare, prepare_in};
pub use preview::{Lengths, Preview, PreviewSample, preview};
pub use run_identity::run_identity;
pub use schedule::{Constant, Cosine, Linear, Lota, Schedule, TwoStage, Wsd};
pub use shared_steps::shared_steps;
pub use state::check_resume;
pub use trainer::{RunOptions, RunOutcome, Summary, train};
pub use training_data::{LabelledData, PreferenceData, SampleData, TextData, TrainingData};
pub use tritforge_report::{Silent, Sink};
