//! `[[optim.groups]]`: parameters, by a pattern over their names, that have another learning rate or weight decay than the rest, or
//! are not trained at all.

use std::fmt;

use fancy_regex::Regex;
use schemars::JsonSchema;
use serde::Serialize;
use tritforge_config::{LoraConfig, ModelConfig, Projection};
use tritforge_model::Decoder;
use tritforge_recipe::{Kind, Range, Reader, Value};
use tritforge_support::counted;

use super::Recipe;
use super::optim::SECTION;
use crate::optimizer::{ParameterStep, Rule};

/// `[[optim.groups]]`: parameters with another learning rate or weight decay, or frozen.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ParamGroup {
    /// A regular expression that is found in the names of the group's parameters, which are those of Hugging Face's checkpoints:
    /// `"embed_tokens"`, `"norm"`, `'layers\.[0-3]\.'`, `"[qkv]_proj"`. It must find at least one.
    pub pattern: String,
    /// Their peak learning rate instead of `optim.lr`, with the same schedule; of an adapter also instead of the rates of `[lora]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f64>,
    /// Their decoupled weight decay instead of `optim.weight_decay`; of embeddings and norms too, which do not decay otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Whether they stay as they are, without gradients and without memory for them; by default false.
    #[serde(skip_serializing_if = "is_false")]
    pub freeze: bool,
}

/// What a group comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupSummary {
    /// Its settings.
    pub group: ParamGroup,
    /// Its tensors.
    pub tensors: usize,
    /// Its numbers.
    pub parameters: usize,
}

/// The key's name.
const GROUPS: &str = "groups";
/// Blocks of a model whose names are searched: more than any has, few enough to be searched in a second.
const MOST_BLOCKS: usize = 1 << 14;
/// What a learning rate may be.
const RATES: Range = Range::above(0.0).at_most(10.0);
/// What a weight decay may be.
const DECAYS: Range = Range::at_least(0.0);

impl ParamGroup {
    /// Reads the tables.
    pub(super) fn read(r: &mut Reader) -> Vec<Self> {
        let keys = [
            ("pattern", Kind::Text),
            ("lr", Kind::Number(RATES)),
            ("weight_decay", Kind::Number(DECAYS)),
            ("freeze", Kind::Flag),
        ];
        let mut groups = Vec::new();
        for (origin, table) in r.tables(SECTION, GROUPS, &keys).unwrap_or_default() {
            let mut group = Self { pattern: String::new(), lr: None, weight_decay: None, freeze: false };
            for (key, entry) in &table {
                let fault = match (key.as_str(), &entry.value) {
                    ("pattern", Value::Text(pattern)) => {
                        group.pattern.clone_from(pattern);
                        Regex::new(pattern)
                            .err()
                            .map(|error| format!("expected a regular expression: {error}"))
                    }
                    ("pattern", _) => Some("expected a regular expression as a string".to_string()),
                    ("lr", value) => {
                        group.lr = number(value).filter(|lr| RATES.holds(*lr));
                        group.lr.is_none().then(|| format!("expected a number {RATES}"))
                    }
                    ("weight_decay", value) => {
                        group.weight_decay = number(value).filter(|decay| DECAYS.holds(*decay));
                        group.weight_decay.is_none().then(|| format!("expected a number {DECAYS}"))
                    }
                    ("freeze", Value::Flag(freeze)) => {
                        group.freeze = *freeze;
                        None
                    }
                    ("freeze", _) => Some("expected true or false".to_string()),
                    ("learning_rate", _) => Some("unknown key; did you mean lr?".to_string()),
                    _ => Some("unknown key; a group has pattern, lr, weight_decay and freeze".to_string()),
                };
                if let Some(fault) = fault {
                    r.fault_at(
                        entry.value_at.clone(),
                        format!("optim.groups.{key} = {}: {fault}", entry.written),
                    );
                }
            }
            if !table.contains_key("pattern") {
                let message = "optim.groups.pattern is missing: expected a regular expression that parameters' names contain";
                r.fault_at(origin, message);
            }
            groups.push(group);
        }
        groups
    }
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(i) => Some(*i as f64),
        Value::Float(f) => Some(*f),
        _ => None,
    }
}

