//! `[[data.sources]]`: texts with weights, formats and columns.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tritforge_data::Format;
use tritforge_recipe::{Entry, Kind, Origin, Range, Reader, Value};

use super::SourceText;

/// What a table may hold; the path is needed.
fn keys() -> [(&'static str, Kind); 4] {
    let formats = Format::all().map(|format| format.name().to_string()).collect();
    [
        ("path", Kind::Path),
        ("weight", Kind::Number(WEIGHT)),
        ("format", Kind::Choice(formats)),
        ("column", Kind::Text),
    ]
}

const WEIGHT: Range = Range::above(0.0);

/// Reads the tables of `data.sources`; none if the key is not given.
pub(super) fn sources(r: &mut Reader) -> Vec<SourceText> {
    let tables = r.tables("data", "sources", &keys()).unwrap_or_default();
    tables.into_iter().filter_map(|(origin, keys)| source(r, &origin, keys)).collect()
}

fn source(r: &mut Reader, origin: &Origin, mut keys: BTreeMap<String, Entry>) -> Option<SourceText> {
    let path = text(r, &mut keys, "path").map(|(text, origin)| r.resolve(&text, &origin));
    let weight = keys.remove("weight").and_then(|entry| {
        let weight = match entry.value {
            Value::Integer(i) => i as f64,
            Value::Float(f) => f,
            _ => f64::NAN,
        };
        if WEIGHT.holds(weight) {
            return Some(weight);
        }
        fault(
            r,
            &entry.value_at,
            format!("data.sources.weight = {}: expected a number {WEIGHT}", entry.written),
        );
        None
    });
    let format = text(r, &mut keys, "format").and_then(|(text, origin)| {
        let found = Format::from_name(&text);
        if found.is_none() {
            let names: Vec<String> = Format::all().map(|format| format!("\"{}\"", format.name())).collect();
            let names = names.join(" or ");
            fault(r, &origin, format!("data.sources.format = \"{text}\": expected {names}"));
        }
        found
    });
    let column = text(r, &mut keys, "column").map_or_else(|| "text".to_string(), |(text, _)| text);
    for (key, entry) in keys {
        let message =
            format!("data.sources.{key}: unknown key; [[data.sources]] has {}", names(&self::keys()));
        fault(r, &entry.key_at, message);
    }
    let Some(path) = path.filter(|path: &PathBuf| !path.as_os_str().is_empty()) else {
        fault(
            r,
            origin,
            "data.sources.path is missing: expected a file, a directory, a pattern or hf://datasets/…",
        );
        return None;
    };
    Some(SourceText { path, weight, format: format.unwrap_or_default(), column })
}

fn names(keys: &[(&'static str, Kind)]) -> String {
    keys.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
}

/// A string with its place.
fn text(r: &mut Reader, keys: &mut BTreeMap<String, Entry>, key: &str) -> Option<(String, Origin)> {
    let entry = keys.remove(key)?;
    if let Value::Text(text) = entry.value {
        return Some((text, entry.value_at));
    }
    let (written, found) = (&entry.written, entry.value.type_name());
    fault(r, &entry.value_at, format!("data.sources.{key} = {written}: found {found}, expected a string"));
    None
}

fn fault(r: &mut Reader, origin: &Origin, message: impl Into<String>) {
    r.fault_at(origin.clone(), message.into());
}
