//! From corpora to token shards to batches.
//!
//! Text comes as [`Document`]s: from files ([`Corpus::read`]) or from the Rust sources that are already
//! present wherever the project was built ([`rust_sources()`]). [`split()`] holds some of it out;
//! [`tokenize()`] writes each part as a [`Shard`], a memory-mapped file of token ids that knows the tokenizer
//! and the text it came from. [`Batches`] draws training samples from a shard, in an order that can be taken
//! up again at any point; [`eval_windows`] goes once through a held-out shard. [`bigram_baseline`] says what
//! a model has to beat. [`read_records`] reads evaluation sets. The crate knows no tokenizer: one is passed
//! as a function.
//!
//! ```
//! use tritforge_data::{Batches, Document, Fingerprint, Split, TokenizeOptions, split, tokenize};
//!
//! let documents = vec![Document { source: "poem".into(), text: "so much depends upon a red wheel barrow".into() }];
//! let (train, held_out) = split(documents, Split::Contiguous { fraction: 0.25 })?;
//!
//! // A tokenizer of bytes.
//! let encode = |text: &str| Ok::<_, std::convert::Infallible>(text.bytes().map(u32::from).collect());
//! let options = TokenizeOptions {
//!     vocab_size: 256,
//!     eos: None,
//!     fingerprint: Fingerprint::of(b"bytes", &train, None),
//! };
//! # let dir = tempfile::tempdir().expect("a temporary directory");
//! let shard = tokenize(&train, &dir.path().join("train.shard"), &options, encode, |_bytes| {})?;
//! assert_eq!(shard.len(), 29);
//!
//! let mut batches = Batches::new(&shard, 8, Batches::start(42))?;
//! let batch = batches.next_batch(2)?;
//! assert_eq!(batch.inputs.len(), 2 * 8);
//! assert_eq!(batch.inputs[1..8], batch.targets[..7]);
//! # assert_eq!(held_out[0].text.len(), 10);
//! # Ok::<(), tritforge_data::DataError>(())
//! ```

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod batches;
mod bigram;
mod compression;
mod corpus;
mod error;
mod eval;
mod examples;
mod fingerprint;
mod format;
mod hub;
mod labelled;
mod lint;
mod mixture;
mod mmap;
mod records;
mod row_batches;
mod rows;
mod rust_sources;
mod sample_batches;
mod samples;
mod shard;
mod shard_writer;
mod split;
mod tables;
mod text;
mod tokenize;

pub use batches::{Batch, BatchPosition, Batches, Packing, Texts};
pub use bigram::{BigramBaseline, BigramScore, bigram_baseline};
pub use corpus::{Corpus, Document, Skipped, TextSource, is_pattern, matches};
pub use error::DataError;
pub use eval::{EvalBatch, EvalWindows, IGNORE_INDEX, eval_windows};
pub use examples::{
    Body, ChatTurn, Columns, Dropped, Example, Examples, OnBadSample, ReadOptions, Reason, RecordKind,
    Report, Supplied,
};
pub use fingerprint::Fingerprint;
pub use format::Format;
pub use hub::{Address, Hub};
pub use labelled::{LabelledSample, labelled_samples, mismatched};
pub use lint::{
    Against, AgainstItem, Finding, FindingKind, Lint, LintOptions, LintProgress, lint, read_leniently,
};
pub use mixture::{Mixture, MixturePart};
pub use row_batches::{LabelledBatches, PreferenceBatches, RowBatches, row_batch};
pub use rows::TableFormat;
pub use rust_sources::{RustSources, RustSourcesReport, rust_sources};
pub use sample_batches::{SampleBatches, sample_windows};
pub use samples::{Preference, Sample, SampleOptions, Truncation, preferences, sample_fingerprint, samples};
pub use shard::Shard;
pub use shard_writer::ShardWriter;
pub use split::{Split, split, split_examples};
pub use tables::{JsonLine, Record, json_lines, read_records, table_extensions};
pub use tokenize::{TokenizeOptions, cached_or_tokenize_parts, tokenize, tokenize_parts};
