//! `diff`: the differences between two models, each in any format.
//!
//! Ternary tensors are compared by what is multiplied, codes and scale, whichever way they are packed; latent
//! weights are quantized for that, as training does, and compared too where both models have them. All other
//! tensors are compared by their numbers, so that an embedding stored as F16 differs from that of training by
//! its rounding.

use serde::Serialize;
use serde_json::Value;
use tritforge_config::{ModelConfig, WeightQuant};
use tritforge_ternary::{Granularity, NotFinite, TernaryTensor, check_finite};
use tritforge_text::Tokenizer;

use crate::ExportError;
use crate::model::{LoadedModel, ModelFormat};
use crate::plan::TensorPlan;
use crate::tensor_data::TensorData;

/// What two models have in common and what not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffReport {
    /// The models.
    pub models: [DiffSide; 2],
    /// Keys of the configuration with different values.
    pub config: Vec<ConfigDifference>,
    /// Tensors of the first model only.
    pub only_first: Vec<String>,
    /// Tensors of the second model only.
    pub only_second: Vec<String>,
    /// The tensors that both have, by their names in Hugging Face's layout.
    pub tensors: Vec<TensorDifference>,
    /// The tokenizers.
    pub tokenizer: TokenizerDifference,
    /// Whether the chat templates are the same; two models without one have the same.
    pub chat_template_same: bool,
}

/// One of the two models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DiffSide {
    /// Where it is.
    pub path: String,
    /// What it is.
    pub form: ModelFormat,
}

/// A key of the configuration, named as Hugging Face's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigDifference {
    /// The key.
    pub key: String,
    /// Its values; null where a model does not have it.
    pub values: [Value; 2],
}

/// A tensor that both models have.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDifference {
    /// Its name in Hugging Face's layout.
    pub name: String,
    /// The types in which it is stored.
    pub types: [String; 2],
    /// Whether nothing differs.
    pub same: bool,
    /// What was compared.
    #[serde(flatten)]
    pub content: Compared,
}

/// How a tensor was compared, and what was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "compared", rename_all = "kebab-case")]
pub enum Compared {
    /// The shapes differ: the contents were not compared.
    Shapes {
        /// The shapes, outermost dimension first.
        shapes: [Vec<usize>; 2],
    },
    /// By codes and scale.
    Ternary {
        /// Weights.
        weights: usize,
        /// Codes that differ.
        flipped: usize,
        /// The share of zeros.
        zero_fraction: [f64; 2],
        /// What the codes are multiplied by.
        scale: [f32; 2],
        /// The second scale over the first.
        scale_ratio: f64,
        /// The largest difference of a latent weight, where both models have them.
        latent_max_difference: Option<f32>,
    },
    /// Not at all: one has NaN or infinity.
    NotFinite {
        /// Where each of them has it first: `row 3, column 1 is NaN`.
        first: [Option<String>; 2],
    },
    /// By numbers; where one model is ternary, by code · scale.
    Numbers {
        /// Numbers.
        numbers: usize,
        /// Those that differ.
        different: usize,
        /// The largest difference.
        max_difference: f32,
        /// That over the largest magnitude in the first model.
        relative: f32,
    },
}

/// What tokenizers have in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerDifference {
    /// The same ids for every text.
    Same,
    /// Neither model has one.
    Absent,
    /// Only one of the models has one.
    OnlyOne,
    /// They differ in these GGUF keys, or in `tokenizer.json` where GGUF cannot describe one of them.
    Different(Vec<String>),
}

impl DiffReport {
    /// Whether the models are the same in everything that was compared, numbers up to a relative difference
    /// of `tolerance`.
    pub fn same(&self, tolerance: f32) -> bool {
        self.config.is_empty()
            && self.only_first.is_empty()
            && self.only_second.is_empty()
            && self.tensors.iter().all(|tensor| tensor.within(tolerance))
            && matches!(self.tokenizer, TokenizerDifference::Same | TokenizerDifference::Absent)
            && self.chat_template_same
    }
}

impl TensorDifference {
    /// Whether nothing differs, or only numbers and by no more than `tolerance` of the largest.
    pub fn within(&self, tolerance: f32) -> bool {
        let close = matches!(self.content, Compared::Numbers { relative, .. } if relative <= tolerance);
        self.same || close
    }
}