impl Recipe {
    /// Name and shape of every parameter of a run with a model of this configuration: all of the model's, or the adapter's.
    pub(crate) fn parameter_shapes<'a>(
        &'a self,
        config: &'a ModelConfig,
    ) -> Box<dyn Iterator<Item = (String, Vec<usize>)> + 'a> {
        let Some(lora) = &self.lora else { return Box::new(config.parameter_shapes()) };
        let of_projection = |layer: usize, projection: Projection| {
            let [rows, columns] = config.projection_shape(projection);
            let [a, b] = LoraConfig::tensors(layer, projection);
            [(a, vec![lora.rank, columns]), (b, vec![rows, lora.rank])]
        };
        Box::new((0..config.num_hidden_layers).flat_map(move |layer| {
            lora.target_modules.iter().flat_map(move |projection| of_projection(layer, *projection))
        }))
    }

    /// Says which group a parameter belongs to, by its name: the first whose pattern finds it.
    fn grouping(&self) -> impl Fn(&str) -> Option<usize> {
        // A pattern that is none, or takes forever on a name, was refused when the recipe was read.
        let patterns: Vec<Option<Regex>> =
            self.optim.groups.iter().map(|g| Regex::new(&g.pattern).ok()).collect();
        move |name| {
            let finds = |pattern: &Option<Regex>| {
                pattern.as_ref().is_some_and(|pattern| pattern.is_match(name).unwrap_or(false))
            };
            patterns.iter().position(finds)
        }
    }

    /// Says whether a parameter is frozen, by its name.
    pub(crate) fn frozen(&self) -> impl Fn(&str) -> bool {
        let (group_of, groups) = (self.grouping(), &self.optim.groups);
        move |name| group_of(name).is_some_and(|group| groups[group].freeze)
    }

    /// Freezes what the recipe says in a model.
    pub(crate) fn freeze(&self, model: &mut Decoder) {
        model.freeze(self.frozen());
    }

    /// What of the optimizer's steps is another for each parameter of these names.
    pub(crate) fn parameter_steps<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<ParameterStep> {
        let (group_of, lr) = (self.grouping(), self.optim.lr);
        let step = |name: &str| {
            let group = group_of(name).map(|group| &self.optim.groups[group]);
            let usual = || self.lora.as_ref().map_or(1.0, |lora| lora.rate(name, lr));
            let lr_ratio = group.and_then(|group| group.lr).map_or_else(usual, |of_group| of_group / lr);
            ParameterStep { lr_ratio, weight_decay: group.and_then(|group| group.weight_decay) }
        };
        names.map(step).collect()
    }

    /// What each group comes to with a model of this configuration.
    pub(crate) fn group_summaries(&self, config: &ModelConfig) -> Vec<GroupSummary> {
        let groups = self.optim.groups.iter().cloned();
        let mut found: Vec<_> =
            groups.map(|group| GroupSummary { group, tensors: 0, parameters: 0 }).collect();
        if found.is_empty() {
            return found;
        }
        let group_of = self.grouping();
        for (name, dims) in self.parameter_shapes(config) {
            let Some(summary) = group_of(&name).map(|group| &mut found[group]) else { continue };
            summary.tensors += 1;
            summary.parameters += dims.iter().product::<usize>();
        }
        found
    }
}

