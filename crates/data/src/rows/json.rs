//! JSON: an array of objects, objects one after the other, or an object a line.

use std::fmt;
use std::path::Path;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{OnRow, Row, TableFormat, type_name};
use crate::DataError;
use crate::text::{self, LineBreaks, TextReader};

/// An array of JSON objects, or objects one after the other.
pub(super) static JSON: TableFormat = TableFormat { name: "json", extensions: &["json"], read };

/// A JSON object a line.
pub(super) static JSONL: TableFormat =
    TableFormat { name: "jsonl", extensions: &["jsonl", "ndjson"], read: read_lines };

/// The objects of a JSON file. Files with the extension of the one are often the other: a `.json` file is an
/// array, an object a line, or objects over several lines, as it begins.
fn read(path: &Path, _: Option<&str>, take: &mut OnRow<'_>) -> Result<(), DataError> {
    let text = TextReader::read(path)?;
    let first = text.trim_start().lines().next().unwrap_or_default();
    if first.starts_with('[') || parse(first).is_err() {
        return values(path, &text, take);
    }
    drop(text);
    read_lines(path, None, take)
}

/// An object a line; lines of white space are passed over.
fn read_lines(path: &Path, _: Option<&str>, take: &mut OnRow<'_>) -> Result<(), DataError> {
    text::lines(path, TextReader::open(path)?, &mut |line, text| {
        let text = text.trim();
        if text.is_empty() {
            return Ok(true);
        }
        let row = parse(text).map_err(|e| not_json(&e)).and_then(object);
        take(format!("line {line}"), row)
    })
}

/// The objects of an array, or objects one after the other: a mistake ends the reading, as what follows it
/// cannot be told.
fn values(path: &Path, text: &str, take: &mut OnRow<'_>) -> Result<(), DataError> {
    let fault = |line: usize, message: String| Err(DataError::record(path, format!("line {line}"), message));
    let mut breaks = LineBreaks::default();
    let mut rest = text.trim_start();
    breaks.count(&text.as_bytes()[..text.len() - rest.len()]);
    let array = rest.starts_with('[');
    rest = rest.strip_prefix('[').unwrap_or(rest);
    let mut separated = true;
    let mut begun = false;
    loop {
        let next = rest.trim_start();
        breaks.count(&rest.as_bytes()[..rest.len() - next.len()]);
        rest = next;
        let line = breaks.line();
        match rest.as_bytes().first() {
            None if array => return fault(line, "the array is not closed: expected ]".to_string()),
            None => return Ok(()),
            Some(b']') if array && !(begun && separated) => {
                return match rest[1..].trim_start() {
                    "" => Ok(()),
                    _ => fault(line, "text after the end of the array".to_string()),
                };
            }
            Some(b',') if array && !separated => {
                separated = true;
                rest = &rest[1..];
                continue;
            }
            Some(_) if array && !separated => return fault(line, "expected , or ]".to_string()),
            Some(_) => {}
        }
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Parsed>();
        let value = match stream.next() {
            Some(Ok(Parsed(value))) => value,
            Some(Err(e)) => {
                // At the end of the file the fault is where the record begins.
                let at = if e.is_eof() { line } else { line_of(breaks, rest, &e) };
                return fault(at, not_json(&e));
            }
            None => return Ok(()),
        };
        let end = stream.byte_offset();
        if !take(format!("line {line}"), object(value))? {
            return Ok(());
        }
        breaks.count(&rest.as_bytes()[..end]);
        rest = &rest[end..];
        (begun, separated) = (true, false);
    }
}

/// The line of a fault in `rest`, which follows `breaks`: serde counts line feeds alone.
fn line_of(mut breaks: LineBreaks, rest: &str, error: &serde_json::Error) -> usize {
    let before: usize = rest.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
    let at = (before + error.column().saturating_sub(1)).min(rest.len());
    breaks.count(&rest.as_bytes()[..at]);
    breaks.line()
}

/// What is wrong, without serde's own line, which counts from the record's beginning.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let what = message.split_once(" at line ").map_or(message.as_str(), |(what, _)| what);
    format!("not JSON: {what} at column {}", error.column())
}

fn object(value: Value) -> Result<Row, String> {
    match value {
        Value::Object(row) => Ok(row),
        Value::Array(_) => {
            Err("expected a JSON object, found an array: format = \"json\" reads arrays of objects"
                .to_string())
        }
        other => Err(format!("expected a JSON object, found {}", type_name(&other))),
    }
}

/// A value of which no object has a key twice: `serde_json` would keep the last one without a word.
pub(crate) fn parse(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Parsed>(text).map(|Parsed(value)| value)
}

struct Parsed(Value);

impl<'de> serde::Deserialize<'de> for Parsed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Unique).map(Parsed)
    }
}

/// Reads values of any type, and refuses objects with a key twice.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(value) = items.next_element_seed(Unique)? {
            array.push(value);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?} in an object")));
            }
            object.insert(key, entries.next_value_seed(Unique)?);
        }
        Ok(Value::Object(object))
    }
}
