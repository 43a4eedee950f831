//! A recipe as it was written: sections of keys, each with its value and where that stands.

use std::collections::BTreeMap;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::error::{Fault, Origin};
use super::places::Places;

/// The most syntax errors that are told of one file: those after a few follow from the first.
const MOST_SYNTAX_ERRORS: usize = 20;

/// The longest text that is read, in bytes: the parser may need five hundred times as much for a damaged one.
const MOST_BYTES: usize = 1 << 20;

/// A value of TOML, as far as recipes use it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A string.
    Text(String),
    /// An integer.
    Integer(i64),
    /// A number with a decimal point or an exponent.
    Float(f64),
    /// `true` or `false`.
    Flag(bool),
    /// An array.
    Array(Vec<Value>),
    /// A table, as `[section.key]` or braces write it.
    Table(BTreeMap<String, Value>),
    /// Tables, as `[[section.key]]` writes them.
    Tables(Vec<(Origin, BTreeMap<String, Entry>)>),
    /// Of a type that no key has: its name.
    Other(&'static str),
}

/// One `key = value`.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The value.
    pub value: Value,
    /// The value as it was written.
    pub written: String,
    /// Where the key stands.
    pub key_at: Origin,
    /// Where the value stands.
    pub value_at: Origin,
    /// Whether it comes from the file that `model.config` names.
    pub from_config: bool,
}

/// Keys with their values, by section.
#[derive(Debug, Default)]
pub struct Entries {
    /// The keys of each section.
    pub sections: BTreeMap<String, BTreeMap<String, Entry>>,
    /// Keys outside any section.
    pub stray: BTreeMap<String, Entry>,
    /// Where each section begins.
    pub headers: BTreeMap<String, Origin>,
}

impl Value {
    /// The type's name for messages, with its article.
    pub fn type_name(&self) -> &'static str {
        match self {
            Value::Text(_) => "a string",
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a number with a decimal point",
            Value::Flag(_) => "a boolean",
            Value::Array(_) => "an array",
            Value::Table(_) => "a table",
            Value::Tables(_) => "tables",
            Value::Other(name) => name,
        }
    }

    /// As JSON.
    ///
    /// # Errors
    /// If JSON has no such value: its type's name.
    pub(super) fn to_json(&self) -> Result<serde_json::Value, &'static str> {
        type Json = Result<serde_json::Value, &'static str>;
        let table = |keys: &mut dyn Iterator<Item = (&String, &Value)>| -> Json {
            keys.map(|(key, value)| Ok((key.clone(), value.to_json()?))).collect()
        };
        Ok(match self {
            Value::Text(text) => serde_json::Value::from(text.as_str()),
            Value::Integer(i) => serde_json::Value::from(*i),
            Value::Float(f) if f.is_finite() => serde_json::Value::from(*f),
            Value::Float(_) => return Err("a number that is not finite"),
            Value::Flag(flag) => serde_json::Value::from(*flag),
            Value::Array(items) => items.iter().map(Value::to_json).collect::<Json>()?,
            Value::Table(keys) => table(&mut keys.iter())?,
            Value::Tables(tables) => {
                let each = |(_, keys): &(Origin, BTreeMap<String, Entry>)| {
                    table(&mut keys.iter().map(|(key, entry)| (key, &entry.value)))
                };
                tables.iter().map(each).collect::<Json>()?
            }
            Value::Other(name) => return Err(name),
        })
    }

    /// Reads a parsed value; an integer that does not fit 64 bits is kept as what it is not.
    pub(super) fn of(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(i) => match i64::from_str_radix(i.as_str(), i.radix()) {
                Ok(i) => Value::Integer(i),
                Err(_) => Value::Other("an integer beyond 64 bits"),
            },
            DeValue::Float(f) => Value::Float(f.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(flag) => Value::Flag(*flag),
            DeValue::Array(items) => Value::Array(items.iter().map(|v| Value::of(v.get_ref())).collect()),
            DeValue::Datetime(_) => Value::Other("a date"),
            DeValue::Table(keys) => Value::Table(
                keys.iter()
                    .map(|(key, value)| (key.get_ref().to_string(), Value::of(value.get_ref())))
                    .collect(),
            ),
        }
    }
}

/// A file's text with its name, to say where things stand in it.
struct Source<'a> {
    path: &'a Path,
    text: &'a str,
    places: Places<'a>,
}