/// Compares two models, tensor by tensor; `progress` sees the name of each. Peak memory is that of the
/// largest tensor of either.
///
/// # Errors
/// If a model is damaged: lacks a tensor that its configuration describes, or has one that cannot be read.
pub fn diff(models: [&LoadedModel; 2], mut progress: impl FnMut(&str)) -> Result<DiffReport, ExportError> {
    let [first, second] = models;
    let (mut tensors, mut only_first) = (Vec::new(), Vec::new());
    for item in first.items() {
        match second.items().iter().find(|other| other.source == item.source) {
            Some(other) => {
                progress(&item.source);
                tensors.push(compare(models, [item, other])?);
            }
            None => only_first.push(item.source.clone()),
        }
    }
    let missing = |item: &&TensorPlan| !first.items().iter().any(|other| other.source == item.source);
    let only_second = second.items().iter().filter(missing).map(|item| item.source.clone()).collect();
    let tokenizers = [first.tokenizer()?, second.tokenizer()?];
    let template = |tokenizer: &Option<Tokenizer>| {
        let config = tokenizer.as_ref().map(Tokenizer::to_config_json).unwrap_or_default();
        let json: Value = serde_json::from_str(&config).unwrap_or_default();
        json["chat_template"].as_str().map(str::to_string)
    };
    Ok(DiffReport {
        models: models.map(|m| DiffSide { path: m.path().display().to_string(), form: m.format() }),
        config: config_differences([first.config(), second.config()]),
        only_first,
        only_second,
        tensors,
        chat_template_same: template(&tokenizers[0]) == template(&tokenizers[1]),
        tokenizer: tokenizer_difference(models, &tokenizers)?,
    })
}

/// Keys whose values differ, but for those that change no result: where latent weights stand for codes, the bias of a
/// dead zone for an ordinary one, and how weights were first drawn.
fn config_differences(configs: [&ModelConfig; 2]) -> Vec<ConfigDifference> {
    let [mut first, mut second] = configs.map(ModelConfig::folded);
    second.initializer_range = first.initializer_range;
    if first.weights != WeightQuant::None && second.weights != WeightQuant::None {
        second.weights = first.weights;
    }
    // A rule for the frequencies, and the divisors that come of it.
    if first.rope_factors().is_some() && first.rope_factors() == second.rope_factors() {
        (first.rope_scaling, second.rope_scaling) = (None, None);
    }
    let [first, second] = [first, second].map(|config| serde_json::to_value(&config).unwrap_or_default());
    let keys =
        |json: &Value| json.as_object().into_iter().flat_map(|o| o.keys().cloned()).collect::<Vec<_>>();
    let mut all = keys(&first);
    all.extend(keys(&second).into_iter().filter(|key| first.get(key).is_none()));
    let differences = all.into_iter().map(|key| {
        let values = [&first, &second].map(|json| json.get(&key).cloned().unwrap_or_default());
        ConfigDifference { key, values }
    });
    differences.filter(|difference| difference.values[0] != difference.values[1]).collect()
}

fn compare(models: [&LoadedModel; 2], items: [&TensorPlan; 2]) -> Result<TensorDifference, ExportError> {
    let types = [models[0].storage(items[0])?.0, models[1].storage(items[1])?.0];
    let name = items[0].source.clone();
    if items[0].shape != items[1].shape {
        let content = Compared::Shapes { shapes: items.map(|item| item.shape.clone()) };
        return Ok(TensorDifference { name, types, same: false, content });
    }
    let stored = [models[0].stored(items[0])?, models[1].stored(items[1])?];
    let broken = |numbers: &TensorData<'_>, item: &TensorPlan| match numbers {
        TensorData::Dense(values) => check_finite(values, item.matrix()[1]).err().map(|found| place(&found)),
        TensorData::Ternary(_) => None,
    };
    let first = [broken(&stored[0], items[0]), broken(&stored[1], items[1])];
    if first.iter().any(Option::is_some) {
        return Ok(TensorDifference { name, types, same: false, content: Compared::NotFinite { first } });
    }
    let quantized = [models[0].ternary(items[0], &stored[0])?, models[1].ternary(items[1], &stored[1])?];
    let (same, content) = match quantized {
        [Some(first), Some(second)] => {
            let latent = match &stored {
                [TensorData::Dense(a), TensorData::Dense(b)] => Some(numbers(a, b).max_difference),
                _ => None,
            };
            compare_ternary(&first, &second, latent)
        }
        _ => {
            let [first, second] = stored.map(|stored| match stored {
                TensorData::Dense(values) => values,
                TensorData::Ternary(tensor) => tensor.values().into(),
            });
            let found = numbers(&first, &second);
            let content = Compared::Numbers {
                numbers: first.len(),
                different: found.different,
                max_difference: found.max_difference,
                relative: found.relative(),
            };
            (found.different == 0, content)
        }
    };
    models[0].release(items[0]);
    models[1].release(items[1]);
    Ok(TensorDifference { name, types, same, content })
}

