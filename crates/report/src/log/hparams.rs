//! Summaries of TensorBoard's HParams plugin: which hyperparameters and metrics an experiment has, the values of a run, and
//! how it ended. TensorBoard makes a table, parallel coordinates and scatter plots of them.
//!
//! Each is a message `HParamsPluginData` of `tensorboard/plugins/hparams/plugin_data.proto`, version 0, in the metadata of a
//! summary whose tag says which of the three it is. `tests/golden/make_hparams.py` writes the same bytes with TensorBoard's
//! own classes.

use std::collections::BTreeMap;

use super::protobuf::{bytes, double, text, whole};

/// The plugin's name.
pub(super) const PLUGIN: &str = "hparams";
/// Tags of the three summaries; all of them begin with [`TAGS`].
pub(super) const EXPERIMENT: &str = "_hparams_/experiment";
pub(super) const SESSION_START: &str = "_hparams_/session_start_info";
pub(super) const SESSION_END: &str = "_hparams_/session_end_info";
/// What all tags of the plugin begin with.
pub(super) const TAGS: &str = "_hparams_/";

/// The value of a hyperparameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Hparam {
    /// A number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A text; of lists the text that TOML writes.
    Text(String),
}

impl Hparam {
    /// As a text: what TOML writes, a string without its quotes.
    pub fn text(&self) -> String {
        match self {
            Self::Number(x) => x.to_string(),
            Self::Flag(flag) => flag.to_string(),
            Self::Text(text) => text.clone(),
        }
    }

    /// A message `google.protobuf.Value`.
    fn value(&self) -> Vec<u8> {
        let mut value = Vec::new();
        // One of several is written even if it is 0 or empty.
        match self {
            Self::Number(x) => {
                super::protobuf::key(&mut value, 2, 1);
                value.extend(x.to_le_bytes());
            }
            Self::Text(text) => bytes(&mut value, 3, text.as_bytes()),
            Self::Flag(flag) => value.extend([4 << 3, u8::from(*flag)]),
        }
        value
    }
}

/// Hyperparameters by name.
pub type Hparams = BTreeMap<String, Hparam>;

/// Keys of recipes that say nothing about what a run learns.
const NO_HPARAMS: [&str; 3] = ["version", "run.out", "log"];

/// The keys of a recipe, as `section.key`, with their values; nothing for a text that is no TOML.
pub fn hparams_of(recipe: &str) -> Hparams {
    let mut found = Hparams::new();
    if let Ok(table) = recipe.parse::<toml::Table>() {
        flatten("", table, &mut found);
    }
    found
}

fn flatten(prefix: &str, table: toml::Table, found: &mut Hparams) {
    for (key, value) in table {
        let name = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        if NO_HPARAMS.contains(&name.as_str()) {
            continue;
        }
        let value = match value {
            toml::Value::Table(inner) => {
                flatten(&name, inner, found);
                continue;
            }
            toml::Value::Integer(i) => Hparam::Number(i as f64),
            toml::Value::Float(x) => Hparam::Number(x),
            toml::Value::Boolean(flag) => Hparam::Flag(flag),
            toml::Value::String(text) => Hparam::Text(text),
            other => Hparam::Text(other.to_string()),
        };
        found.insert(name, value);
    }
}

/// A metric of an experiment: the last value of a scalar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Metric {
    /// The scalar's tag.
    pub(super) tag: &'static str,
    /// What is shown.
    pub(super) name: &'static str,
    /// The text that it is measured on.
    pub(super) dataset: Dataset,
}

/// The text that a metric is measured on (`DatasetType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dataset {
    None = 0,
    Training = 1,
    Validation = 2,
}

/// How a run ended (`Status`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Success = 1,
    Failure = 2,
}

/// The experiment: its hyperparameters, each with the values that runs have, and its metrics.
pub(super) fn experiment(
    description: &str,
    created: f64,
    hparams: &BTreeMap<&str, Vec<&Hparam>>,
    metrics: &[Metric],
) -> Vec<u8> {
    let mut message = Vec::new();
    text(&mut message, 1, description);
    double(&mut message, 3, created);
    for (name, values) in hparams {
        bytes(&mut message, 4, &hparam_info(name, values));
    }
    for metric in metrics {
        let (mut name, mut info) = (Vec::new(), Vec::new());
        text(&mut name, 2, metric.tag);
        bytes(&mut info, 1, &name);
        text(&mut info, 3, metric.name);
        whole(&mut info, 5, metric.dataset as u64);
        bytes(&mut message, 5, &info);
    }
    plugin_data(2, &message)
}

