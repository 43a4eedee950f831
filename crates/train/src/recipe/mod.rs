//! Recipes: a TOML file that says everything about a run.
//!
//! ```toml
//! [model]
//! config = "../configs/tiny.toml"   # or the keys themselves: hidden_size, num_hidden_layers, …
//!
//! [data]
//! train = ["corpus.txt"]
//!
//! [train]
//! steps = 1000
//! ```
//!
//! is a whole recipe; [`Recipe`] lists the sections, their keys and defaults. [`Recipe::load`] reads one and
//! puts overrides (`optim.lr=2e-3`) over it. Unknown keys, wrong types, values out of range and values that
//! contradict each other are refused, all at once, each with its file, line and column, what was found and
//! what is expected. A resolved recipe has every default filled in and writes itself as a recipe again
//! ([`Recipe::to_toml`]).
//!
//! Paths in a recipe are looked for beside the recipe first, then from the working directory.

mod base;
mod choices;
mod convert;
mod distill;
mod dpo;
mod entries;
mod error;
mod hints;
mod keys;
mod kind;
mod lora;
mod optim;
mod overrides;
mod reader;
mod reference;
mod resolve;
pub(crate) mod resume;
pub(crate) mod samples;
mod sections;
mod sources;
#[cfg(test)]
mod tests;
mod upgrade;
mod validate;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::{ConfigError, ModelConfig};
use tritforge_support::counted;

pub use error::{Fault, Origin, RecipeError};
pub use reference::{json_schema, markdown};
pub use samples::{Loss, Samples};
pub use sections::{
    BlendOrder, BlendSchedule, Convert, Data, DataSource, Distill, Dpo, Ema, Engine, Export, Lora, Model,
    ModuleRate, OnFault, Optim, Quant, Run, Sample, SftLoss, SourceText, SplitKind, Tokenizer, TokenizerKind,
    Train, TrainEngine,
};

pub use upgrade::{ChangedLine, Upgrade, VERSION, upgrade};

pub(crate) use keys::{Choice, Keys, registry};
pub(crate) use kind::Range;
pub(crate) use sections::SHARD_TOKENS;

use crate::optimizer::OptimizerConfig;
use entries::{Entries, Value};
use reader::Reader;

/// Everything about a run.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Recipe {
    /// The version of recipes that it is written for; without it, the present one.
    pub version: i64,
    /// Name, output directory and seed of the run.
    pub run: Run,
    /// The architecture, with Hugging Face's names.
    pub model: Model,
    /// The quantization of the seven projections of each block.
    pub quant: Quant,
    /// A low-rank adapter on a frozen base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lora: Option<Lora>,
    /// How quantization is phased in when the base was trained without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub convert: Option<Convert>,
    /// A teacher whose output distributions the model learns from, in addition to the text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distill: Option<Distill>,
    /// Direct preference optimization: pairs of answers of which the model learns to prefer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dpo: Option<Dpo>,
    /// Where the tokenizer comes from.
    pub tokenizer: Tokenizer,
    /// The text for training and evaluation.
    pub data: Data,
    /// The optimizer and its learning rate.
    pub optim: Optim,
    /// The training loop: length, evaluations, checkpoints, and what to do when something goes wrong.
    pub train: Train,
    /// An exponential moving average of the weights, kept if `decay` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ema: Option<Ema>,
    /// The text generated at every evaluation.
    pub sample: Sample,
    /// The GGUF file to export the trained model to.
    pub export: Export,
}

