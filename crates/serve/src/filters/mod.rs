//! Content filters: patterns that a prompt or an answer must not have, from a file that is read again when it changes.
//!
//! ```toml
//! [[filters]]
//! name = "card numbers"
//! pattern = '\b\d(?:[ -]?\d){12,18}\b'
//! where = "answer"            # "prompt", "answer", or "both", the default
//! action = "redact"           # or "block"
//! replacement = "[number]"    # "[redacted]" if it is left out
//! ```
//!
//! Filters work one after the other, in the file's order, each on what the ones before it have left. An answer goes through
//! them as it comes ([`stream`]), so that a client gets nothing that it would not get of the whole text.

mod answer;
mod stream;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use regex::{NoExpand, Regex, RegexBuilder};
use serde::Deserialize;

pub(crate) use answer::AnswerFilter;
use stream::{Automaton, LARGEST_PATTERN};

use crate::engine::{Job, Prompt};
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::reload::{self, FileError};
use crate::request::TextOrIds;

/// What says that a filter ended an answer.
pub(crate) const RESPONSE_FILTERED: &str = "RESPONSE_FILTERED";
/// Bytes of a file at most.
const LONGEST_FILE: u64 = 1 << 20;
/// Filters of a file at most.
const MOST_FILTERS: usize = 256;
/// Bytes of a pattern at most.
const LONGEST_PATTERN: usize = 4096;
/// Bytes of a name or a replacement at most.
const LONGEST_NAME: usize = 200;

/// Which texts a filter looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Place {
    Prompt,
    Answer,
    #[default]
    Both,
}

/// What becomes of a match.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// A prompt is refused; an answer ends before it.
    Block,
    /// Something else takes its place.
    Redact,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    filters: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    pattern: String,
    #[serde(default, rename = "where")]
    place: Place,
    action: Action,
    replacement: Option<String>,
}

/// A filter, ready to be used.
#[derive(Debug)]
struct Filter {
    name: String,
    /// For prompts, which are whole.
    regex: Regex,
    /// For answers, which are not.
    automaton: Automaton,
    place: Place,
    action: Action,
    replacement: String,
}

/// The filters of a file as it was read once.
#[derive(Debug, Default)]
pub(crate) struct FilterSet {
    filters: Vec<Filter>,
}

/// The filters of a file.
#[derive(Debug)]
pub struct Filters {
    path: PathBuf,
    set: RwLock<Arc<FilterSet>>,
}

