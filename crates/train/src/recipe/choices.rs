//! What the reference of recipes says about optimizers, learning-rate schedules and the keys that only some of them
//! have: put together from the documentation and the defaults of each.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use super::entries::Entries;
use super::keys::{Keys, Owned};
use super::optim::{KIND, SCHEDULE, SECTION};
use super::reader::Reader;
use super::reference::one_line;
use crate::optimizer::{Defaults, Rule};
use crate::schedule::{Run, Schedule};

/// A choice with what its struct says.
struct Described {
    name: &'static str,
    /// The JSON Schema of its struct.
    schema: Value,
    /// Its keys with their defaults, where those are the same for every run.
    defaults: Value,
}

/// The texts of the keys of `[optim]` that depend on optimizers or schedules; `fields` are the schemas of the section's
/// fields.
pub(super) fn texts(fields: &Value) -> BTreeMap<&'static str, String> {
    let mut reader = Reader::new(Path::new("recipe.toml"), Entries::default(), Vec::new());
    let mut rules = Vec::new();
    let mut choices = Vec::new();
    for known in Rule::ALL {
        let rule = (known.read)(&mut Keys::new(&mut reader, SECTION, KIND, known.name));
        let defaults = serde_json::to_value(rule).unwrap_or_default();
        choices.push(Described { name: known.name, schema: (known.documented)(), defaults });
        rules.push((known.name, rule.chosen().defaults()));
    }
    let optimizers = choices.iter().enumerate().map(|(i, choice)| {
        let default = if i == 0 { " (the default)" } else { "" };
        format!("`\"{}\"`{default}: {}", choice.name, description(&choice.schema))
    });
    let mut texts = BTreeMap::from([(KIND, optimizers.collect::<Vec<_>>().join(" "))]);
    let mut schedules = Vec::new();
    for known in Schedule::ALL {
        (known.read)(&mut Keys::new(&mut reader, SECTION, SCHEDULE, known.name), &Run { steps: 1, lr: 1.0 });
        let schema = (known.documented)();
        let about = uncapitalized(&description(&schema));
        schedules.push(format!("`\"{}\"`{}: {about}", known.name, whose_default(known.name, &rules)));
        choices.push(Described { name: known.name, schema, defaults: Value::Null });
    }
    texts.insert(SCHEDULE, schedules.join(" "));
    let warmup = |d: &Defaults| {
        d.warmup_steps.map_or("a twentieth of the run, at most 500".to_string(), |n| n.to_string())
    };
    for (key, show) in [
        ("lr", &(|d: &Defaults| d.lr.to_string()) as &dyn Fn(&Defaults) -> String),
        ("weight_decay", &|d| d.weight_decay.to_string()),
        ("warmup_steps", &warmup),
    ] {
        let text = description(&fields[key]);
        texts.insert(key, format!("{}; {}.", text.trim_end_matches('.'), by_default(&rules, show)));
    }
    for owned in &reader.owned {
        texts.entry(owned.key).or_insert_with(|| owned_text(owned.key, &reader.owned, &choices));
    }
    texts
}

/// Which optimizers have a schedule by default, in parentheses.
fn whose_default(schedule: &str, rules: &[(&str, Defaults)]) -> String {
    let whose = rules.iter().filter(|(_, defaults)| defaults.schedule == schedule).map(|(name, _)| *name);
    let whose: Vec<&str> = whose.collect();
    match rules.first() {
        Some((usual, _)) if whose.contains(usual) => " (the default)".to_string(),
        _ if whose.is_empty() => String::new(),
        _ => format!(" (the default of {})", names(&whose)),
    }
}

/// The default of a key that all optimizers have: that of the usual one, and those of the others where they differ.
fn by_default(rules: &[(&'static str, Defaults)], show: &dyn Fn(&Defaults) -> String) -> String {
    let values = grouped(rules.iter().map(|(name, defaults)| (show(defaults), *name)));
    let parts = values.iter().enumerate().map(|(i, (value, whose))| match i {
        0 => format!("by default {value}"),
        _ => format!("for {} {value}", names(whose)),
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// What a key means to each choice that has it and says so.
fn owned_text(key: &str, owned: &[Owned], choices: &[Described]) -> String {
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
fn grouped(items: impl Iterator<Item = (String, &'static str)>) -> Vec<(String, Vec<&'static str>)> {
    let mut groups: Vec<(String, Vec<&'static str>)> = Vec::new();
    for (text, name) in items {
        match groups.iter_mut().find(|(known, _)| *known == text) {
            Some((_, names)) => names.push(name),
            None => groups.push((text, vec![name])),
        }
    }
    groups
}

fn description(schema: &Value) -> String {
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
fn names(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`\"{name}\"`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// A sentence as it goes on after a colon: a capital that is not that of a name becomes small.
fn uncapitalized(text: &str) -> String {
    let word = text.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if word.chars().skip(1).all(char::is_lowercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_string(),
    }
}
