//! `[data]`: the text, and what becomes of it.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_data::{Format, Packing};
use tritforge_recipe::{Range, Reader};
use tritforge_text::{ChatTemplate, TemplateInputs};

use super::samples::Samples;
use super::{Recipe, samples, sources};
use crate::objective::DataKind;

/// Tokens of a sample where the recipe does not say.
const SEQ_LEN: usize = 256;

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
    /// Seed that chooses the documents that are held out where `split` is `"document"`, and with them the text that a tokenizer
    /// is trained on; by default `run.seed`. Runs that differ in `run.seed` alone are compared on the same text if it is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_seed: Option<u64>,
    /// Seed of the order of the training samples; by default `run.seed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_seed: Option<u64>,
    /// Tokens of a training sample; by default 256.
    pub seq_len: usize,
    /// `"concat"` (the default: documents follow each other), `"masked"` (they follow each other, but none sees another) or
    /// `"documents"` (a sample holds tokens of one document and is padded). Evaluation always concatenates. For `records`:
    /// `"masked"` (the default: whole samples share a row, none sees another) or `"documents"` (one a row); evaluation packs
    /// masked. For answers that are compared or judged `"documents"` is the default, and all there is.
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
    /// `"auto"` (the default: by the extension), `"text"`, `"json"`, `"jsonl"`, `"csv"` or `"parquet"`.
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

impl Data {
    /// Reads the section; with the packing that the recipe asks for.
    pub(super) fn read(r: &mut Reader) -> (Self, Option<Packing>) {
        let train = r.paths("data", "train");
        let sources = [("files", DataSource::Files), ("rust-sources", DataSource::RustSources)];
        let source = r.choice("data", "source", &sources);
        let tables = sources::sources(r);
        if ["train", "source", "sources"].iter().all(|key| !r.given("data", key)) {
            r.missing(
                "data",
                "train",
                "text files, as in train = [\"corpus.txt\"], or source = \"rust-sources\"",
            );
        }
        let held_out = r.number("data", "held_out", Range::above(0.0).below(1.0)).unwrap_or(0.1);
        let splits = [("contiguous", SplitKind::Contiguous), ("document", SplitKind::Document)];
        let packings =
            [("concat", Packing::Concat), ("documents", Packing::Documents), ("masked", Packing::Masked)];
        let column = r.text("data", "column").unwrap_or_else(|| "text".to_string());
        let split = r.choice("data", "split", &splits);
        let split_seed = r.integer("data", "split_seed", 0, i64::MAX as u64);
        let order_seed = r.integer("data", "order_seed", 0, i64::MAX as u64);
        let seq_len = r.size("data", "seq_len", 1).unwrap_or(SEQ_LEN);
        let packing = r.choice("data", "packing", &packings);
        let samples = samples::samples(r);
        let default_split =
            if samples.records.is_none() { SplitKind::Contiguous } else { SplitKind::Document };
        let data = Self {
            source: source.unwrap_or(DataSource::Files),
            train: train.unwrap_or_default(),
            column,
            held_out,
            split: split.unwrap_or(default_split),
            split_seed,
            order_seed,
            seq_len,
            packing: packing.unwrap_or_default(),
            shard_tokens: r.integer("data", "shard_tokens", 1, 1 << 40).map_or(SHARD_TOKENS, |n| n as usize),
            samples,
            sources: tables,
        };
        (data, packing)
    }

    /// The packing where the recipe does not say.
    pub(super) fn default_packing(&self, kind: DataKind) -> Packing {
        match (self.samples.records, kind) {
            (None, _) => Packing::default(),
            (Some(_), DataKind::Pairs | DataKind::Labelled) => Packing::Documents,
            (Some(_), DataKind::Targets) => Packing::Masked,
        }
    }

    /// Notes what contradicts it.
    pub(super) fn check(&self, r: &mut Reader, recipe: &Recipe) {
        text(r, recipe);
        samples(r, recipe);
    }
}

