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
//!
//! The language is `tritforge-recipe`'s. Optimizers, schedules, objectives and the conversion read their keys in the files
//! that implement them.

mod base;
mod codes;
mod data;
mod dead_zone;
mod export;
mod lora;
mod optim;
mod optim_groups;
mod optim_texts;
mod quant;
mod reference;
mod refused;
mod resolve;
pub(crate) mod resume;
pub(crate) mod samples;
mod sources;
#[cfg(test)]
mod tests;
mod validate;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::{ConfigError, ModelConfig};
use tritforge_recipe::{include_config, parse, read_text};
use tritforge_support::counted;

pub use data::{Data, DataSource, SourceText, SplitKind};
pub use export::Export;
pub use optim::Optim;
pub use optim_groups::{GroupSummary, ParamGroup};
pub use quant::{CodeChoice, Quant};
pub use reference::{json_schema, markdown};
pub use samples::{Loss, Samples};
pub use tritforge_recipe::{
    ChangedLine, Ema, Fault, Log, Lora, Model, ModuleRate, OnFault, Origin, RecipeError, Run, Sample,
    Tokenizer, TokenizerKind, Train, TrainEngine, Upgrade, VERSION, upgrade,
};

pub use crate::convert::{AtTransition, BlendOrder, BlendSchedule, Convert};
pub use crate::objective::{
    CrossEntropy, Distill, Dpo, DpoLoss, Engine, Kto, KtoLoss, Objective, Orpo, SftLoss, Simpo, TargetLoss,
};

pub(crate) use data::SHARD_TOKENS;
pub(crate) use tritforge_recipe::{Keys, Range, Reader, registry};

use crate::optimizer::OptimizerConfig;

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
    /// What is minimized: the section of an objective, or the plain cross-entropy without any.
    #[serde(flatten, skip_serializing_if = "Objective::is_default")]
    pub objective: Objective,
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
    /// An MLflow server that the run is logged to, if `mlflow` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<Log>,
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
        Self::from_toml(path, &read_text(path)?, overrides)
    }

    /// Like [`Self::load`] for a text at hand; `path` names it in messages, and paths are looked for beside
    /// it.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_toml(path: &Path, text: &str, overrides: &[String]) -> Result<Self, RecipeError> {
        let (mut entries, mut faults) = parse(path, text, overrides)?;
        let base = base::include(path, &mut entries, &mut faults);
        include_config(path, &mut entries, &mut faults)?;
        let mut reader = Reader::new(path, entries, faults, is_there);
        let mut recipe = resolve::resolve(&mut reader, path);
        recipe.model.base_config = base;
        reader.finish();
        // A value that is wrong by itself would only contradict others once more.
        if reader.faults().is_empty() {
            validate::check(&mut reader, &recipe);
        }
        let faults = reader.into_faults();
        if faults.is_empty() { Ok(recipe) } else { Err(RecipeError::Invalid(faults)) }
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
            let config = self.quant.config(&self.model, base.vocab_size);
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
        let config = self.quant.config(&self.model, vocab_size);
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

    /// The seed that chooses what is held out.
    pub fn split_seed(&self) -> u64 {
        self.data.split_seed.unwrap_or(self.run.seed)
    }

    /// The seed of the order of the training samples.
    pub fn order_seed(&self) -> u64 {
        self.data.order_seed.unwrap_or(self.run.seed)
    }

    /// Rows of a micro-batch: one for each sample, two for each pair of answers.
    pub fn rows(&self) -> usize {
        self.train.batch_size * self.objective.chosen().data().rows()
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

/// Whether there is something at a path, or a pattern matches something.
fn is_there(path: &Path) -> bool {
    path.exists() || tritforge_data::is_pattern(path) && tritforge_data::matches(path).is_ok()
}
