//! Typed access to the keys of a table of an experiment's file. What is asked for exists; what nobody took is an unknown
//! key.

use std::collections::BTreeMap;
use std::fmt::Display;

use tritforge_recipe::{Entry, Fault, Origin, Value, nearest};

/// A table that is being read.
pub(super) struct Keys<'a> {
    /// What stands before its keys in messages: nothing, `tune.` or `arms.`.
    prefix: &'static str,
    entries: BTreeMap<String, Entry>,
    known: Vec<&'static str>,
    faults: &'a mut Vec<Fault>,
}

impl<'a> Keys<'a> {
    pub(super) fn new(
        prefix: &'static str,
        entries: BTreeMap<String, Entry>,
        faults: &'a mut Vec<Fault>,
    ) -> Self {
        Self { prefix, entries, known: Vec::new(), faults }
    }

    /// The entry of a key, if it is given.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Entry> {
        self.known.push(key);
        self.entries.remove(key)
    }

    /// Whether a key is given, right or wrong.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(super) fn fault(&mut self, at: &Origin, message: impl Display) {
        self.faults.push(Fault { origin: at.clone(), message: message.to_string() });
    }

    fn wrong(&mut self, key: &str, entry: &Entry, expected: impl Display) {
        let (prefix, written, found) = (self.prefix, &entry.written, entry.value.type_name());
        let message = format!("{prefix}{key} = {written}: found {found}, expected {expected}");
        self.fault(&entry.value_at, message);
    }

    pub(super) fn text(&mut self, key: &'static str) -> Option<(String, Origin)> {
        let entry = self.take(key)?;
        match &entry.value {
            Value::Text(text) if !text.trim().is_empty() => Some((text.clone(), entry.value_at)),
            _ => {
                self.wrong(key, &entry, "a string");
                None
            }
        }
    }

    pub(super) fn flag(&mut self, key: &'static str) -> Option<bool> {
        let entry = self.take(key)?;
        match entry.value {
            Value::Flag(flag) => Some(flag),
            _ => {
                self.wrong(key, &entry, "true or false");
                None
            }
        }
    }

    /// A number above 0.
    pub(super) fn number(&mut self, key: &'static str) -> Option<f64> {
        let entry = self.take(key)?;
        let number = match entry.value {
            Value::Integer(i) => i as f64,
            Value::Float(f) => f,
            _ => f64::NAN,
        };
        if number.is_finite() && number > 0.0 {
            return Some(number);
        }
        self.wrong(key, &entry, "a number above 0");
        None
    }

    /// A whole number from `low` to `high`.
    pub(super) fn integer(&mut self, key: &'static str, low: u64, high: u64) -> Option<u64> {
        let entry = self.take(key)?;
        let number = match entry.value {
            Value::Integer(i) => u64::try_from(i).ok().filter(|i| (low..=high).contains(i)),
            _ => None,
        };
        if number.is_none() {
            self.wrong(key, &entry, format!("an integer from {low} to {high}"));
        }
        number
    }

    /// Seeds: an array of integers of at least 0, each once, or one of them.
    pub(super) fn seeds(&mut self, key: &'static str) -> Option<(Vec<u64>, Origin)> {
        let entry = self.take(key)?;
        let seed = |value: &Value| match value {
            Value::Integer(seed) => u64::try_from(*seed).ok(),
            _ => None,
        };
        let seeds: Option<Vec<u64>> = match &entry.value {
            Value::Array(items) => items.iter().map(seed).collect(),
            one => seed(one).map(|seed| vec![seed]),
        };
        let twice = |seeds: &[u64]| seeds.iter().enumerate().any(|(i, seed)| seeds[..i].contains(seed));
        match seeds {
            Some(seeds) if !seeds.is_empty() && !twice(&seeds) => Some((seeds, entry.value_at)),
            _ => {
                self.wrong(key, &entry, "an array of integers of at least 0, each once, as in [1, 2, 3]");
                None
            }
        }
    }

    /// All keys that were not asked for: those of settings, which are checked by the recipe.
    pub(super) fn rest(&mut self) -> BTreeMap<String, Entry> {
        std::mem::take(&mut self.entries)
    }

    /// Notes every key that nobody took.
    pub(super) fn finish(self) {
        for (key, entry) in self.entries {
            let hint = match nearest(&key, self.known.iter().copied(), 0.8) {
                Some(near) => format!("did you mean {}{near}?", self.prefix),
                None => format!("expected one of {}", self.known.join(", ")),
            };
            let message = format!("{}{key}: unknown key; {hint}", self.prefix);
            self.faults.push(Fault { origin: entry.key_at, message });
        }
    }
}

/// A value as TOML writes it on one line; none for what no override can say.
pub(super) fn toml_text(value: &Value) -> Option<String> {
    Some(match value {
        Value::Text(text) => toml::Value::String(text.clone()).to_string(),
        Value::Integer(i) => i.to_string(),
        Value::Float(f) => format!("{f:?}"),
        Value::Flag(flag) => flag.to_string(),
        Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(toml_text).collect();
            format!("[{}]", items?.join(", "))
        }
        Value::Table(table) => {
            let pairs = table.iter().map(|(key, value)| Some(format!("{key} = {}", toml_text(value)?)));
            format!("{{ {} }}", pairs.collect::<Option<Vec<_>>>()?.join(", "))
        }
        Value::Tables(_) | Value::Other(_) => return None,
    })
}
