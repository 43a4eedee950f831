//! Examples to learn answers from: conversations, instructions, prompts with completions, pairs of answers.
//!
//! Whatever the layout of a record ([`RecordKind`]), it becomes messages ([`ChatTurn`]): a chat template
//! turns these into text, and what the answers are in it is what counts. [`Examples::read`] reads files of
//! any format, leaves out what cannot teach, and keeps a [`Report`] of it.

mod convert;
mod kind;
mod message;
mod report;
mod tools;
mod xlam;

use std::collections::HashSet;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

pub use kind::{Columns, RecordKind};
pub use report::{Dropped, Reason, Report};
pub use tools::Supplied;
pub(crate) use tools::function_name;

use crate::text::TextReader;
use crate::{DataError, Format, TextSource, corpus};

/// A message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChatTurn {
    /// The message as a chat template reads it: `role`, `content`, and what else the record says of it.
    pub message: Map<String, Value>,
    /// Whether the model is the one who says it.
    pub answer: bool,
    /// Whether the model is to learn it.
    pub learn: bool,
    /// Whether the record itself says that it is to be learned or not.
    #[serde(skip)]
    pub flag: Option<bool>,
}

impl ChatTurn {
    /// A message; answers, those of the role `assistant`, are to be learned.
    pub fn new(role: &str, content: &str) -> Self {
        let mut message = Map::new();
        message.insert("role".to_string(), Value::from(role));
        message.insert("content".to_string(), Value::from(content));
        let answer = role == ASSISTANT;
        Self { message, answer, learn: answer, flag: None }
    }

    /// What is said, if it is text.
    pub fn content(&self) -> Option<&str> {
        self.message.get("content").and_then(Value::as_str)
    }

    /// Who says it.
    pub fn role(&self) -> &str {
        self.message.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether nothing is said: no text, and no call of a tool.
    pub(crate) fn is_empty(&self) -> bool {
        self.content().is_none_or(|text| text.trim().is_empty()) && !self.message.contains_key("tool_calls")
    }
}

/// The role of the model.
pub(crate) const ASSISTANT: &str = "assistant";

/// What an example is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum Body {
    /// A conversation.
    Turns(Vec<ChatTurn>),
    /// A text, to be learned whole.
    Text(String),
    /// A prompt with a better and a worse answer.
    Preference {
        /// What both answers answer.
        prompt: Vec<ChatTurn>,
        /// The better one.
        chosen: Vec<ChatTurn>,
        /// The worse one.
        rejected: Vec<ChatTurn>,
    },
    /// A prompt with an answer that was judged.
    Labelled {
        /// The conversation; what is learned of it is judged.
        turns: Vec<ChatTurn>,
        /// Whether the answer is a good one.
        desirable: bool,
    },
}

impl Body {
    /// All messages, those of the better answer before those of the worse one; of a text there are none.
    pub fn messages(&self) -> Vec<&ChatTurn> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::Turns(turns) | Self::Labelled { turns, .. } => turns.iter().collect(),
            Self::Preference { prompt, chosen, rejected } => {
                prompt.iter().chain(chosen).chain(rejected).collect()
            }
        }
    }
}

/// An example and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// File and place in it, `data.jsonl: line 3`.
    pub source: String,
    /// The example itself.
    pub body: Body,
    /// What the template reads beside its messages.
    pub supplied: Supplied,
}

impl Example {
    /// One of which the template reads nothing but its messages.
    pub fn new(source: String, body: Body) -> Self {
        Self { source, body, supplied: Supplied::default() }
    }

    /// A number that depends on nothing but the example, not on where it stands: SHA-256 of its JSON.
    pub fn digest(&self) -> [u8; 32] {
        let mut json = serde_json::to_vec(&self.body).unwrap_or_default();
        if !self.supplied.is_empty() {
            json.extend(serde_json::to_vec(&self.supplied).unwrap_or_default());
        }
        Sha256::digest(json).into()
    }
}

/// What to do about a record that is malformed, lacks a column, or that a template refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnBadSample {
    /// End with an error that names it.
    #[default]
    Error,
    /// Leave it out and count it.
    Skip,
}

