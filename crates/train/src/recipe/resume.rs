//! Which keys of a recipe a run may go on with when they have changed, and which it may not.

use std::collections::BTreeSet;

use toml::{Table, Value};

use super::Recipe;
use crate::objective::Objective;

/// What another value of a key means for a run that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnResume {
    /// It takes effect from the checkpoint on.
    Free,
    /// It is refused: the checkpoint's weights, its optimizer's state, its position in the data or the losses
    /// that it remembers would mean something else.
    Fixed,
    /// What it leads to is compared and not the key: files by their content, settings by the tokens that come
    /// of them.
    Content,
}

use OnResume::{Content, Fixed, Free};

/// Every key of every section, but for those that only some choices of another key have, and for the sections of
/// objectives, which say it themselves.
const KEYS: [(&str, OnResume, &[&str]); 30] = [
    ("run", Free, &["name", "out"]),
    ("run", Fixed, &["seed"]),
    ("model", Content, &["config", "base", "vocab_size"]),
    (
        "model",
        Fixed,
        &[
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
            "num_key_value_heads",
            "head_dim",
            "hidden_act",
            "max_position_embeddings",
            "rms_norm_eps",
            "rope_theta",
            "tie_word_embeddings",
            "norm",
            "use_sub_norm",
            "use_qk_norm",
            "initializer_range",
        ],
    ),
    (
        "quant",
        Fixed,
        &[
            "weights",
            "scale",
            "granularity",
            "activations",
            "rotation",
            "activation_top_k",
            "dead_zone_bias",
            "sparsity",
            "threshold",
            "embedding",
            "head",
        ],
    ),
    ("quant", Free, &["backward", "ste", "codes", "temperature", "hessian_alpha", "residual", "pull"]),
    ("lora", Fixed, &["mode", "rank", "alpha", "use_rslora", "threshold", "target_modules"]),
    ("lora", Free, &["dropout", "lr_ratio_b", "learning_rates"]),
    ("convert", Free, &["schedule", "start", "steps", "order"]),
    ("convert", Free, &["input_schedule", "input_start", "input_steps", "optimizer"]),
    ("tokenizer", Content, &["kind", "vocab_size", "path"]),
    ("data", Fixed, &["split_seed", "order_seed"]),
    ("data", Fixed, &["held_out", "split", "seq_len", "packing", "shard_tokens", "loss", "truncation"]),
    ("data", Content, &["source", "train", "column", "sources"]),
    (
        "data",
        Content,
        &[
            "records",
            "template",
            "chat_template_kwargs",
            "on_bad_sample",
            "max_samples",
            "keep_empty",
            "drop_duplicates",
            "columns",
        ],
    ),
    ("optim", Fixed, &["kind", "state_dtype", "master_dtype"]),
    // The keys that only some optimizers or schedules have are free as well.
    ("optim", Free, &["lr", "weight_decay", "grad_clip", "warmup_steps"]),
    ("optim", Free, &["schedule", "min_lr_ratio", "weight_decay_until"]),
    ("optim", Free, &["groups"]),
    ("train", Fixed, &["engine"]),
    (
        "train",
        Free,
        &["steps", "batch_size", "gradient_accumulation", "gradient_checkpointing", "neftune_noise_alpha"],
    ),
    ("train", Free, &["eval_every", "save_every", "log_every", "keep_last", "keep_best"]),
    // Losses of other text cannot be compared with the lowest one so far.
    ("train", Fixed, &["eval_tokens"]),
    ("train", Free, &["patience", "min_delta"]),
    ("train", Free, &["on_nonfinite", "spike_threshold", "on_spike"]),
    ("ema", Free, &["decay", "deploy"]),
    ("sample", Free, &["prompt", "tokens", "temperature", "top_k"]),
    ("sample", Free, &["top_p"]),
    ("log", Free, &["mlflow", "mlflow_experiment"]),
    ("export", Free, &["format", "embeddings"]),
];

