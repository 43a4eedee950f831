//! What documentation says of choices and of the keys that only some of them have, put together from the documentation
//! and the defaults of each.

use serde_json::Value;

use crate::Owned;

/// A choice with what its struct says.
#[derive(Debug, Clone)]
pub struct Described {
    /// Its name in recipes.
    pub name: &'static str,
    /// The JSON Schema of its struct.
    pub schema: Value,
    /// Its keys with their defaults, where those are the same for every run.
    pub defaults: Value,
}

/// What a key means to each choice that has it and says so.
pub fn owned_text(key: &str, owned: &[Owned], choices: &[Described]) -> String {
    let meanings = owned.iter().filter(|owned| owned.key == key).filter_map(|owned| {
        let choice = choices.iter().find(|choice| choice.name == owned.owner)?;
        let text = description(&choice.schema["properties"][key]);
        let text = text.trim_end_matches('.');
        let default = Some(&choice.defaults[key]).filter(|v| !v.is_null() && !text.contains("by default"));
        let default = default.map_or(String::new(), |value| format!("; by default {}", shown(value)));
        (!text.is_empty()).then(|| (format!("{text}{default}."), owned.owner))
    });
    let texts = grouped(meanings);
    let texts = texts.iter().map(|(text, whose)| format!("For {}: {}", names(whose), uncapitalized(text)));
    texts.collect::<Vec<_>>().join(" ")
}

/// Names by what is said of them, in the order of the first of each.
pub fn grouped(items: impl Iterator<Item = (String, &'static str)>) -> Vec<(String, Vec<&'static str>)> {
    let mut groups: Vec<(String, Vec<&'static str>)> = Vec::new();
    for (text, name) in items {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name),
            None => groups.push((text, vec![name])),
        }
    }
    groups
}

/// What a struct or a field says of itself, in a line, by its JSON Schema.
pub fn description(schema: &Value) -> String {
    one_line(&schema["description"])
}

/// A value as prose: `0.9 and 0.95`.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(items) => items.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        other => other.to_string(),
    }
}

/// Names of choices as prose.
pub fn names(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A sentence as it goes on after a colon: a capital that is not that of a name becomes small.
pub fn uncapitalized(text: &str) -> String {
    let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if word.chars().skip(1).all(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_string(),
    }
}

/// A text without its line breaks.
pub fn one_line(text: &Value) -> String {
    text.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}
