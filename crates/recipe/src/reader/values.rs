//! Values by their type.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use super::Reader;
use crate::entries::{Entry, Value};
use crate::error::Origin;
use crate::hints::{self, nearest};
use crate::kind::{Kind, Range, is_number};

impl Reader {
    fn wrong_type(&mut self, section: &'static str, key: &'static str, entry: &Entry, expected: &str) {
        let (written, found) = (&entry.written, entry.value.type_name());
        self.fault(section, key, format!("{section}.{key} = {written}: found {found}, expected {expected}"));
    }

    fn wrong_value(
        &mut self,
        section: &'static str,
        key: &'static str,
        entry: &Entry,
        expected: impl Display,
    ) {
        self.fault(section, key, format!("{section}.{key} = {}: expected {expected}", entry.written));
    }

    /// An integer between two bounds, both included.
    pub fn integer(&mut self, section: &'static str, key: &'static str, low: u64, high: u64) -> Option<u64> {
        let kind = Kind::Integer { low, high };
        let range = kind.to_string();
        let entry = self.take(section, key, kind)?;
        let Value::Integer(value) = entry.value else {
            self.wrong_type(section, key, &entry, &range);
            return None;
        };
        match u64::try_from(value) {
            Ok(value) if (low..=high).contains(&value) => Some(value),
            _ => {
                self.wrong_value(section, key, &entry, range);
                None
            }
        }
    }

    /// A size: an integer from `low` to 2²⁸.
    pub fn size(&mut self, section: &'static str, key: &'static str, low: u64) -> Option<usize> {
        self.integer(section, key, low, 1 << 28).map(|size| size as usize)
    }

    /// A finite number in a range.
    pub fn number(&mut self, section: &'static str, key: &'static str, range: Range) -> Option<f64> {
        let expected = Kind::Number(range);
        let entry = self.take(section, key, expected.clone())?;
        let Some(value) = as_number(&entry.value) else {
            self.wrong_type(section, key, &entry, &expected.to_string());
            return None;
        };
        if range.holds(value) {
            return Some(value);
        }
        self.wrong_value(section, key, &entry, expected);
        None
    }

    /// Two finite numbers in a range.
    pub fn pair(&mut self, section: &'static str, key: &'static str, range: Range) -> Option<(f64, f64)> {
        let entry = self.take(section, key, Kind::Pair(range))?;
        let numbers: Option<Vec<f64>> = match &entry.value {
            Value::Array(items) => items.iter().map(as_number).collect(),
            _ => None,
        };
        match numbers.as_deref() {
            Some([a, b]) if range.holds(*a) && range.holds(*b) => Some((*a, *b)),
            _ => {
                self.wrong_value(section, key, &entry, Kind::Pair(range));
                None
            }
        }
    }

    /// `true` or `false`.
    pub fn flag(&mut self, section: &'static str, key: &'static str) -> Option<bool> {
        let entry = self.take(section, key, Kind::Flag)?;
        let Value::Flag(flag) = entry.value else {
            self.wrong_type(section, key, &entry, "true or false");
            return None;
        };
        Some(flag)
    }

    /// A string. An override of a string may look like something else: `run.name=7`.
    pub fn text(&mut self, section: &'static str, key: &'static str) -> Option<String> {
        self.text_of(section, key, Kind::Text)
    }