/// How records are read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadOptions {
    /// The layout of the records; [`RecordKind::Auto`] finds it out from each file's first one.
    pub kind: RecordKind,
    /// Other names of columns.
    pub columns: Columns,
    /// What to do about bad records.
    pub on_bad: OnBadSample,
    /// Whether examples with an empty answer stay.
    pub keep_empty: bool,
    /// Whether of equal examples only the first stays.
    pub drop_duplicates: bool,
    /// The number of examples after which reading ends.
    pub max_samples: Option<usize>,
}

/// Examples, and what was left out.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Examples {
    /// The examples, in the order of the sources, files and records.
    pub examples: Vec<Example>,
    /// What was read and left out.
    pub report: Report,
}

impl Examples {
    /// Reads all records of the sources. Paths may be what those of [`crate::Corpus`] may be.
    ///
    /// # Errors
    /// If a file cannot be read, a record is bad and that is an error, the layout of records cannot be told,
    /// or nothing is left.
    pub fn read(sources: &[TextSource], options: &ReadOptions) -> Result<Self, DataError> {
        let mut found = Self::default();
        let mut seen = HashSet::new();
        for source in sources {
            for file in corpus::files(&source.path, source.format)? {
                found.report.files += 1;
                found.read_file(&file, options, &mut seen)?;
            }
        }
        if found.examples.is_empty() {
            let names: Vec<_> = sources.iter().map(|s| s.path.display().to_string()).collect();
            let dropped = found.report.summary();
            return Err(DataError::NoText(format!("no examples in {}: {dropped}", names.join(", "))));
        }
        Ok(found)
    }

    pub(crate) fn read_file(
        &mut self,
        file: &corpus::SourceFile,
        options: &ReadOptions,
        seen: &mut HashSet<[u8; 32]>,
    ) -> Result<(), DataError> {
        let name = PathBuf::from(&file.name);
        let Format::Table(table) = file.format else {
            if !matches!(options.kind, RecordKind::Auto | RecordKind::Text) {
                let message = "this is a text file, but data.records expects records with columns: list \
                               files with records, or set their format";
                return Err(DataError::record(&name, "the file's name".to_string(), message));
            }
            if options.max_samples.is_some_and(|most| self.examples.len() >= most) {
                self.report.limited = true;
                return Ok(());
            }
            let text = TextReader::read(&file.path)?;
            self.report.records += 1;
            self.keep(Example::new(file.name.clone(), Body::Text(text)), options, seen);
            return Ok(());
        };
        let mut kind = options.kind;
        (table.read)(&file.path, None, &mut |place, row| {
            if options.max_samples.is_some_and(|most| self.examples.len() >= most) {
                self.report.limited = true;
                return Ok(false);
            }
            self.report.records += 1;
            let read = row.and_then(|row| {
                if kind == RecordKind::Auto {
                    kind = options.columns.detect(&row)?;
                }
                convert::example(&row, kind, &options.columns)
            });
            let source = format!("{}: {place}", file.name);
            match read {
                Ok((body, supplied)) => self.keep(Example { source, body, supplied }, options, seen),
                Err(message) if options.on_bad == OnBadSample::Error => {
                    return Err(DataError::record(&name, place, message));
                }
                Err(message) => self.report.drop(source, Reason::Malformed, message),
            }
            Ok(true)
        })
    }

    /// Takes an example unless a filter is against it.
    fn keep(&mut self, example: Example, options: &ReadOptions, seen: &mut HashSet<[u8; 32]>) {
        let empty = |said: &[ChatTurn]| said.iter().any(|said| said.learn && said.is_empty());
        let learns = |said: &[ChatTurn]| said.iter().any(|said| said.learn);
        let (is_empty, teaches) = match &example.body {
            Body::Turns(turns) | Body::Labelled { turns, .. } => (empty(turns), learns(turns)),
            Body::Text(text) => (text.trim().is_empty(), true),
            Body::Preference { chosen, rejected, .. } => {
                (empty(chosen) || empty(rejected), learns(chosen) && learns(rejected))
            }
        };
        let drop = if !teaches {
            Some((Reason::NothingToLearn, "no answer is in the loss"))
        } else if is_empty && !options.keep_empty {
            Some((Reason::EmptyAnswer, "an answer is empty"))
        } else if options.drop_duplicates && !seen.insert(example.digest()) {
            Some((Reason::Duplicate, "a duplicate of an earlier example"))
        } else {
            None
        };
        match drop {
            Some((reason, message)) => self.report.drop(example.source, reason, message.to_string()),
            None => self.examples.push(example),
        }
    }
}
