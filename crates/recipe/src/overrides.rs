//! Overrides from the command line: `section.key=value`.

use std::collections::BTreeMap;

use toml::de::DeValue;

use super::entries::{Entries, Entry, Value};
use super::error::{Fault, Origin};

/// Puts overrides over what the file says, the later over the earlier.
///
/// A value is TOML; what is no TOML is a string, so that `quant.weights=none` needs no quotes. Naming the
/// text's files withdraws the file's `data.source`, and the other way round: an override says where the text
/// comes from, whole.
pub(super) fn apply(entries: &mut Entries, overrides: &[String], faults: &mut Vec<Fault>) {
    for text in overrides {
        let origin = Origin::Override(without_secret(text));
        let fault = |message: &str| Fault { origin: origin.clone(), message: message.to_string() };
        let Some((path, value)) = text.split_once('=') else {
            faults.push(fault("expected section.key=value"));
            continue;
        };
        let mut names = path.trim().split('.');
        let (Some(section), Some(key), name, None) = (names.next(), names.next(), names.next(), names.next())
        else {
            faults.push(fault("expected section.key=value, with one dot in the key"));
            continue;
        };
        let written = value.trim();
        let Some(value) = parse(written) else {
            faults.push(fault("the value is neither TOML nor a bare string"));
            continue;
        };
        let (key_at, value_at) = (origin.clone(), origin.clone());
        let entry = Entry { value, written: written.to_string(), key_at, value_at, from_config: false };
        let section_entries = entries.sections.entry(section.to_string()).or_default();
        let rivals: &[&str] = match (section, key) {
            ("data", "train") => &["source", "sources"],
            ("data", "source") => &["train", "sources"],
            _ => &[],
        };
        for rival in rivals {
            if section_entries.get(*rival).is_some_and(|e| !matches!(e.value_at, Origin::Override(_))) {
                section_entries.remove(*rival);
            }
        }
        let entry = match name {
            None => entry,
            // One key of a table: the others stay.
            Some(name) => {
                let mut table = match section_entries.remove(key).map(|e| e.value) {
                    Some(Value::Table(table)) => table,
                    _ => BTreeMap::new(),
                };
                table.insert(name.to_string(), entry.value);
                Entry { value: Value::Table(table), ..entry }
            }
        };
        section_entries.insert(key.to_string(), entry);
    }
}

/// An override as messages show it: an address may have a password in it.
fn without_secret(text: &str) -> String {
    let (key, value) = text.split_once('=').unwrap_or(("", text));
    // Whatever key it was meant for.
    match value.contains('@') && (value.contains("://") || key.trim().starts_with("log")) {
        true => format!("{key}=…"),
        false => text.to_string(),
    }
}

/// The value of an override; None for broken TOML.
fn parse(text: &str) -> Option<Value> {
    match DeValue::parse(text) {
        // No key is a date or a time: 16:32 is a string, as 2:4 is.
        Ok(value) if matches!(value.get_ref(), DeValue::Datetime(_)) => Some(Value::Text(text.to_string())),
        Ok(value) => Some(Value::of(value.get_ref())),
        // What begins like TOML was meant as TOML.
        Err(_) if text.starts_with(['"', '\'', '[', '{']) => None,
        Err(_) => Some(Value::Text(text.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_toml_or_bare_strings() {
        for (text, value) in [
            ("2e-3", Value::Float(2e-3)),
            ("500", Value::Integer(500)),
            ("0x10", Value::Integer(16)),
            ("1_000", Value::Integer(1000)),
            ("true", Value::Flag(true)),
            ("\"a b\"", Value::Text("a b".into())),
            ("none", Value::Text("none".into())),
            ("runs/two words", Value::Text("runs/two words".into())),
            ("1 2", Value::Text("1 2".into())),
            ("16:32", Value::Text("16:32".into())),
            ("2026-11-29", Value::Text("2026-11-29".into())),
            ("", Value::Text(String::new())),
            ("[0.9, 1]", Value::Array(vec![Value::Float(0.9), Value::Integer(1)])),
        ] {
            assert_eq!(parse(text), Some(value), "{text}");
        }
        for broken in ["[a.txt]", "\"open", "{", "'x"] {
            assert_eq!(parse(broken), None, "{broken}");
        }
        // One override cannot bring a second key.
        assert_eq!(parse("1\nsteps = 2"), Some(Value::Text("1\nsteps = 2".into())));
    }
}
