//! The fields of one sample, each fault with its file and line.

use std::path::Path;

use serde_json::Value;
use tritforge_data::Record;

use crate::EvalError;

/// A sample of a task's file.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    path: &'a Path,
    record: &'a Record,
}

impl<'a> Fields<'a> {
    /// A record of this file.
    pub fn new(path: &'a Path, record: &'a Record) -> Self {
        Self { path, record }
    }

    /// An error about this sample.
    pub fn fault(&self, message: impl Into<String>) -> EvalError {
        EvalError::Sample {
            path: self.path.to_path_buf(),
            place: self.record.place.clone(),
            message: message.into(),
        }
    }

    /// Whether there is such a field.
    pub fn has(&self, name: &str) -> bool {
        self.record.fields.contains_key(name)
    }

    /// A field's value.
    ///
    /// # Errors
    /// If there is none.
    pub fn value(&self, name: &str) -> Result<&'a Value, EvalError> {
        self.record.fields.get(name).ok_or_else(|| {
            let found: Vec<&str> = self.record.fields.keys().map(String::as_str).collect();
            self.fault(format!("no field {name:?}: found {}", found.join(", ")))
        })
    }

    /// A string.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn text(&self, name: &str) -> Result<&'a str, EvalError> {
        let value = self.value(name)?;
        value.as_str().ok_or_else(|| self.wrong(name, value, "a string"))
    }

    /// A list of at least two strings.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, EvalError> {
        self.strings(name, self.value(name)?)
    }

    /// `value`, which stands at `name`, as a list of at least two strings.
    pub(crate) fn strings(&self, name: &str, value: &Value) -> Result<Vec<String>, EvalError> {
        let fault = || self.wrong(name, value, "a list of at least two strings");
        let list = value.as_array().filter(|list| list.len() > 1).ok_or_else(fault)?;
        list.iter().map(|item| item.as_str().map(str::to_string).ok_or_else(fault)).collect()
    }

    /// A whole number below `below`, as a number or a string.
    ///
    /// # Errors
    /// If it is missing or something else.
    pub fn index(&self, name: &str, below: usize) -> Result<usize, EvalError> {
        let value = self.value(name)?;
        let number = match value {
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(truth) => Some(usize::from(*truth)),
            other => other.as_u64().and_then(|n| usize::try_from(n).ok()),
        };
        let expected = || format!("an integer from 0 to {}", below.saturating_sub(1));
        number.filter(|n| *n < below).ok_or_else(|| self.wrong(name, value, &expected()))
    }

    /// An error about the value of a field.
    pub(crate) fn wrong(&self, name: &str, value: &Value, expected: &str) -> EvalError {
        let mut found = value.to_string();
        if found.chars().count() > 60 {
            found = found.chars().take(57).chain("...".chars()).collect();
        }
        self.fault(format!("field {name:?} is {found}: expected {expected}"))
    }
}
