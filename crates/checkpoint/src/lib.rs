//! The checkpoint directory: tensors and documents that belong together, written as one, checked as one.
//!
//! A checkpoint is a directory with a `manifest.json` that lists every other file with its length and
//! SHA-256. It is written under a temporary name, synced, and renamed: a crash at any moment leaves either
//! the whole checkpoint or none of it, and [`latest`] finds the last whole one. The crate knows bytes,
//! tensors and the model's configuration; what the trainer keeps beside them is the trainer's business. A
//! [`TensorFile`] is written one tensor at a time, for models that do not fit memory.
//!
//! ```
//! use tritforge_checkpoint::{Checkpoint, TensorView, Writer};
//! use tritforge_config::ModelConfig;
//!
//! let run = tempfile::tempdir()?;
//! let mut writer = Writer::create(&run.path().join("step-000001"))?;
//! writer.write_config(&ModelConfig::default())?;
//! writer.write_tensors("model.safetensors", &[TensorView::new("model.norm.weight", &[3], &[1.0, 2.0, 3.0])])?;
//! writer.commit()?;
//!
//! let newest = tritforge_checkpoint::latest(run.path())?.expect("one checkpoint");
//! let checkpoint = Checkpoint::open(&newest)?;
//! let tensors = checkpoint.tensors("model.safetensors")?;
//! assert_eq!(tensors.f32("model.norm.weight", &[3])?.as_ref(), [1.0, 2.0, 3.0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod adapter;
mod error;
mod manifest;
mod mmap;
mod reader;
mod run;
mod stream;
mod writer;

pub use adapter::{AdapterFiles, AdapterModule, StoredTensor};
pub use error::CheckpointError;
pub use reader::{Checkpoint, Tensors};
pub use run::{check_room, latest, prune, step_dir, steps};
pub use safetensors::Dtype;
pub use stream::{TensorFile, TensorSpec, TensorType};
pub use writer::{TensorView, Writer};

/// The model's configuration.
pub const CONFIG: &str = "config.json";
/// The model's weights.
pub const MODEL: &str = "model.safetensors";
/// The tokenizer, in Hugging Face format.
pub const TOKENIZER: &str = "tokenizer.json";
/// Which of the tokenizer's tokens begin and end a text, and its chat template, in Hugging Face format.
pub const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// The list of all files.
pub const MANIFEST: &str = "manifest.json";