/// A key with another value than in the recipe that a run began with.
#[derive(Debug, Clone, PartialEq)]
struct Changed {
    section: String,
    /// None of the section itself, which only one of them has.
    key: Option<String>,
    class: OnResume,
    before: Option<Value>,
    now: Option<Value>,
}

impl std::fmt::Display for Changed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { section, key, before, now, .. } = self;
        let Some(key) = key else {
            return match now {
                Some(_) => write!(f, "[{section}] is given, but the run was started without it"),
                None => write!(f, "[{section}] is not given, but the run was started with it"),
            };
        };
        let text =
            |value: &Option<Value>| value.as_ref().map_or("not given".to_string(), ToString::to_string);
        write!(f, "{section}.{key} is {}, but the run was started with {}", text(now), text(before))
    }
}

/// How a resolved recipe differs from the one that a checkpoint keeps.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Changes(Vec<Changed>);

impl Changes {
    /// Compares the resolved recipe `before`, as TOML, with another. Keys that are not written have their
    /// defaults.
    ///
    /// # Errors
    /// If `before` is not TOML; with what is wrong.
    pub(crate) fn between(before: &str, now: &Recipe) -> Result<Self, String> {
        let text = now.to_toml().map_err(|e| e.to_string())?;
        let objective = now.objective.chosen();
        let [before, now] = [before, &text].map(|text| text.parse::<Table>().map_err(|e| e.to_string()));
        let (before, now) = (before?, now?);
        let none = Table::new();
        let section = |recipe: &'_ Table, name: &str| match recipe.get(name) {
            Some(Value::Table(section)) => section.clone(),
            _ => none.clone(),
        };
        let mut changes = Vec::new();
        for (name, class, keys) in KEYS {
            let (before, now) = (section(&before, name), section(&now, name));
            for key in keys.iter().filter(|key| before.get(**key) != now.get(**key)) {
                let (before, now) = (before.get(*key).cloned(), now.get(*key).cloned());
                let (section, key) = (name.to_string(), Some(key.to_string()));
                changes.push(Changed { section, key, class, before, now });
            }
        }
        let default = Objective::default();
        let empty = Value::Table(Table::new());
        for name in Objective::sections() {
            // That of the default objective is written only if it has other values than the defaults.
            let instead = (name == default.name()).then_some(&empty);
            let of = |recipe: &'_ Table| recipe.get(name).or(instead).cloned();
            let (Some(before), Some(now)) = (of(&before), of(&now)) else {
                // Another objective is another run.
                let (before, now) = (before.get(name).cloned(), now.get(name).cloned());
                if before.is_some() || now.is_some() {
                    changes.push(Changed { section: name.to_string(), key: None, class: Fixed, before, now });
                }
                continue;
            };
            let [before, now] = [&before, &now].map(|value| value.as_table().unwrap_or(&none));
            let keys: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
            for key in keys.into_iter().filter(|key| before.get(*key) != now.get(*key)) {
                let (class, section) = (objective.on_resume(key), name.to_string());
                let (before, now) = (before.get(key).cloned(), now.get(key).cloned());
                changes.push(Changed { section, key: Some(key.clone()), class, before, now });
            }
        }
        Ok(Self(changes))
    }

    /// What forbids to go on, in a sentence.
    pub(crate) fn refused(&self) -> Option<String> {
        let refused: Vec<String> = self.of(Fixed).map(ToString::to_string).collect();
        (!refused.is_empty()).then(|| {
            format!(
                "{}: restore the original values, or start a new run with another run.out",
                refused.join("; ")
            )
        })
    }

    /// The keys of some sections that may have led to other content.
    pub(crate) fn suspects(&self, sections: &[&str]) -> String {
        let found = self.of(Content).filter(|changed| sections.contains(&changed.section.as_str()));
        let found: Vec<String> = found.map(ToString::to_string).collect();
        if found.is_empty() { String::new() } else { format!(" ({})", found.join("; ")) }
    }

    /// Whether a key has changed.
    pub(crate) fn has(&self, section: &str, key: &str) -> bool {
        self.0.iter().any(|changed| changed.section == section && changed.key.as_deref() == Some(key))
    }

    fn of(&self, wanted: OnResume) -> impl Iterator<Item = &Changed> {
        self.0.iter().filter(move |changed| changed.class == wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::reference::asked;
    use super::*;

    /// Every key that a recipe may have, as the reader asks for them.
    fn known() -> Vec<(&'static str, &'static str)> {
        let reader = asked();
        let owned: Vec<_> = reader.owned().iter().map(|owned| (owned.section, owned.key)).collect();
        let known = reader.keys().iter().map(|key| (key.section, key.name));
        let elsewhere = |section| Objective::sections().any(|own| own == section);
        known.filter(|key| !owned.contains(key) && !elsewhere(key.0)).collect()
    }

    #[test]
    fn every_key_is_classified_once_and_no_other() {
        let known = known();
        let classified: Vec<(&str, &str)> =
            KEYS.iter().flat_map(|(section, _, keys)| keys.iter().map(|key| (*section, *key))).collect();
        for (index, key) in classified.iter().enumerate() {
            assert!(known.contains(key), "{key:?} is no key of a recipe");
            assert!(!classified[..index].contains(key), "{key:?} is classified twice");
        }
        for key in known {
            assert!(
                classified.contains(&key),
                "{key:?}: say in KEYS what changing it means for a resumed run"
            );
        }
    }

    const RECIPE: &str = "[model]\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\n[data]\ntrain = \"resume.rs\"\nseq_len = 16\n[train]\nsteps = 3\n";

    fn recipe(set: &[String]) -> Recipe {
        Recipe::from_toml(Path::new("src/recipe/r.toml"), RECIPE, set).unwrap()
    }

    /// Every class as it shows, by another value of keys of each.
    #[test]
    fn what_is_fixed_is_refused_by_name_and_what_is_free_is_not() {
        let before = recipe(&[]).to_toml().unwrap();
        for (set, refused) in [
            ("data.seq_len=32", true),
            ("data.packing=masked", true),
            ("data.held_out=0.3", true),
            ("data.split=document", true),
            ("data.split_seed=7", true),
            ("data.order_seed=7", true),
            ("data.shard_tokens=999", true),
            ("run.seed=7", true),
            ("model.num_hidden_layers=2", true),
            ("quant.activations=none", true),
            ("optim.kind=lion", true),
            ("optim.state_dtype=bf16", true),
            ("train.eval_tokens=100", true),
            ("train.steps=9", false),
            ("train.batch_size=3", false),
            ("optim.lr=0.5", false),
            ("optim.schedule=wsd", false),
            ("ema.decay=0.9", false),
            ("sample.tokens=3", false),
            ("log.mlflow=http://127.0.0.1:5000", false),
            ("run.name=other", false),
            ("tokenizer.vocab_size=300", false),
        ] {
            let changes = Changes::between(&before, &recipe(&[set.to_string()])).unwrap();
            let key = set.split('=').next().unwrap();
            match changes.refused() {
                Some(message) => assert!(refused && message.contains(key), "{set}: {message}"),
                None => assert!(!refused, "{set} is not refused"),
            }
        }
        assert_eq!(Changes::between(&before, &recipe(&[])).unwrap(), Changes::default());
        let longer = Changes::between(&before, &recipe(&["data.seq_len=32".to_string()])).unwrap();
        let message = longer.refused().unwrap();
        assert!(message.contains("data.seq_len is 32, but the run was started with 16"), "{message}");
        let other = Changes::between(&before, &recipe(&["tokenizer.vocab_size=300".to_string()])).unwrap();
        assert!(other.suspects(&["data", "tokenizer"]).contains("tokenizer.vocab_size is 300"));
    }
}