    fn text_of(&mut self, section: &'static str, key: &'static str, kind: Kind) -> Option<String> {
        let entry = self.take(section, key, kind)?;
        match &entry.value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(_) | Value::Float(_) | Value::Flag(_)
                if matches!(entry.value_at, Origin::Override(_)) =>
            {
                Some(entry.written)
            }
            _ => {
                self.wrong_type(section, key, &entry, "a string");
                None
            }
        }
    }

    /// One of several names.
    pub fn choice<T: Clone>(
        &mut self,
        section: &'static str,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let kind = Kind::Choice(choices.iter().map(|(name, _)| name.to_string()).collect());
        let expected = kind.to_string();
        let entry = self.take(section, key, kind)?;
        let text = match &entry.value {
            Value::Text(text) => text,
            // A name that is a number may be written as one.
            Value::Integer(number) if choices.iter().any(|(name, _)| is_number(name)) => &number.to_string(),
            _ => {
                self.wrong_type(section, key, &entry, &expected);
                return None;
            }
        };
        let found = choices.iter().find(|(name, _)| name == text).map(|(_, value)| value.clone());
        if found.is_none() {
            let hint = hints::unknown_name(section, key, text, choices.iter().map(|(name, _)| *name));
            self.wrong_value(section, key, &entry, format!("{expected}{hint}"));
        }
        found
    }

    /// A table of strings, whose keys are among `keys`.
    pub fn names(
        &mut self,
        section: &'static str,
        key: &'static str,
        keys: &[&'static str],
    ) -> Option<BTreeMap<String, String>> {
        let kind = Kind::Names(keys.to_vec());
        let expected = kind.to_string();
        let entry = self.take(section, key, kind)?;
        let Value::Table(table) = &entry.value else {
            self.wrong_type(section, key, &entry, &expected);
            return None;
        };
        let mut found = BTreeMap::new();
        for (name, value) in table {
            match value {
                Value::Text(text) if keys.contains(&name.as_str()) => {
                    found.insert(name.clone(), text.clone());
                }
                Value::Text(_) => {
                    let hint = match nearest(name, keys.iter().copied(), 0.8) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("expected {}", keys.join(", ")),
                    };
                    self.fault(section, key, format!("{section}.{key}.{name}: unknown key; {hint}"));
                }
                other => {
                    let kind = other.type_name();
                    self.fault(
                        section,
                        key,
                        format!("{section}.{key}.{name}: found {kind}, expected a string"),
                    );
                }
            }
        }
        Some(found)
    }

    /// A table of any keys, whose values are those of JSON: no dates, no numbers that are not finite.
    pub fn table(
        &mut self,
        section: &'static str,
        key: &'static str,
    ) -> Option<serde_json::Map<String, serde_json::Value>> {
        let entry = self.take(section, key, Kind::Table)?;
        let Value::Table(table) = &entry.value else {
            self.wrong_type(section, key, &entry, &Kind::Table.to_string());
            return None;
        };
        let mut found = serde_json::Map::new();
        for (name, value) in table {
            match value.to_json() {
                Ok(value) => {
                    found.insert(name.clone(), value);
                }
                Err(kind) => {
                    let expected = "expected a string, a number, a boolean, or an array or a table of them";
                    self.fault(section, key, format!("{section}.{key}.{name}: found {kind}, {expected}"));
                }
            }
        }
        Some(found)
    }

    /// The path that the value of a key is, looked for beside the recipe first.
    pub fn beside(&self, section: &'static str, key: &'static str, text: &str) -> PathBuf {
        match self.origins.get(&(section, key)) {
            Some(origin) => self.resolve(text, origin),
            None => PathBuf::from(text),
        }
    }

    /// Several of these names: an array of strings, each once, at least one.
    pub fn choices<T: Clone + PartialEq>(
        &mut self,
        section: &'static str,
        key: &'static str,
        choices: &[(&str, T)],
    ) -> Option<Vec<T>> {
        let kind = Kind::Choices(choices.iter().map(|(name, _)| name.to_string()).collect());
        let expected = kind.to_string();
        let entry = self.take(section, key, kind)?;
        let find = |value: &Value| match value {
            Value::Text(text) => {
                choices.iter().find(|(name, _)| name == text).map(|(_, value)| value.clone())
            }
            _ => None,
        };
        let found: Option<Vec<T>> = match &entry.value {
            Value::Array(items) => items.iter().map(find).collect(),
            _ => None,
        };
        let twice = |found: &[T]| found.iter().enumerate().any(|(i, value)| found[..i].contains(value));
        match found {
            Some(found) if !found.is_empty() && !twice(&found) => Some(found),
            _ => {
                self.wrong_value(section, key, &entry, expected);
                None
            }
        }
    }

    /// Paths: an array of strings, or one string. One that the recipe gives is looked for beside the recipe
    /// first.
    pub fn paths(&mut self, section: &'static str, key: &'static str) -> Option<Vec<PathBuf>> {
        let entry = self.take(section, key, Kind::Paths)?;
        let text = |value: &Value| match value {
            Value::Text(text) => Some(self.resolve(text, &entry.value_at)),
            _ => None,
        };
        let paths: Option<Vec<PathBuf>> = match &entry.value {
            Value::Array(items) => items.iter().map(text).collect(),
            one => text(one).map(|path| vec![path]),
        };
        if paths.is_none() {
            self.wrong_type(section, key, &entry, "a path, or an array of paths");
        }
        paths
    }

    /// One path, resolved like [`Self::paths`].
    pub fn path(&mut self, section: &'static str, key: &'static str) -> Option<PathBuf> {
        let text = self.text_of(section, key, Kind::Path)?;
        let origin = self.origins.get(&(section, key))?.clone();
        Some(self.resolve(&text, &origin))
    }

    /// The tables of `[[section.key]]`, each with its place; `keys` are what they may hold.
    pub fn tables(
        &mut self,
        section: &'static str,
        key: &'static str,
        keys: &[(&'static str, Kind)],
    ) -> Option<Vec<(Origin, BTreeMap<String, Entry>)>> {
        let entry = self.take(section, key, Kind::Tables(keys.to_vec()))?;
        if let Value::Tables(tables) = entry.value {
            return Some(tables);
        }
        self.wrong_type(
            section,
            key,
            &entry,
            &format!("tables, each [[{section}.{key}]], in the recipe's file"),
        );
        None
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}