/// A hyperparameter with its type and the domain of its values: an interval of numbers, or all values. Those of several
/// types are texts. Of one value nothing is known but its type.
fn hparam_info(name: &str, values: &[&Hparam]) -> Vec<u8> {
    let mut info = Vec::new();
    text(&mut info, 1, name);
    let numbers: Option<Vec<f64>> =
        values.iter().map(|v| if let Hparam::Number(x) = v { Some(*x) } else { None }).collect();
    let flags = values.iter().all(|value| matches!(value, Hparam::Flag(_)));
    whole(
        &mut info,
        4,
        if flags {
            2
        } else if numbers.is_some() {
            3
        } else {
            1
        },
    );
    if values.len() < 2 {
        return info;
    }
    if let Some(numbers) = numbers {
        let mut interval = Vec::new();
        double(&mut interval, 1, numbers.iter().copied().fold(f64::INFINITY, f64::min));
        double(&mut interval, 2, numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        bytes(&mut info, 6, &interval);
        return info;
    }
    let mut list = Vec::new();
    let mut known: Vec<Hparam> = Vec::new();
    for value in values {
        let value = if flags { (*value).clone() } else { Hparam::Text(value.text()) };
        if !known.contains(&value) {
            bytes(&mut list, 1, &value.value());
            known.push(value);
        }
    }
    bytes(&mut info, 5, &list);
    info
}

/// The beginning of a run with its hyperparameters. Runs of one `group`, such as those of an arm with several seeds, are
/// shown as one; without a group each is one by itself. `model` says where its checkpoints are.
pub(super) fn session_start(hparams: &Hparams, model: &str, group: &str, started: f64) -> Vec<u8> {
    let mut message = Vec::new();
    for (name, value) in hparams {
        let mut entry = Vec::new();
        bytes(&mut entry, 1, name.as_bytes());
        bytes(&mut entry, 2, &value.value());
        bytes(&mut message, 1, &entry);
    }
    text(&mut message, 2, model);
    text(&mut message, 4, group);
    double(&mut message, 5, started);
    plugin_data(3, &message)
}

/// The end of a run.
pub(super) fn session_end(status: Status, ended: f64) -> Vec<u8> {
    let mut message = Vec::new();
    whole(&mut message, 1, status as u64);
    double(&mut message, 2, ended);
    plugin_data(4, &message)
}

/// `HParamsPluginData` with version 0, which is not written.
fn plugin_data(field: u64, message: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    bytes(&mut data, field, message);
    data
}

#[cfg(test)]
mod tests {
    use super::super::tfevents::{Value, summary};
    use super::*;

    const TIME: f64 = 1_700_000_000.25;

    fn runs() -> [Hparams; 2] {
        let run = |lr, norm, kind: &str, warmup, mixed| {
            let named = |(name, value): (&str, Hparam)| (name.to_string(), value);
            Hparams::from(
                [
                    ("optim.lr", Hparam::Number(lr)),
                    ("model.use_sub_norm", Hparam::Flag(norm)),
                    ("optim.kind", Hparam::Text(kind.to_string())),
                    ("optim.warmup_steps", Hparam::Number(warmup)),
                    ("mixed", mixed),
                ]
                .map(named),
            )
        };
        let second = run(0.004, false, "", 40.0, Hparam::Text("γ".to_string()));
        [run(0.001, true, "adamw", 0.0, Hparam::Number(3.0)), second]
    }

    /// Events as TensorBoard's own classes write them (`tests/golden/make_hparams.py`).
    #[test]
    fn events_have_the_bytes_of_tensorboards_classes() {
        let golden: BTreeMap<String, String> =
            serde_json::from_str(include_str!("../../../../tests/golden/hparams.json")).unwrap();
        let runs = runs();
        let metrics = [
            ("loss/bits_per_byte", "held-out bits/byte", Dataset::Validation),
            ("loss/train", "training loss", Dataset::Training),
            ("cost/seconds", "seconds", Dataset::None),
        ]
        .map(|(tag, name, dataset)| Metric { tag, name, dataset });
        let of = |runs: &[Hparams]| {
            let names: Vec<&String> = runs[0].keys().collect();
            let known = names.iter().map(|n| (n.as_str(), runs.iter().map(|run| &run[*n]).collect()));
            experiment("Which?", TIME, &known.collect(), &metrics)
        };
        let cases = [
            ("experiment of one", EXPERIMENT, of(&runs[..1])),
            ("experiment of two", EXPERIMENT, of(&runs)),
            ("start", SESSION_START, session_start(&runs[0], "runs/a", "", TIME)),
            ("start in a group", SESSION_START, session_start(&runs[1], "", "arm", TIME)),
            ("success", SESSION_END, session_end(Status::Success, TIME)),
            ("failure", SESSION_END, session_end(Status::Failure, TIME)),
        ];
        assert_eq!(cases.len(), golden.len());
        for (name, tag, content) in cases {
            let event = summary(TIME, 7, &[(tag, Value::Hparams(&content))]);
            let digits: String = event.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digits, golden[name], "{name}");
        }
    }

    #[test]
    fn keys_of_a_recipe_are_hyperparameters() {
        let found = hparams_of(
            "version = 1\n[run]\nname = \"x\"\nout = \"runs/x\"\nseed = 3\n[optim]\nlr = 1e-3\nbetas = [0.9, 0.95]\n\
             nesterov = true\n[log]\nmlflow = \"http://x\"\n[dpo.loss]\nkind = \"ipo\"\n",
        );
        let text: Vec<String> =
            found.iter().map(|(name, value)| format!("{name}={}", value.text())).collect();
        assert_eq!(
            text,
            [
                "dpo.loss.kind=ipo",
                "optim.betas=[0.9, 0.95]",
                "optim.lr=0.001",
                "optim.nesterov=true",
                "run.name=x",
                "run.seed=3"
            ]
        );
        assert_eq!(found["optim.nesterov"], Hparam::Flag(true));
        assert_eq!(hparams_of("no recipe"), Hparams::new());
    }
}