/// Notes patterns that find no parameter, and what contradicts the groups.
pub(super) fn check(r: &mut Reader, recipe: &Recipe) {
    let groups = &recipe.optim.groups;
    if groups.is_empty() {
        return;
    }
    let config = recipe.quant.config(&recipe.model, recipe.model.vocab_size.unwrap_or(1));
    if config.validate().is_err() {
        // A fault of its own.
        return;
    }
    if config.num_hidden_layers > MOST_BLOCKS {
        let message = format!(
            "optim.groups: expected at most {MOST_BLOCKS} blocks with patterns over their names, found model.num_hidden_layers = {}",
            config.num_hidden_layers
        );
        return r.fault(SECTION, GROUPS, message);
    }
    let names = || recipe.parameter_shapes(&config).map(|(name, _)| name);
    for group in groups {
        let ParamGroup { pattern, lr, weight_decay, freeze } = group;
        let mut fault = |message: String| {
            r.fault(SECTION, GROUPS, format!("optim.groups: pattern '{pattern}': {message}"));
        };
        let Ok(regex) = Regex::new(pattern) else { continue };
        if let Some(error) = names().find_map(|name| regex.is_match(&name).err()) {
            fault(format!("it cannot be searched for: {error}"));
            continue;
        }
        if !names().any(|name| regex.is_match(&name).unwrap_or(false)) {
            let nearest = nearest(pattern, names()).join(", ");
            fault(format!("no parameter has it in its name; the nearest names are {nearest}"));
        }
        if *freeze && (lr.is_some() || weight_decay.is_some()) {
            fault("freeze = true contradicts lr and weight_decay: what is frozen has neither".to_string());
        }
        if lr.is_none() && weight_decay.is_none() && !freeze {
            fault(
                "expected lr, weight_decay or freeze = true: without any the group changes nothing"
                    .to_string(),
            );
        }
        if matches!(recipe.optim.rule, Rule::TSignSgd(_)) {
            if weight_decay.is_some_and(|decay| decay > 0.0) {
                fault("weight_decay is not supported by optim.kind = \"t-sign-sgd\"".to_string());
            }
            if lr.is_some_and(|lr| lr > 1.0) {
                fault("lr is the fraction of elements updated for optim.kind = \"t-sign-sgd\": expected at most 1".to_string());
            }
        }
    }
    if !r.faults().is_empty() {
        return;
    }
    let group_of = recipe.grouping();
    let (mut found, mut trained) = (vec![false; groups.len()], false);
    for name in names() {
        let group = group_of(&name);
        group.iter().for_each(|group| found[*group] = true);
        trained |= group.is_none_or(|group| !groups[group].freeze);
    }
    for (group, found) in groups.iter().zip(found) {
        if !found {
            let message = format!(
                "optim.groups: pattern '{}': earlier groups have all parameters that it finds; a parameter belongs to the first group that \
                 finds it: put this one before them",
                group.pattern
            );
            r.fault(SECTION, GROUPS, message);
        }
    }
    if !trained {
        r.fault(SECTION, GROUPS, "optim.groups: all parameters are frozen: expected at least one to train");
    }
}

/// The three names most like a pattern; of the blocks only the first one's.
fn nearest(pattern: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let first = |name: &String| !name.starts_with("model.layers.") || name.starts_with("model.layers.0.");
    // The part of a name that is most like it counts, so that short patterns find long names.
    let similarity = |name: &str| {
        let parts = name.split('.').chain([name]);
        parts.map(|part| strsim::jaro_winkler(pattern, part)).fold(0.0, f64::max)
    };
    let mut ranked: Vec<String> = names.filter(first).collect();
    ranked.sort_by(|a, b| similarity(b).total_cmp(&similarity(a)));
    ranked.truncate(3);
    ranked
}

impl fmt::Display for GroupSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group: ParamGroup { pattern, lr, weight_decay, freeze }, tensors, parameters } = self;
        write!(f, "'{pattern}': {} in {}", counted(*parameters, "parameter"), counted(*tensors, "tensor"))?;
        if *freeze {
            f.write_str(", frozen")?;
        }
        if let Some(lr) = lr {
            write!(f, ", lr {lr}")?;
        }
        if let Some(decay) = weight_decay {
            write!(f, ", weight decay {decay}")?;
        }
        Ok(())
    }
}

// serde hands references to `skip_serializing_if`.
fn is_false(flag: &bool) -> bool {
    !flag
}
