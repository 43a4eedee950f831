//! The layouts of records: by which columns they are known, and what these may be called instead.

use std::collections::BTreeMap;

use serde::Serialize;

use super::convert::is_judgement;
use crate::rows::Row;

/// The layout of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RecordKind {
    /// That of a file's first record.
    #[default]
    Auto,
    /// `instruction`, `input` if there is one, `output` (Stanford Alpaca); `system` if there is one.
    Alpaca,
    /// `input` and `output`.
    InputOutput,
    /// `messages`, each with `role` and `content` (OpenAI, ChatML).
    Messages,
    /// `conversations`, each with `from` and `value` (ShareGPT).
    Sharegpt,
    /// `prompt` and `completion`, each a string or a list of messages.
    PromptCompletion,
    /// `prompt`, `chosen` and `rejected`, each a string or a list of messages.
    Preference,
    /// `prompt` and `completion`, and `label`: whether the answer is a good one.
    UnpairedPreference,
    /// `query`, `tools` and `answers`, calls of them (Salesforce xLAM).
    Xlam,
    /// `text`, to be learned whole.
    Text,
}

impl RecordKind {
    /// All layouts with their names in recipes.
    pub const ALL: [(&'static str, Self); 10] = [
        ("auto", Self::Auto),
        ("alpaca", Self::Alpaca),
        ("input-output", Self::InputOutput),
        ("messages", Self::Messages),
        ("sharegpt", Self::Sharegpt),
        ("prompt-completion", Self::PromptCompletion),
        ("preference", Self::Preference),
        ("unpaired-preference", Self::UnpairedPreference),
        ("xlam", Self::Xlam),
        ("text", Self::Text),
    ];
}

/// What columns are called, where it is not what they are called here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Columns(pub BTreeMap<String, String>);

impl Columns {
    /// The columns that have a meaning.
    pub const NAMES: [&'static str; 16] = [
        "instruction",
        "input",
        "output",
        "system",
        "messages",
        "conversations",
        "prompt",
        "completion",
        "chosen",
        "rejected",
        "label",
        "text",
        "tools",
        "documents",
        "query",
        "answers",
    ];

    /// What a column is called in the records.
    pub fn name<'a>(&'a self, column: &'a str) -> &'a str {
        self.0.get(column).map_or(column, String::as_str)
    }

    /// The layout of a record, by the columns that it has.
    pub(super) fn detect(&self, row: &Row) -> Result<RecordKind, String> {
        let has = |column: &str| row.contains_key(self.name(column));
        // The more particular ones first: pairs often come with the messages that they were made from. A class of a text is
        // called a label, too: one that judges an answer is true or false, or named by the recipe.
        let named = self.0.contains_key("label");
        let judges = |label| named || is_judgement(label);
        if has("prompt") && has("completion") && row.get(self.name("label")).is_some_and(judges) {
            return Ok(RecordKind::UnpairedPreference);
        }
        let known: [(&[&str], RecordKind); 8] = [
            (&["chosen", "rejected"], RecordKind::Preference),
            (&["messages"], RecordKind::Messages),
            (&["conversations"], RecordKind::Sharegpt),
            (&["instruction", "output"], RecordKind::Alpaca),
            (&["prompt", "completion"], RecordKind::PromptCompletion),
            (&["input", "output"], RecordKind::InputOutput),
            (&["query", "tools", "answers"], RecordKind::Xlam),
            (&["text"], RecordKind::Text),
        ];
        if let Some((_, kind)) = known.iter().find(|(columns, _)| columns.iter().all(|column| has(column))) {
            return Ok(*kind);
        }
        let found: Vec<&str> = row.keys().map(String::as_str).collect();
        Err(format!(
            "unknown columns {}: map them, as in data.columns = {{ instruction = \"question\", output = \
             \"answer\" }}; supported are instruction and output, input and output, messages, conversations, \
             prompt and completion, prompt, chosen and rejected, prompt, completion and label, query, tools and answers, \
             text",
            if found.is_empty() { "(none)".to_string() } else { found.join(", ") }
        ))
    }
}
