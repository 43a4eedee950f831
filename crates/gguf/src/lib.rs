//! GGUF, the file format of deployed models: a bounded reader over mmap and a streaming writer.
//!
//! A GGUF file is typed key–value [`Metadata`] followed by named tensors in the encodings that [`GgmlType`]
//! lists. A [`Writer`] takes the metadata and the list of tensors first, then the data of one tensor after
//! the other, and gives the file its name only when all of it is on disk. [`Gguf`] opens a file by mapping
//! it, checks everything before it trusts anything, and hands out each tensor's bytes in place. What the
//! bytes of a ternary tensor mean is the concern of `tritforge-ternary`.
//!
//! ```
//! use tritforge_gguf::{GgmlType, Gguf, Metadata, TensorSpec, Writer};
//!
//! let mut metadata = Metadata::new();
//! metadata.insert("general.architecture", "bitnet");
//! metadata.insert("bitnet.block_count", 2u32);
//! metadata.insert("tokenizer.ggml.tokens", vec!["<s>".to_owned(), "fn".to_owned()]);
//!
//! // Dimensions are innermost first: 2 rows of 256 columns.
//! let spec = TensorSpec { name: "blk.0.attn_q.weight".into(), dims: vec![256, 2], ty: GgmlType::TQ2_0 };
//! let packed = vec![0x55; GgmlType::TQ2_0.nbytes(&spec.dims)? as usize];
//!
//! # let directory = tempfile::tempdir().expect("a temporary directory");
//! # let path = directory.path().join("model.gguf");
//! let mut writer = Writer::create(&path, &metadata, vec![spec])?;
//! writer.write_tensor("blk.0.attn_q.weight", &packed)?;
//! writer.finish()?;
//!
//! let model = Gguf::open(&path)?;
//! assert_eq!(model.metadata().get_u64("bitnet.block_count")?, 2);
//! let tensor = model.tensor("blk.0.attn_q.weight").expect("the tensor just written");
//! assert_eq!((tensor.dims.as_slice(), tensor.ty), (&[256, 2][..], GgmlType::TQ2_0));
//! assert_eq!(model.data(tensor), packed);
//! # Ok::<(), tritforge_gguf::Error>(())
//! ```
//!
//! # What a file may be
//!
//! Versions 2 and 3 in little-endian order. Files come from strangers, so a file that is cut short, damaged
//! or hostile is an [`Error::Parse`] that names the byte offset, the field, what stands there and what may
//! stand there; never a panic, and never an allocation that the size of the file does not justify.
//!
//! A model may be split over several files (`split.count`). [`Gguf::open`] takes the first and maps them all.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cursor;
mod encode;
mod error;
mod format;
mod metadata;
mod mmap;
mod mxfp4;
mod overrides;
mod parse;
mod q2_0;
mod reader;
mod split;
mod types;
mod value;
mod writer;

pub use error::Error;
pub use metadata::{Metadata, optional};
pub use overrides::Override;
pub use reader::{Gguf, TensorInfo};
pub use types::GgmlType;
pub use value::{Array, Value};
pub use writer::{TensorSpec, Writer};
