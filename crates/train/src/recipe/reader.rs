//! Typed access to a recipe's entries. Each call names a key that exists, takes its entry, and notes what is
//! wrong with it; what nobody took in the end is an unknown key.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use super::entries::{Entries, Entry, Value};
use super::error::{Fault, Origin};
use super::hints::{self, nearest};
use super::keys::Owned;
use super::kind::{Key, Kind, Range, is_number};

/// Entries being read, and the faults found.
#[derive(Debug)]
pub(super) struct Reader {
    entries: Entries,
    /// The recipe's file.
    path: PathBuf,
    /// Keys asked for so far, in order.
    known: Vec<Key>,
    /// Those that must be given and are not.
    missing: Vec<(&'static str, &'static str)>,
    /// Where the values of keys that were given stand.
    origins: BTreeMap<(&'static str, &'static str), Origin>,
    /// Keys that only some choices of another key have, as each of them reads them.
    pub(super) owned: Vec<Owned>,
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(path: &Path, entries: Entries, faults: Vec<Fault>) -> Self {
        Self {
            entries,
            path: path.to_path_buf(),
            known: Vec::new(),
            missing: Vec::new(),
            origins: BTreeMap::new(),
            owned: Vec::new(),
            faults,
        }
    }

    /// The keys that were asked for, and those of them that must be given and are not.
    pub(super) fn into_keys(self) -> (Vec<Key>, Vec<(&'static str, &'static str)>) {
        (self.known, self.missing)
    }

    /// Makes a key known that something else reads.
    pub(super) fn declare(&mut self, section: &'static str, key: &'static str, kind: Kind) {
        self.known.push(Key { section, name: key, kind });
    }

    /// The entry of a key, if it is given.
    fn take(&mut self, section: &'static str, key: &'static str, kind: Kind) -> Option<Entry> {
        self.declare(section, key, kind);
        let entry = self.entries.sections.get_mut(section)?.remove(key)?;
        self.origins.insert((section, key), entry.value_at.clone());
        Some(entry)
    }

    /// Whether a key is given in the recipe itself or an override, and not yet taken.
    pub(super) fn has_inline(&self, section: &str, key: &str) -> bool {
        self.entries.sections.get(section).and_then(|s| s.get(key)).is_some_and(|e| !e.from_config)
    }

    /// Whether the recipe has a section.
    pub(super) fn has_section(&self, section: &str) -> bool {
        self.entries.headers.contains_key(section)
    }

    /// Whether a key was given.
    pub(super) fn given(&self, section: &'static str, key: &'static str) -> bool {
        self.origins.contains_key(&(section, key))
    }

    /// Notes a fault of a key's value, at the value, at the section, or at the file, whichever there is.
    pub(super) fn fault(&mut self, section: &'static str, key: &'static str, message: impl Display) {
        let header = || self.entries.headers.get(section).cloned();
        let origin = self.origins.get(&(section, key)).cloned().or_else(header);
        let origin = origin.unwrap_or_else(|| Origin::File(self.path.clone()));
        self.faults.push(Fault { origin, message: message.to_string() });
    }

