//! Python's regular expressions, as far as they mean the same here.

use fancy_regex::Regex;
use serde_json::Value;

use super::refused;
use crate::ConfigError;

/// What means one thing in a class of Python's `re` and another in one of Rust's.
const AMBIGUOUS: [&str; 4] = ["&&", "--", "~~", "[["];

/// An expression together with what it was made of, for messages.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    key: &'static str,
    written: String,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.regex.as_str() == other.regex.as_str()
    }
}

impl Pattern {
    /// `full` is the expression with `written` inside it, which stands in the value of `key`.
    pub(super) fn new(key: &'static str, written: &str, full: &str) -> Result<Self, ConfigError> {
        let fault = |expected: &str| refused(key, &Value::from(written), expected);
        if let Some(marks) = AMBIGUOUS.iter().find(|marks| written.contains(**marks)) {
            return Err(fault(&format!(
                "a regular expression without {marks}, which Python reads in another way"
            )));
        }
        let regex =
            Regex::new(full).map_err(|e| fault(&format!("a regular expression as in Python: {e}")))?;
        Ok(Self { key, written: written.to_string(), regex })
    }

    /// As it stands in the file.
    pub(super) fn written(&self) -> &str {
        &self.written
    }

    pub(super) fn is_match(&self, text: &str) -> Result<bool, ConfigError> {
        self.regex.is_match(text).map_err(|e| self.fault(&e))
    }

    /// What the first group matched.
    pub(super) fn group<'t>(&self, text: &'t str) -> Result<Option<&'t str>, ConfigError> {
        let captures = self.regex.captures(text).map_err(|e| self.fault(&e))?;
        Ok(captures.map(|found| found.get(1).map_or("", |group| group.as_str())))
    }

    fn fault(&self, error: &fancy_regex::Error) -> ConfigError {
        refused(
            self.key,
            &Value::from(self.written.as_str()),
            &format!("an expression that can be matched: {error}"),
        )
    }
}
