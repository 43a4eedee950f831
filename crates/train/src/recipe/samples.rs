//! The keys of `[data]` that are about examples to learn answers from: their layout, their template, what is
//! left out.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tritforge_data::{Columns, OnBadSample, RecordKind, Truncation};
use tritforge_recipe::Reader;

/// How records become samples; `records` is not given where all text is for training.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema, Default)]
pub struct Samples {
    /// What a record is: without this key text, which is learned whole. `"auto"` is what a file's first
    /// record looks like; `"alpaca"` has `instruction`, perhaps `input`, `output`; `"input-output"`,
    /// `"messages"` (OpenAI, ChatML), `"sharegpt"`, `"xlam"` (`query`, `tools`, `answers`), `"prompt-completion"`, `"preference"` (`prompt`,
    /// `chosen`, `rejected`) and `"unpaired-preference"` (`prompt`, `completion`, `label`) have the columns that they are known by; `"text"` is one `text` a sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub records: Option<RecordKind>,
    /// How messages become text: `"model"` (the default: the tokenizer's own template), `"chatml"`, `"hermes"` (ChatML with tools),
    /// `"llama3"`, `"alpaca"`, `"plain"`, `"verbatim"` (the messages and nothing else, each answer with the
    /// end of the text), or a file of Jinja.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// Variables that the template is given beside the messages, as in `{ enable_thinking = false }`. A record's own
    /// column `chat_template_kwargs` goes before them. The checkpoint and what is exported from it keep them: `chat`, `generate` and
    /// `serve` render the template with them.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schemars(with = "BTreeMap<String, Value>")]
    pub chat_template_kwargs: Map<String, Value>,
    /// Which parts of a conversation are learned: `"completions"` (the default: the answers) or `"all"`. A
    /// message's own `train` or `weight` excludes or includes it.
    #[serde(skip_serializing_if = "is_default")]
    pub loss: Loss,
    /// What happens to samples of more than `seq_len` tokens and one: `"error"` (the default), `"drop"`,
    /// `"right"` (the end is cut off) or `"left"` (the beginning is).
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub truncation: Truncation,
    /// What happens to records that are malformed, lack a column, or that the template refuses: `"error"`
    /// (the default), or `"skip"` (they are counted and dropped).
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "String")]
    pub on_bad_sample: OnBadSample,
    /// Maximum number of samples to read; by default all are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_samples: Option<usize>,
    /// Whether to keep samples with an empty answer; by default they are dropped.
    #[serde(skip_serializing_if = "is_default")]
    pub keep_empty: bool,
    /// Whether to keep only the first of equal samples; by default all are kept.
    #[serde(skip_serializing_if = "is_default")]
    pub drop_duplicates: bool,
    /// Other names of columns, as in `{ instruction = "question", output = "answer" }`.
    #[serde(skip_serializing_if = "is_default")]
    #[schemars(with = "BTreeMap<String, String>")]
    pub columns: Columns,
}

/// What is learned of a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum Loss {
    /// `"completions"`: the answers.
    #[default]
    Completions,
    /// `"all"`: every token.
    All,
}

/// Reads the keys.
pub(super) fn samples(r: &mut Reader) -> Samples {
    let losses = [("completions", Loss::Completions), ("all", Loss::All)];
    let truncations = [
        ("error", Truncation::Error),
        ("drop", Truncation::Drop),
        ("right", Truncation::Right),
        ("left", Truncation::Left),
    ];
    let bad = [("error", OnBadSample::Error), ("skip", OnBadSample::Skip)];
    Samples {
        records: r.choice("data", "records", &RecordKind::ALL),
        template: template(r),
        chat_template_kwargs: r.table("data", "chat_template_kwargs").unwrap_or_default(),
        loss: r.choice("data", "loss", &losses).unwrap_or_default(),
        truncation: r.choice("data", "truncation", &truncations).unwrap_or_default(),
        on_bad_sample: r.choice("data", "on_bad_sample", &bad).unwrap_or_default(),
        max_samples: r.integer("data", "max_samples", 2, 1 << 40).map(|n| n as usize),
        keep_empty: r.flag("data", "keep_empty").unwrap_or_default(),
        drop_duplicates: r.flag("data", "drop_duplicates").unwrap_or_default(),
        columns: Columns(r.names("data", "columns", &Columns::NAMES).unwrap_or_default()),
    }
}

/// A template's name, or its file beside the recipe.
fn template(r: &mut Reader) -> Option<String> {
    let text = r.text("data", "template")?;
    let named = text == MODEL || tritforge_text::ChatTemplate::names().contains(&text.as_str());
    Some(if named { text } else { r.beside("data", "template", &text).display().to_string() })
}

/// The name of the tokenizer's own template.
pub(crate) const MODEL: &str = "model";

/// The keys that mean nothing without `records`.
pub(super) const KEYS: [&str; 9] = [
    "template",
    "chat_template_kwargs",
    "loss",
    "truncation",
    "on_bad_sample",
    "max_samples",
    "keep_empty",
    "drop_duplicates",
    "columns",
];

// serde hands references to `skip_serializing_if`.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
