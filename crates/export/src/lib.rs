//! Checkpoints out: a trained model as a GGUF file that runtimes load.
//!
//! The exporter quantizes each latent weight once, with the functions that training quantized it with, and writes those codes
//! and that scale. Nothing is ever de-quantized and quantized again: that would keep the codes and shrink the scales.
//! [`export_gguf`] says in its [`Report`] what it wrote, what was rounded on the way, and which runtimes load the file.
//!
//! ```no_run
//! use tritforge_checkpoint::Checkpoint;
//! use tritforge_export::{ExportOptions, export_gguf};
//!
//! let checkpoint = Checkpoint::open("runs/demo/step-000500".as_ref())?;
//! let report = export_gguf(&checkpoint, "demo.gguf".as_ref(), &ExportOptions::default())?;
//! println!("{} bytes of {}, for {:?}", report.bytes, report.architecture.name(), report.runtimes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod dense;
mod error;
mod gguf;
mod plan;
mod synth;

pub use error::ExportError;
pub use gguf::{ExportOptions, Report, export_gguf};
pub use synth::synth_gguf;
