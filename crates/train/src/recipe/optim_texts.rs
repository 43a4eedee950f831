//! What the reference of recipes says about optimizers, learning-rate schedules and the keys that only some of them
//! have.

use std::collections::BTreeMap;

use serde_json::Value;
use tritforge_recipe::prose::{Described, description, grouped, names, owned_text, uncapitalized};
use tritforge_recipe::{Keys, Reader};

use super::optim::{KIND, SCHEDULE, SECTION};
use crate::optimizer::{Defaults, Rule};
use crate::schedule::{Run, Schedule};

/// The texts of the keys of `[optim]` that depend on optimizers or schedules; `fields` are the schemas of the section's
/// fields.
pub(super) fn texts(fields: &Value) -> BTreeMap<&'static str, String> {
    let mut reader = Reader::empty();
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
    for owned in reader.owned() {
        texts.entry(owned.key).or_insert_with(|| owned_text(owned.key, reader.owned(), &choices));
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
