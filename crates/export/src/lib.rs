//! Checkpoints in and out: Hugging Face safetensors ⇄ Tritforge ⇄ GGUF, tensor by tensor.
//!
//! * [`import`] makes a checkpoint of a published model: Hugging Face's layout or GGUF, in full precision or
//!   ternary. Codes and scale of a ternary source are kept as they are.
//! * [`export_gguf`] writes the file that runtimes load. It quantizes each latent weight once, with the
//!   functions that training quantized it with, and writes those codes and that scale. Nothing is ever
//!   de-quantized and quantized again: that would keep the codes and shrink the scales. The [`Report`] says
//!   what was written, what was rounded on the way, and who loads it.
//! * [`export_hugging_face`] writes the directory that `transformers` loads.
//! * [`merge`] makes one checkpoint of an adapter and its base.
//! * [`inspect`] says what a file or directory holds, and who can load it.
//! * [`LoadedModel`] opens a model in any of these forms, with adapters on it; [`locate`] finds out which form
//!   it is. [`diff`] says what two of them have that is not the same.
//!
//! ```no_run
//! use tritforge_checkpoint::Checkpoint;
//! use tritforge_export::{ExportOptions, ImportOptions, export_gguf, import};
//!
//! let imported = import("bitnet-b1.58-2B-4T".as_ref(), "2b4t".as_ref(), &ImportOptions::default())?;
//! println!("{}, {} parameters", imported.source, imported.config.parameters().total());
//! let checkpoint = Checkpoint::open("2b4t".as_ref())?;
//! let report = export_gguf(&checkpoint, "2b4t.gguf".as_ref(), &ExportOptions::default())?;
//! println!("{} bytes of {}, for {:?}", report.bytes, report.architecture.name(), report.runtimes);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod adapter;
mod applied;
mod card;
mod dense;
mod diff;
mod error;
mod gguf;
mod hugging_face;
mod import;
mod inspect;
mod locate;
mod merge;
mod model;
mod plan;
mod runtimes;
mod synth;
mod tensor_data;

pub use adapter::{AdapterReport, export_adapter};
pub use applied::AppliedAdapter;
pub use diff::{
    Compared, ConfigDifference, DiffReport, DiffSide, TensorDifference, TokenizerDifference, diff,
};
pub use error::ExportError;
pub use gguf::{ExportOptions, Report, default_packing, export_gguf, gguf_tensors};
pub use hugging_face::{HuggingFaceOptions, HuggingFaceReport, export_hugging_face};
pub use import::{Assume, ImportOptions, ImportReport, import};
pub use inspect::{Inspection, TensorRow, TernarySummary, TokenizerSummary, TypeSummary, inspect};
pub use locate::{Located, checkpoint_of, gguf_file, locate, open_checkpoint};
pub use merge::{MergeReport, MergedProjection, merge};
pub use model::{LoadedModel, ModelFormat};
pub use runtimes::{Runtime, Verdict};
pub use synth::{synth_checkpoint, synth_gguf};
pub use tensor_data::ternary_tensor;
