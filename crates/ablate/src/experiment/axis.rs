//! Settings of recipes, and the axes of a grid: a key with its values, or several keys whose values go together.

use std::collections::BTreeMap;

use tritforge_recipe::{Entry, Fault, Value};

use super::keys::toml_text;

/// Keys that an experiment sets itself.
const OWN: [(&str, &str); 5] = [
    ("run.seed", "seeds are those of the experiment: give them with seeds"),
    ("data.order_seed", "it follows the seeds of the experiment"),
    ("data.split_seed", "all arms and seeds share one split: set it in the base recipe"),
    ("run.name", "runs are named by what they depend on"),
    ("run.out", "runs are kept in the directory that outputs.runs names"),
];

/// A key of a recipe with a value, as `--set` takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// The value, as TOML writes it.
    pub value: String,
}

impl Setting {
    /// As an override of a recipe.
    pub fn text(&self) -> String {
        format!("{}={}", self.key, self.value)
    }

    /// The key without its section, with its value: short enough for a name.
    pub fn short(&self) -> String {
        let key = self.key.split_once('.').map_or(self.key.as_str(), |(_, key)| key);
        format!("{key}={}", self.value.trim_matches('"'))
    }
}

/// Points of which each run has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Axis {
    /// The settings of each point: one for each key of the axis.
    pub points: Vec<Vec<Setting>>,
}

/// Points of a product at most: nobody runs more, and few axes with few values each make more than memory holds.
pub(super) const MOST_POINTS: usize = 10_000;

/// Every combination of a point of each axis (`product`), unless there are too many.
///
/// # Errors
/// If there are more than 10,000, each of them counted `times` times.
pub fn combinations(axes: &[Axis], times: usize) -> Result<Vec<Vec<Setting>>, String> {
    let count = axes.iter().fold(times, |count, axis| count.saturating_mul(axis.points.len()));
    match count {
        0..=MOST_POINTS => Ok(product(axes)),
        count => Err(format!("{count} combinations: expected at most {MOST_POINTS}")),
    }
}

/// Every combination of a point of each axis, the last axis fastest; one empty combination if there is no axis.
fn product(axes: &[Axis]) -> Vec<Vec<Setting>> {
    axes.iter().fold(vec![Vec::new()], |combinations, axis| {
        let with = |combination: &Vec<Setting>| {
            let combination = combination.clone();
            axis.points.iter().map(move |point| [combination.clone(), point.clone()].concat())
        };
        combinations.iter().flat_map(with).collect()
    })
}

/// The settings of an arm: `set = { "section.key" = value, … }`.
pub(super) fn settings(entry: &Entry, faults: &mut Vec<Fault>) -> Vec<Setting> {
    let at = &entry.value_at;
    let Value::Table(table) = &entry.value else {
        let (written, found) = (&entry.written, entry.value.type_name());
        let message =
            format!("arms.set = {written}: found {found}, expected a table, as in {{ \"optim.lr\" = 2e-3 }}");
        faults.push(Fault { origin: at.clone(), message });
        return Vec::new();
    };
    // `optim.lr = 1` without quotes is a table in a table.
    let mut flat: Vec<(String, &Value)> = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) if !key.contains('.') => {
                flat.extend(inner.iter().map(|(name, value)| (format!("{key}.{name}"), value)));
            }
            value => flat.push((key.clone(), value)),
        }
    }
    let mut settings = Vec::new();
    for (key, value) in flat {
        match setting(&key, value) {
            Ok(setting) => settings.push(setting),
            Err(message) => {
                faults.push(Fault { origin: at.clone(), message: format!("arms.set: {message}") });
            }
        }
    }
    settings
}

/// The axes of a table: `"section.key" = [value, …]`, or `"section.key, section.key" = [[value, value], …]`.
pub(super) fn axes(
    table: &'static str,
    entries: BTreeMap<String, Entry>,
    faults: &mut Vec<Fault>,
) -> Vec<Axis> {
    let mut axes = Vec::new();
    for (name, entry) in entries {
        match axis(&name, &entry) {
            Ok(axis) => axes.push(axis),
            Err(message) => {
                faults.push(Fault { origin: entry.value_at, message: format!("{table}.{message}") });
            }
        }
    }
    axes
}

/// The axes of a table in an arm.
pub(super) fn axes_of(table: &'static str, entry: &Entry, faults: &mut Vec<Fault>) -> Vec<Axis> {
    let Value::Table(values) = &entry.value else {
        let (written, found) = (&entry.written, entry.value.type_name());
        let message = format!(
            "{table} = {written}: found {found}, expected a table, as in {{ \"optim.lr\" = [1e-3, 2e-3] }}"
        );
        faults.push(Fault { origin: entry.value_at.clone(), message });
        return Vec::new();
    };
    let own = |value: &Value| Entry {
        value: value.clone(),
        written: toml_text(value).unwrap_or_else(|| value.type_name().to_string()),
        ..entry.clone()
    };
    axes(table, values.iter().map(|(key, value)| (key.clone(), own(value))).collect(), faults)
}

/// The axis of a key, or of keys that go together.
pub(super) fn axis(name: &str, entry: &Entry) -> Result<Axis, String> {
    let keys: Vec<&str> = name.split(',').map(str::trim).collect();
    let written = &entry.written;
    let values = match &entry.value {
        Value::Array(values) if !values.is_empty() => values,
        _ => return Err(format!("\"{name}\" = {written}: expected an array of values, as in [1e-3, 2e-3]")),
    };
    let point = |value: &Value| match (&keys[..], value) {
        ([key], value) => Ok(vec![setting(key, value)?]),
        (keys, Value::Array(values)) if values.len() == keys.len() => {
            keys.iter().zip(values).map(|(key, value)| setting(key, value)).collect()
        }
        (keys, _) => Err(format!("{written}: expected an array of {} values for each point", keys.len())),
    };
    let points: Vec<_> =
        values.iter().map(point).collect::<Result<_, _>>().map_err(|e| format!("\"{name}\": {e}"))?;
    match points.iter().enumerate().find(|(i, point)| points[..*i].contains(point)) {
        Some((_, twice)) => Err(format!("\"{name}\": {} is given twice", twice[0].value)),
        None => Ok(Axis { points }),
    }
}

/// A setting, if a recipe can have it.
pub(crate) fn setting(key: &str, value: &Value) -> Result<Setting, String> {
    if let Some((_, why)) = OWN.iter().find(|(own, _)| *own == key) {
        return Err(format!("{key}: {why}"));
    }
    let parts: Vec<&str> = key.split('.').collect();
    if !(2..=3).contains(&parts.len())
        || parts.iter().any(|part| part.is_empty() || part.contains([' ', '=']))
    {
        return Err(format!("\"{key}\": expected \"section.key\", as in \"optim.lr\""));
    }
    let value = toml_text(value).ok_or_else(|| format!("{key}: a value that no override can give"))?;
    Ok(Setting { key: key.to_string(), value })
}