impl Filters {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, has no filters, or one of them is wrong.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self { path: path.to_path_buf(), set: RwLock::new(Arc::new(read(path)?)) })
    }

    /// Reads the file again. Answers that have begun keep the filters that they began with.
    ///
    /// # Errors
    /// As [`Self::open`]; the filters stay as they were then.
    pub fn reload(&self) -> Result<(), FileError> {
        let set = Arc::new(read(&self.path)?);
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = set;
        Ok(())
    }

    pub(crate) fn current(&self) -> Arc<FilterSet> {
        Arc::clone(&self.set.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads the file again whenever it changes, or the process gets SIGHUP. Never returns.
    pub(crate) async fn watch(self: Arc<Self>) {
        let paths = vec![self.path.clone()];
        reload::watch(paths, "the content filters", move || self.reload().map_err(|e| e.to_string())).await;
    }
}

fn read(path: &Path) -> Result<FilterSet, FileError> {
    let cannot = |source| FileError::Read { what: "the content filters", path: path.to_path_buf(), source };
    let invalid = |message: String| FileError::Invalid { path: path.to_path_buf(), message };
    let length = std::fs::metadata(path).map_err(cannot)?.len();
    if length > LONGEST_FILE {
        return Err(invalid(format!("{length} bytes; expected at most {LONGEST_FILE}")));
    }
    let text = std::fs::read_to_string(path).map_err(cannot)?;
    FilterSet::parse(&text).map_err(invalid)
}

impl FilterSet {
    /// The filters that a text says.
    fn parse(text: &str) -> Result<Self, String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_string())?;
        match file.filters.len() {
            0 => return Err("no filters; expected [[filters]] with name, pattern and action".to_string()),
            1..=MOST_FILTERS => {}
            found => return Err(format!("{found} filters; expected at most {MOST_FILTERS}")),
        }
        let mut filters: Vec<Filter> = Vec::with_capacity(file.filters.len());
        for entry in file.filters {
            let name = entry.name.clone();
            if filters.iter().any(|filter| filter.name == name) {
                return Err(format!("filter {name:?}: there are two of that name"));
            }
            filters.push(Filter::new(entry).map_err(|message| format!("filter {name:?}: {message}"))?);
        }
        Ok(Self { filters })
    }

    /// Whether there are filters for answers.
    pub(crate) fn has_answers(&self) -> bool {
        self.filters.iter().any(Filter::is_for_answers)
    }

    /// Filters the prompts of a request's jobs. `decode` makes texts of tokens.
    ///
    /// # Errors
    /// If one is blocked, or would have to be changed but is a list of tokens.
    pub(crate) fn prompts(
        &self,
        jobs: &mut [Job],
        metrics: &Metrics,
        decode: impl Fn(&[u32]) -> Result<String, ApiError>,
    ) -> Result<(), ApiError> {
        if !self.filters.iter().any(Filter::is_for_prompts) {
            return Ok(());
        }
        for job in jobs {
            match &mut job.prompt {
                Prompt::Text(text) => self.prompt(text, "prompt", metrics)?,
                Prompt::Chat(messages) => {
                    for message in messages {
                        self.prompt(&mut message.content, "messages", metrics)?;
                    }
                }
                Prompt::Ids(ids) => self.ids(&decode(ids)?, "prompt", metrics)?,
            }
        }
        Ok(())
    }

    /// Filters texts that came in the field `param` and that nothing answers, as prompts are filtered.
    ///
    /// # Errors
    /// As [`FilterSet::prompts`].
    pub(crate) fn texts(
        &self,
        texts: &mut [TextOrIds],
        param: &'static str,
        metrics: &Metrics,
        decode: impl Fn(&[u32]) -> Result<String, ApiError>,
    ) -> Result<(), ApiError> {
        if !self.filters.iter().any(Filter::is_for_prompts) {
            return Ok(());
        }
        for text in texts {
            match text {
                TextOrIds::Text(text) => self.prompt(text, param, metrics)?,
                TextOrIds::Ids(ids) => self.ids(&decode(ids)?, param, metrics)?,
            }
        }
        Ok(())
    }

    /// Filters the text of tokens, which cannot be changed.
    fn ids(&self, before: &str, param: &'static str, metrics: &Metrics) -> Result<(), ApiError> {
        let mut text = before.to_string();
        self.prompt(&mut text, param, metrics)?;
        if text == before { Ok(()) } else { Err(ApiError::ContentFiltered(param)) }
    }

    /// Filters a prompt that came in the field `param`.
    fn prompt(&self, text: &mut String, param: &'static str, metrics: &Metrics) -> Result<(), ApiError> {
        for filter in self.filters.iter().filter(|filter| filter.is_for_prompts()) {
            if !filter.regex.is_match(text) {
                continue;
            }
            metrics.filtered.with_label_values(&[filter.name.as_str(), "prompt", filter.action.name()]).inc();
            match filter.action {
                Action::Block => return Err(ApiError::ContentFiltered(param)),
                Action::Redact => {
                    *text = filter.regex.replace_all(text, NoExpand(&filter.replacement)).into_owned();
                }
            }
        }
        Ok(())
    }
}

impl Action {
    fn name(self) -> &'static str {
        match self {
            Action::Block => "block",
            Action::Redact => "redact",
        }
    }
}

impl Filter {
    fn new(entry: Entry) -> Result<Self, String> {
        let Entry { name, pattern, place, action, replacement } = entry;
        let plain = |text: &str| text.len() <= LONGEST_NAME && !text.contains(char::is_control);
        if name.trim().is_empty() || !plain(&name) {
            return Err(format!("expected a name of 1 to {LONGEST_NAME} bytes without control characters"));
        }
        if pattern.len() > LONGEST_PATTERN {
            return Err(format!(
                "the pattern has {} bytes; expected at most {LONGEST_PATTERN}",
                pattern.len()
            ));
        }
        if action == Action::Block && replacement.is_some() {
            return Err("replacement is for action = \"redact\"; remove it".to_string());
        }
        let replacement = replacement.unwrap_or_else(|| "[redacted]".to_string());
        if replacement.len() > LONGEST_NAME {
            let found = replacement.len();
            return Err(format!("the replacement has {found} bytes; expected at most {LONGEST_NAME}"));
        }
        let wrong = |message: String| format!("pattern {pattern:?}: {message}");
        let regex = RegexBuilder::new(&pattern).size_limit(LARGEST_PATTERN).build();
        let regex = regex.map_err(|e| wrong(e.to_string()))?;
        let automaton = Automaton::new(&pattern).map_err(wrong)?;
        Ok(Self { name, regex, automaton, place, action, replacement })
    }

    fn is_for_prompts(&self) -> bool {
        self.place != Place::Answer
    }

    fn is_for_answers(&self) -> bool {
        self.place != Place::Prompt
    }
}

#[cfg(test)]
mod tests;