fn text(r: &mut Reader, recipe: &Recipe) {
    let data = &recipe.data;
    match data.source {
        DataSource::Files if data.train.is_empty() && data.sources.is_empty() => {
            r.missing("data", "train", "text files, as in train = [\"corpus.txt\"]");
        }
        DataSource::RustSources if !data.train.is_empty() => {
            let message = "data.source = \"rust-sources\" contradicts data.train: give one of them";
            r.fault("data", "source", message);
        }
        DataSource::RustSources if !data.sources.is_empty() => {
            let message = "data.source = \"rust-sources\" contradicts [[data.sources]]: give one of them";
            r.fault("data", "source", message);
        }
        DataSource::Files if !data.train.is_empty() && !data.sources.is_empty() => {
            r.fault("data", "train", "data.train contradicts [[data.sources]]: give one of them");
        }
        _ => {}
    }
    let weighted = data.sources.iter().filter(|s| s.weight.is_some()).count();
    if weighted != 0 && weighted != data.sources.len() {
        let message = format!(
            "data.sources: {weighted} of {} have a weight: give one to all, or to none",
            data.sources.len()
        );
        r.fault("data", "sources", message);
    }
    let longest = recipe.model.max_position_embeddings;
    if data.seq_len > longest {
        let seq_len = data.seq_len;
        let message =
            format!("data.seq_len = {seq_len}: expected at most model.max_position_embeddings = {longest}");
        // The one that was written down is the one to look at.
        let blame = if r.given("data", "seq_len") {
            ("data", "seq_len")
        } else {
            ("model", "max_position_embeddings")
        };
        r.fault(blame.0, blame.1, message);
    }
}

fn samples(r: &mut Reader, recipe: &Recipe) {
    let data = &recipe.data;
    if data.samples.records.is_none() {
        for key in samples::KEYS.into_iter().filter(|key| r.given("data", key)).collect::<Vec<_>>() {
            let message = format!("data.{key}: has no effect without data.records; set records = \"auto\"");
            r.fault("data", key, message);
        }
        return;
    }
    if data.source == DataSource::RustSources {
        r.fault(
            "data",
            "records",
            "data.records contradicts data.source = \"rust-sources\": source code has no records",
        );
    }
    if r.given("data", "shard_tokens") {
        let message = "data.shard_tokens contradicts data.records: samples are kept in memory, not in shards";
        r.fault("data", "shard_tokens", message);
    }
    if data.packing == Packing::Concat {
        let message =
            "data.packing = \"concat\" contradicts data.records: expected \"masked\" or \"documents\"";
        r.fault("data", "packing", message);
    }
    if data.sources.iter().any(|source| source.weight.is_some()) {
        r.fault("data", "sources", "data.sources.weight contradicts data.records: samples are not weighted");
    }
    if data.column != "text" || data.sources.iter().any(|source| source.column != "text") {
        let message = "data.column contradicts data.records: give data.columns, as in { text = \"body\" }";
        r.fault("data", "column", message);
    }
    let arguments = &data.samples.chat_template_kwargs;
    if let Some(name) = TemplateInputs::RESERVED.iter().find(|name| arguments.contains_key(**name)) {
        let message =
            format!("data.chat_template_kwargs.{name}: the conversation itself says what it is: take it out");
        r.fault("data", "chat_template_kwargs", message);
    }
    if let Some(name) = data.samples.template.as_deref().filter(|name| *name != samples::MODEL)
        && !ChatTemplate::names().contains(&name)
        && !Path::new(name).is_file()
    {
        let names = ChatTemplate::names().map(|name| format!("\"{name}\"")).join(", ");
        let message = format!(
            "data.template = \"{name}\": no such file; expected a file, \"model\", \
                               {names}"
        );
        r.fault("data", "template", message);
    }
}

// serde hands references to `skip_serializing_if`.
fn is_text(column: &str) -> bool {
    column == "text"
}

fn is_concat(packing: &Packing) -> bool {
    *packing == Packing::Concat
}

fn is_shard_tokens(n: &usize) -> bool {
    *n == SHARD_TOKENS
}
