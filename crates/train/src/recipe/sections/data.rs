//! `[tokenizer]` and `[data]`: the text and its tokens.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_data::{Format, Packing};

use super::serialize::{is_concat, is_shard_tokens, is_text, is_zero};
use crate::recipe::samples::Samples;

/// `[tokenizer]`: where the tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tokenizer {
    /// By default `"bpe"`, or `"base"` where `model.base` is given.
    pub kind: TokenizerKind,
    /// For `"bpe"`: size of the vocabulary to train; by default `model.vocab_size`, and without that 4096. 0 for the
    /// other kinds, whose size the text or the file determines.
    #[serde(skip_serializing_if = "is_zero")]
    pub vocab_size: usize,
    /// For `"file"`: a `tokenizer.json`, sentencepiece model or tiktoken file, the directory of one, or `hf://OWNER/NAME` for the
    /// `tokenizer.json` of a repository of the Hugging Face Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// Kinds of tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// `"bpe"`: a byte-level BPE, trained on the training text.
    Bpe,
    /// `"characters"`: one token for each character of the text.
    Characters,
    /// `"file"`: a Hugging Face `tokenizer.json`, a sentencepiece model or a tiktoken file.
    File,
    /// `"base"`: that of `model.base`.
    Base,
}

/// `[data]`: the text.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Data {
    /// `"files"` (the default where `train` is given) or `"rust-sources"`.
    pub source: DataSource,
    /// Files, directories, patterns and `hf://datasets/…` addresses of text, for `"files"`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub train: Vec<PathBuf>,
    /// Column with the text in the JSON, JSONL, CSV and Parquet files of `train`; by default `"text"`.
    #[serde(skip_serializing_if = "is_text")]
    pub column: String,
    /// Fraction of the text that is held out for evaluation; by default 0.1.
    pub held_out: f64,
    /// `"contiguous"` (the default of text: the end is held out) or `"document"` (the default of `records`: whole documents are,
    /// chosen by a hash).
    pub split: SplitKind,
    /// Tokens of a training sample; by default 256.
    pub seq_len: usize,
    /// `"concat"` (the default: documents follow each other), `"masked"` (they follow each other, but none sees another) or
    /// `"documents"` (a sample holds tokens of one document and is padded). Evaluation always concatenates. For `records`:
    /// `"masked"` (the default: whole samples share a row, none sees another) or `"documents"` (one a row); evaluation packs
    /// masked. For `[dpo]` `"documents"` is the default, and all there is.
    #[serde(skip_serializing_if = "is_concat")]
    #[schemars(with = "String")]
    pub packing: Packing,
    /// Maximum number of tokens in a shard, up to the end of a document; by default 2²⁸.
    #[serde(skip_serializing_if = "is_shard_tokens")]
    pub shard_tokens: usize,
    /// Examples to learn answers from.
    #[serde(flatten)]
    pub samples: Samples,
    /// `[[data.sources]]`, instead of `train`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<SourceText>,
}

/// Tokens of a file of tokens where the recipe does not say.
pub(crate) const SHARD_TOKENS: usize = 1 << 28;

/// `[[data.sources]]`: one text of several.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SourceText {
    /// A file, a directory, a pattern, or an `hf://datasets/…` address.
    pub path: PathBuf,
    /// Share of the training samples, relative to the other sources. Either all sources have a weight or none
    /// does; then they form one text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<f64>,
    /// How the files hold documents: `"auto"` (the default: by the extension), `"text"` (a file is one
    /// document), or a table's format.
    #[schemars(with = "String")]
    pub format: Format,
    /// The column with the text; by default `"text"`.
    pub column: String,
}

/// Where text comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DataSource {
    /// `"files"`: `data.train`.
    Files,
    /// `"rust-sources"`: the Rust sources of the project's own dependencies.
    RustSources,
}

/// How the text is split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SplitKind {
    /// `"contiguous"`.
    Contiguous,
    /// `"document"`.
    Document,
}