/// Where a number is that is none.
fn place(found: &NotFinite) -> String {
    let text = found.to_string();
    text.split(": expected").next().unwrap_or(&text).to_string()
}

/// Whether all weights have the same scale, however many share one. Products of groups round in another place than
/// those of rows, so the granularity counts where it is that of groups.
fn same_scales(first: &TernaryTensor, second: &TernaryTensor) -> bool {
    let shape = [first.rows(), first.cols()];
    let grouped = |tensor: &TernaryTensor| match tensor.scales().granularity() {
        Granularity::Group(size) => Some(size),
        Granularity::Tensor | Granularity::Row => None,
    };
    let rows = |tensor: &TernaryTensor| tensor.scales().refined(Granularity::Row, shape).ok();
    grouped(first) == grouped(second)
        && match grouped(first) {
            Some(_) => first.scales() == second.scales(),
            None => rows(first) == rows(second),
        }
}

fn compare_ternary(
    first: &TernaryTensor,
    second: &TernaryTensor,
    latent_max_difference: Option<f32>,
) -> (bool, Compared) {
    let flipped = first.codes().iter().zip(second.codes()).filter(|(a, b)| a != b).count();
    let scale = [first, second].map(|tensor| tensor.scales().mean() as f32);
    let same = flipped == 0 && same_scales(first, second) && latent_max_difference.unwrap_or(0.0) == 0.0;
    let content = Compared::Ternary {
        weights: first.codes().len(),
        flipped,
        zero_fraction: [first.zero_fraction(), second.zero_fraction()],
        scale,
        scale_ratio: f64::from(scale[1]) / f64::from(scale[0]),
        latent_max_difference,
    };
    (same, content)
}

/// How far two lists of numbers are apart.
struct Distance {
    different: usize,
    max_difference: f32,
    largest: f32,
}

impl Distance {
    fn relative(&self) -> f32 {
        if self.max_difference == 0.0 { 0.0 } else { self.max_difference / self.largest }
    }
}

fn numbers(first: &[f32], second: &[f32]) -> Distance {
    let mut found = Distance { different: 0, max_difference: 0.0, largest: 0.0 };
    for (a, b) in first.iter().zip(second) {
        found.largest = found.largest.max(a.abs());
        // The two zeros are the same. No number is NaN: `max` would drop it.
        if a != b {
            found.different += 1;
            found.max_difference = found.max_difference.max((a - b).abs());
        }
    }
    found
}

fn tokenizer_difference(
    models: [&LoadedModel; 2],
    tokenizers: &[Option<Tokenizer>; 2],
) -> Result<TokenizerDifference, ExportError> {
    let (first, second) = match tokenizers {
        [None, None] => return Ok(TokenizerDifference::Absent),
        [Some(first), Some(second)] => (first, second),
        _ => return Ok(TokenizerDifference::OnlyOne),
    };
    let described =
        [first.to_gguf(models[0].config().vocab_size), second.to_gguf(models[1].config().vocab_size)];
    let [Ok(first_keys), Ok(second_keys)] = described else {
        let same = first.to_json()? == second.to_json()? && first.to_config_json() == second.to_config_json();
        return Ok(match same {
            true => TokenizerDifference::Same,
            false => TokenizerDifference::Different(vec!["tokenizer.json".to_string()]),
        });
    };
    let mut different = Vec::new();
    for (keys, others) in [(&first_keys, &second_keys), (&second_keys, &first_keys)] {
        for (key, value) in keys {
            let other = others.iter().find(|(other, _)| other == key).map(|(_, value)| value);
            // The chat template has a line of its own.
            if key != "tokenizer.chat_template" && other != Some(value) && !different.contains(key) {
                different.push(key.clone());
            }
        }
    }
    Ok(if different.is_empty() {
        TokenizerDifference::Same
    } else {
        TokenizerDifference::Different(different)
    })
}