impl Recipe {
    /// Reads a recipe and puts overrides, each `section.key=value`, over it. The value is TOML; a string
    /// needs no quotes.
    ///
    /// # Errors
    /// If a file cannot be read, or anything in the recipe or the overrides is wrong: everything that is.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self, RecipeError> {
        Self::from_toml(path, &read(path)?, overrides)
    }

    /// Like [`Self::load`] for a text at hand; `path` names it in messages, and paths are looked for beside
    /// it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_toml(path: &Path, text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let mut entries = entries::parse_recipe(path, text).map_err(RecipeError::Invalid)?;
        let mut faults = Vec::new();
        upgrade::take_version(&mut entries, &mut faults);
        overrides::apply(&mut entries, overrides, &mut faults);
        let base = base::include(path, &mut entries, &mut faults);
        include_config(path, &mut entries, &mut faults)?;
        let mut reader = Reader::new(path, entries, faults);
        let mut recipe = resolve::resolve(&mut reader, path);
        recipe.model.base_config = base;
        reader.finish();
        // A value that is wrong by itself would only contradict others once more.
        if reader.faults.is_empty() {
            validate::check(&mut reader, &recipe);
        }
        if reader.faults.is_empty() { Ok(recipe) } else { Err(RecipeError::Invalid(reader.faults)) }
    }

    /// The recipe with all defaults filled in, as TOML that [`Self::load`] reads back to the same recipe.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        Ok(toml::to_string(self)?)
    }

    /// The model's configuration, with the vocabulary of the tokenizer.
    ///
    /// # Errors
    /// If the recipe asks for a vocabulary of another size.
    pub fn model_config(&self, vocab_size: usize) -> Result<ModelConfig, ConfigError> {
        if let Some(base) = &self.model.base_config {
            // A base may have rows beyond its tokenizer's vocabulary.
            if vocab_size > base.vocab_size {
                return Err(ConfigError::Value {
                    key: "tokenizer",
                    found: counted(vocab_size, "token").to_string(),
                    expected: format!(
                        "at most {}, the number of rows of the base's embedding",
                        counted(base.vocab_size, "token")
                    ),
                });
            }
            let config = self.model.config(self.quant, base.vocab_size);
            config.validate()?;
            return Ok(config);
        }
        if let Some(rows) = self.model.vocab_size.filter(|rows| *rows != vocab_size) {
            return Err(ConfigError::Value {
                key: "model.vocab_size",
                found: rows.to_string(),
                expected: format!(
                    "the tokenizer has {vocab_size}; leave model.vocab_size out of the recipe",
                    vocab_size = counted(vocab_size, "token")
                ),
            });
        }
        let config = self.model.config(self.quant, vocab_size);
        config.validate()?;
        Ok(config)
    }

    /// The optimizer's settings that stay the same for the whole run.
    pub fn optimizer_config(&self) -> OptimizerConfig {
        let optim = &self.optim;
        OptimizerConfig {
            rule: optim.rule,
            state: optim.state_dtype,
            master: optim.master_dtype,
            seed: self.run.seed,
        }
    }

    /// Rows of a micro-batch: one for each sample, two for each pair of answers.
    pub fn rows(&self) -> usize {
        self.train.batch_size * if self.dpo.is_some() { 2 } else { 1 }
    }

    /// The size of the vocabulary as far as it can be told before the text is read: the size asked for, or
    /// that of the tokenizer's file. Characters are counted as 256.
    pub fn expected_vocab_size(&self) -> usize {
        let of_file = |path: &Path| tritforge_text::Tokenizer::from_file(path).ok().map(|t| t.vocab_size());
        let size = match self.tokenizer.kind {
            TokenizerKind::Bpe => Some(self.tokenizer.vocab_size),
            TokenizerKind::Characters => None,
            TokenizerKind::File => self.tokenizer.path.as_deref().and_then(of_file),
            TokenizerKind::Base => self.model.base_config.as_ref().map(|base| base.vocab_size),
        };
        self.model.vocab_size.or(size).unwrap_or(256)
    }
}

impl Model {
    /// The configuration with a vocabulary of `vocab_size`, unchecked.
    fn config(&self, quant: Quant, vocab_size: usize) -> ModelConfig {
        ModelConfig {
            vocab_size,
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: self.num_attention_heads,
            num_key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            hidden_act: self.hidden_act,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps as f32,
            rope_theta: self.rope_theta as f32,
            tie_word_embeddings: self.tie_word_embeddings,
            use_sub_norm: self.use_sub_norm,
            weights: quant.weights,
            quantizer: quant.scale,
            granularity: quant.granularity,
            activations: quant.activations,
            initializer_range: self.initializer_range as f32,
            // Biases, norms of queries and keys, scaled RoPE: a base may have them, new models do not.
            ..self.base_config.clone().unwrap_or_default()
        }
    }
}

fn read(path: &Path) -> Result<String, RecipeError> {
    std::fs::read_to_string(path).map_err(|source| RecipeError::Io { path: path.to_path_buf(), source })
}

/// Puts the keys of the file that `model.config` names under those of `[model]`.
fn include_config(path: &Path, entries: &mut Entries, faults: &mut Vec<Fault>) -> Result<(), RecipeError> {
    let Some(model) = entries.sections.get_mut("model") else { return Ok(()) };
    let Some(entry) = model.remove("config") else { return Ok(()) };
    let Value::Text(name) = &entry.value else {
        let (written, found) = (&entry.written, entry.value.type_name());
        let message = format!("model.config = {written}: found {found}, expected the path of a TOML file");
        faults.push(Fault { origin: entry.value_at, message });
        return Ok(());
    };
    let file = reader::resolve(path, name, &entry.value_at);
    if !file.is_file() {
        let beside = path.parent().unwrap_or(Path::new("")).join(name);
        let message =
            format!("model.config: no file {} and no {name} in the working directory", beside.display());
        faults.push(Fault { origin: entry.value_at, message });
        return Ok(());
    }
    match entries::parse_config(&file, &read(&file)?) {
        Ok(keys) => keys.into_iter().for_each(|(key, entry)| {
            model.entry(key).or_insert(entry);
        }),
        Err(found) => faults.extend(found),
    }
    Ok(())
}
