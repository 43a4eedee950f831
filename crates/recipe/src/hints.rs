//! What an unknown key or name may have been meant to be.

use super::kind::Key;
use super::upgrade::{present_key, present_value};

/// Other projects' names for keys, too far from ours for a measure of spelling.
const ALIASES: [(&str, &str); 17] = [
    ("learning_rate", "lr"),
    ("max_lr", "lr"),
    ("max_steps", "steps"),
    ("max_iters", "steps"),
    ("num_train_steps", "steps"),
    ("warmup_iters", "warmup_steps"),
    ("block_size", "seq_len"),
    ("context_length", "seq_len"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_embd", "hidden_size"),
    ("d_model", "hidden_size"),
    ("max_grad_norm", "grad_clip"),
    ("optimizer", "kind"),
    ("early_stopping_patience", "patience"),
    ("dataset", "train"),
    ("packing", "format"),
];

/// What an unknown key may have been meant to be, among those that are known.
pub(super) fn unknown_key(known: &[Key], section: &str, key: &str) -> String {
    let here = || known.iter().filter(|k| k.section == section).map(|k| k.name);
    let alias = ALIASES.iter().find(|(other, _)| *other == key).map_or(key, |(_, ours)| ours);
    let elsewhere = || known.iter().find(|k| k.name == alias);
    if let Some(now) = present_key(section, key) {
        format!("it is {section}.{now} now: `tritforge recipes upgrade` rewrites the file")
    } else if here().any(|k| k == alias) {
        format!("did you mean {section}.{alias}?")
    } else if let Some(key) = elsewhere() {
        format!("did you mean {key}?")
    } else if let Some(near) = nearest(key, here(), 0.8) {
        format!("did you mean {section}.{near}?")
    } else if let Some(near) = nearest(key, known.iter().map(|k| k.name), 0.92) {
        let home = known.iter().find(|k| k.name == near).map_or(section, |k| k.section);
        format!("did you mean {home}.{near}?")
    } else {
        format!("[{section}] has {}", here().collect::<Vec<_>>().join(", "))
    }
}

/// What a value may have been meant to be that is none of `names`, after a semicolon; nothing if none is near.
pub(super) fn unknown_name<'a>(
    section: &str,
    key: &str,
    value: &str,
    names: impl Iterator<Item = &'a str>,
) -> String {
    if let Some(now) = present_value(section, key, value) {
        return format!("; it is \"{now}\" now: `tritforge recipes upgrade` rewrites the file");
    }
    nearest(value, names, 0.8).map_or(String::new(), |name| format!("; did you mean \"{name}\"?"))
}

/// The most similar of several names by Jaro and Winkler's measure (1 is equal), if it is more similar than
/// `least`.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>, least: f64) -> Option<&'a str> {
    names
        .map(|known| (strsim::jaro_winkler(name, known), known))
        .filter(|(similarity, _)| *similarity > least)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, known)| known)
}