    /// A key that must be given is not.
    pub(super) fn missing(&mut self, section: &'static str, key: &'static str, expected: &str) {
        self.missing.push((section, key));
        self.fault(section, key, format!("{section}.{key} is missing: expected {expected}"));
    }

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
    pub(super) fn integer(
        &mut self,
        section: &'static str,
        key: &'static str,
        low: u64,
        high: u64,
    ) -> Option<u64> {
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
    pub(super) fn size(&mut self, section: &'static str, key: &'static str, low: u64) -> Option<usize> {
        self.integer(section, key, low, 1 << 28).map(|size| size as usize)
    }

    /// A finite number in a range.
    pub(super) fn number(&mut self, section: &'static str, key: &'static str, range: Range) -> Option<f64> {
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
    pub(super) fn pair(
        &mut self,
        section: &'static str,
        key: &'static str,
        range: Range,
    ) -> Option<(f64, f64)> {
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
    pub(super) fn flag(&mut self, section: &'static str, key: &'static str) -> Option<bool> {
        let entry = self.take(section, key, Kind::Flag)?;
        let Value::Flag(flag) = entry.value else {
            self.wrong_type(section, key, &entry, "true or false");
            return None;
        };
        Some(flag)
    }

    /// A string. An override of a string may look like something else: `run.name=7`.
    pub(super) fn text(&mut self, section: &'static str, key: &'static str) -> Option<String> {
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
    pub(super) fn choice<T: Clone>(
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
    pub(super) fn names(
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

    /// The path that the value of a key is, looked for beside the recipe first.
    pub(super) fn beside(&self, section: &'static str, key: &'static str, text: &str) -> PathBuf {
        match self.origins.get(&(section, key)) {
            Some(origin) => self.resolve(text, origin),
            None => PathBuf::from(text),
        }
    }

    /// Several of these names: an array of strings, each once, at least one.
    pub(super) fn choices<T: Clone + PartialEq>(
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
    pub(super) fn paths(&mut self, section: &'static str, key: &'static str) -> Option<Vec<PathBuf>> {
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
    pub(super) fn path(&mut self, section: &'static str, key: &'static str) -> Option<PathBuf> {
        let text = self.text_of(section, key, Kind::Path)?;
        let origin = self.origins.get(&(section, key))?.clone();
        Some(self.resolve(&text, &origin))
    }

    /// The tables of `[[section.key]]`, each with its place; `keys` are what they may hold.
    pub(super) fn tables(
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

    pub(super) fn resolve(&self, text: &str, origin: &Origin) -> PathBuf {
        resolve(&self.path, text, origin)
    }

    /// Notes every key that nobody took, and sorts the faults by place.
    pub(super) fn finish(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        for (key, entry) in entries.stray {
            let home = self.known.iter().find(|known| known.name == key);
            let hint = home.map_or("expected a [section]".to_string(), |k| format!("did you mean {k}?"));
            let message = format!("{key}: a key outside any section; {hint}");
            self.faults.push(Fault { origin: entry.key_at, message });
        }
        for (section, keys) in entries.sections {
            if !self.known.iter().any(|known| known.section == section) {
                let mut sections: Vec<&str> = Vec::new();
                for key in &self.known {
                    if !sections.contains(&key.section) {
                        sections.push(key.section);
                    }
                }
                let hint = match nearest(&section, sections.iter().copied(), 0.8) {
                    Some(name) => format!("did you mean [{name}]?"),
                    None => format!("expected one of {}", sections.join(", ")),
                };
                let first = keys.into_values().next().map(|e| e.key_at);
                let origin = entries.headers.get(&section).cloned().or(first);
                let origin = origin.unwrap_or_else(|| Origin::File(self.path.clone()));
                self.faults.push(Fault { origin, message: format!("[{section}]: unknown section; {hint}") });
                continue;
            }
            for (key, entry) in keys {
                let message = format!(
                    "{section}.{key}: unknown key; {}",
                    hints::unknown_key(&self.known, &section, &key)
                );
                self.faults.push(Fault { origin: entry.key_at, message });
            }
        }
        self.faults.sort();
        self.faults.dedup();
    }
}

fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

/// A path that the recipe gives is one beside the recipe, if that exists; otherwise, and in overrides, it is
/// one from the working directory.
pub(super) fn resolve(recipe: &Path, text: &str, origin: &Origin) -> PathBuf {
    let beside = recipe.parent().unwrap_or(Path::new("")).join(text);
    match origin {
        Origin::Override(_) => PathBuf::from(text),
        _ if beside.exists() => beside,
        _ if tritforge_data::is_pattern(&beside) && tritforge_data::matches(&beside).is_ok() => beside,
        _ => PathBuf::from(text),
    }
}