impl<'a> Source<'a> {
    fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, places: Places::new(text) }
    }

    fn at(&self, offset: usize) -> Origin {
        let (line, column) = self.places.of(offset);
        Origin::At { path: self.path.to_path_buf(), line, column }
    }

    fn entry(&self, key_offset: usize, value: &Spanned<DeValue<'_>>) -> Entry {
        let written = self.text.get(value.span()).unwrap_or_default();
        // Long values are cut: a message is one line.
        let line = written.lines().next().unwrap_or_default();
        let cut: String = line.chars().take(60).collect();
        let written = if cut == written { cut } else { format!("{cut}…") };
        Entry {
            value: self.tables(value.get_ref()).unwrap_or_else(|| Value::of(value.get_ref())),
            written,
            key_at: self.at(key_offset),
            value_at: self.at(value.span().start),
            from_config: false,
        }
    }

    /// The value of an array of nothing but tables, at least one.
    fn tables(&self, value: &DeValue<'_>) -> Option<Value> {
        let DeValue::Array(items) = value else { return None };
        let table = |item: &Spanned<DeValue<'_>>| {
            let DeValue::Table(keys) = item.get_ref() else { return None };
            let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), self.entry(key.span().start, value))
            };
            Some((self.at(item.span().start), keys.iter().map(entry).collect()))
        };
        let tables: Option<Vec<_>> = items.iter().map(table).collect();
        tables.filter(|tables| !tables.is_empty()).map(Value::Tables)
    }

    fn parse(&self) -> Result<DeTable<'a>, Vec<Fault>> {
        if self.text.len() > MOST_BYTES {
            let origin = Origin::File(self.path.to_path_buf());
            let message = format!("{} bytes of TOML: expected at most {MOST_BYTES}", self.text.len());
            return Err(vec![Fault { origin, message }]);
        }
        let (table, errors) = DeTable::parse_recoverable(self.text);
        if errors.is_empty() {
            return Ok(table.into_inner());
        }
        let fault = |e: &toml::de::Error| {
            let place = e.span().unwrap_or_default();
            let (origin, text) = (self.at(place.start), self.text.get(place).unwrap_or_default().trim());
            let message = match e.message() {
                twice if twice == "duplicate key" => format!("not TOML: {twice}: {text} is given twice"),
                other => format!("not TOML: {other}"),
            };
            Fault { origin, message }
        };
        let mut faults: Vec<Fault> = errors.iter().take(MOST_SYNTAX_ERRORS).map(fault).collect();
        if let Some(next) = errors.get(MOST_SYNTAX_ERRORS) {
            let origin = self.at(next.span().unwrap_or_default().start);
            let message = format!("not TOML: {} more errors from here on", errors.len() - MOST_SYNTAX_ERRORS);
            faults.push(Fault { origin, message });
        }
        Err(faults)
    }
}

/// Parses a recipe.
pub(super) fn parse_recipe(path: &Path, text: &str) -> Result<Entries, Vec<Fault>> {
    let source = Source::new(path, text);
    let mut entries = Entries::default();
    for (name, value) in source.parse()? {
        let DeValue::Table(keys) = value.get_ref() else {
            let entry = source.entry(name.span().start, &value);
            entries.stray.insert(name.into_inner().into_owned(), entry);
            continue;
        };
        let section = keys
            .iter()
            .map(|(key, value)| (key.get_ref().to_string(), source.entry(key.span().start, value)))
            .collect();
        entries.headers.insert(name.get_ref().to_string(), source.at(name.span().start));
        entries.sections.insert(name.into_inner().into_owned(), section);
    }
    Ok(entries)
}

/// Parses a text of keys without sections, such as the file of a model's shape: keys of `[model]` without its header.
///
/// # Errors
/// If it is not TOML: with what is wrong, and where.
pub fn parse_keys(path: &Path, text: &str) -> Result<BTreeMap<String, Entry>, Vec<Fault>> {
    let source = Source::new(path, text);
    let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
        let entry = Entry { from_config: true, ..source.entry(key.span().start, &value) };
        (key.into_inner().into_owned(), entry)
    };
    Ok(source.parse()?.into_iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_text_is_told_in_a_few_lines() {
        let path = Path::new("r.toml");
        let stray = format!("a = 1\nb = [1, {}\n", "}".repeat(10_000));
        let faults = parse_recipe(path, &stray).unwrap_err();
        assert_eq!(faults.len(), MOST_SYNTAX_ERRORS + 1);
        assert!(faults[0].to_string().starts_with("r.toml:2:"), "{}", faults[0]);
        let last = faults[MOST_SYNTAX_ERRORS].to_string();
        assert!(last.ends_with("more errors from here on"), "{last}");
        let long = format!("a = 1 #{}", "x".repeat(MOST_BYTES));
        let faults = parse_recipe(path, &long).unwrap_err();
        assert_eq!(faults[0].to_string(), "r.toml: 1048583 bytes of TOML: expected at most 1048576");
    }
}
