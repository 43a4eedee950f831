//! Which modules of a model an adapter is on, with which rank and scaling: peft's
//! `check_target_module_exists` and `get_pattern_key`.

use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::{AdapterConfig, keys, refused};
use crate::lora::module_names;
use crate::{ConfigError, LoraConfig, ModelConfig, Projection};

/// A projection of a block that has an adapter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdaptedModule {
    /// The block, from 0.
    pub layer: usize,
    /// The projection.
    pub projection: Projection,
    /// Inner width of the product: A is [rank, in], B [out, rank].
    pub rank: usize,
    /// What the product is multiplied by.
    pub scaling: f32,
}

impl AdaptedModule {
    /// The name in Hugging Face's layout: `model.layers.0.self_attn.q_proj`.
    pub fn name(&self) -> String {
        module_name(self.layer, self.projection)
    }
}

fn module_name(layer: usize, projection: Projection) -> String {
    format!("model.layers.{layer}.{}", projection.hf_name())
}

/// Modules by the ends of their names, or by an expression that matches the whole name.
#[derive(Debug, Clone, PartialEq)]
enum Names {
    List(Vec<String>),
    Regex(Pattern),
}

/// The keys that choose modules, and those that make one unlike another.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Targets {
    /// None for "all-linear".
    modules: Option<Names>,
    exclude: Option<Names>,
    /// `layers_to_transform`.
    layers: Option<Vec<i64>>,
    /// `layers_pattern`: where a block's number stands in a name.
    layers_patterns: Vec<Pattern>,
    rank: Vec<(Pattern, usize)>,
    alpha: Vec<(Pattern, f32)>,
}

impl Targets {
    pub(super) fn from_json(map: &Map<String, Value>) -> Result<Self, ConfigError> {
        let Some(value) = keys::get(map, "target_modules") else {
            let expected =
                "a list of modules, an expression or \"all-linear\"; peft writes the modules that it chose";
            return Err(refused("target_modules", &Value::Null, expected));
        };
        let all = value.as_str().is_some_and(|text| text.eq_ignore_ascii_case("all-linear"));
        let modules = if all { None } else { Some(names("target_modules", value)?) };
        let exclude =
            keys::get(map, "exclude_modules").map(|value| names("exclude_modules", value)).transpose()?;
        let layers = keys::get(map, "layers_to_transform");
        let pattern = keys::get(map, "layers_pattern");
        for (key, given) in [("layers_to_transform", layers), ("layers_pattern", pattern)] {
            if let (Some(found), true) = (given, value.is_string()) {
                return Err(refused(key, found, "none where target_modules is a string, as in peft"));
            }
        }
        let layers = layers.map(numbers).transpose()?.filter(|list| !list.is_empty());
        let mut layers_patterns = pattern.map(patterns_of_layers).transpose()?.unwrap_or_default();
        if let (Some(found), false, None) = (pattern, layers_patterns.is_empty(), &layers) {
            return Err(refused("layers_pattern", found, "none without layers_to_transform, as in peft"));
        }
        if layers_patterns.is_empty() {
            // After any part of a name, the first that there is.
            layers_patterns = vec![Pattern::new("layers_pattern", "", r"^.*?\.[^.]*\.(\d+)\.")?];
        }
        let rank = pattern_values(map, "rank_pattern", |value| {
            let rank = value.as_u64().filter(|rank| (1..=1 << 16).contains(rank));
            rank.map(|rank| rank as usize).ok_or("a rank from 1 to 65536")
        })?;
        let alpha = pattern_values(map, "alpha_pattern", |value| {
            let alpha = value.as_f64().map(|alpha| alpha as f32);
            alpha.filter(|alpha| alpha.is_finite() && *alpha > 0.0).ok_or("a number above 0")
        })?;
        Ok(Self { modules, exclude, layers, layers_patterns, rank, alpha })
    }

    /// The projections, where every block has the same and all are alike.
    pub(super) fn uniform(&self) -> Result<Vec<Projection>, ConfigError> {
        let fault = |key: &str| {
            ConfigError::Adapter(format!("{key}: expected none: every block has the same adapters here"))
        };
        let keys = [
            ("exclude_modules", self.exclude.is_some()),
            ("layers_to_transform", self.layers.is_some()),
            ("rank_pattern", !self.rank.is_empty()),
            ("alpha_pattern", !self.alpha.is_empty()),
        ];
        if let Some((key, _)) = keys.iter().find(|(_, given)| *given) {
            return Err(fault(key));
        }
        let Some(Names::List(list)) = &self.modules else { return Err(fault("target_modules")) };
        let mut projections = Vec::new();
        for name in list {
            match Projection::ALL.into_iter().find(|p| p.module() == name) {
                Some(projection) => projections.push(projection),
                None => return Err(refused("target_modules", &Value::from(name.as_str()), &module_names())),
            }
        }
        projections.sort_by_key(|p| *p as usize);
        projections.dedup();
        Ok(projections)
    }

    /// Whether a module has an adapter.
    fn selects(&self, module: &Module) -> Result<bool, ConfigError> {
        let key = module.name.as_str();
        if let Some(exclude) = &self.exclude
            && matches(exclude, key)?
        {
            return Ok(false);
        }
        match &self.modules {
            None => Ok(module.projection.is_some()),
            Some(names @ Names::Regex(_)) => matches(names, key),
            // A whole name is taken whatever its block.
            Some(Names::List(list)) if list.iter().any(|name| name == key) => Ok(true),
            Some(names) => Ok(matches(names, key)? && self.has_layer(key)?),
        }
    }

    /// Whether a module's block is among `layers_to_transform`.
    fn has_layer(&self, key: &str) -> Result<bool, ConfigError> {
        let Some(layers) = &self.layers else { return Ok(true) };
        for pattern in &self.layers_patterns {
            if let Some(number) = pattern.group(key)? {
                let layer = number.parse::<i64>().map_err(|_| {
                    let message =
                        format!("layers_pattern: {number} in {key}: expected the number of a block");
                    ConfigError::Adapter(message)
                })?;
                return Ok(layers.contains(&layer));
            }
        }
        Ok(false)
    }
}

/// A module of a model by peft's name, and which projection it is, if it is one.
struct Module {
    name: String,
    projection: Option<(usize, Projection)>,
}

/// The modules of a model of `transformers` that a target could mean.
fn modules_of(config: &ModelConfig) -> Vec<Module> {
    let plain = |name: String| Module { name, projection: None };
    let mut all: Vec<Module> =
        ["model", "model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb", "lm_head"]
            .map(|name| plain(name.to_string()))
            .into();
    for layer in 0..config.num_hidden_layers {
        let block = format!("model.layers.{layer}");
        let parts =
            ["", ".self_attn", ".mlp", ".mlp.act_fn", ".input_layernorm", ".post_attention_layernorm"];
        all.extend(parts.map(|part| plain(format!("{block}{part}"))));
        all.extend(Projection::ALL.map(|projection| Module {
            name: module_name(layer, projection),
            projection: Some((layer, projection)),
        }));
    }
    all
}

impl AdapterConfig {
    /// The modules of a model that have an adapter, block by block.
    ///
    /// # Errors
    /// If a module is none of the seven projections, a target or block is not in the model, or nothing is
    /// adapted.
    pub fn modules(&self, model: &ModelConfig) -> Result<Vec<AdaptedModule>, ConfigError> {
        let targets = &self.targets;
        let all = modules_of(model);
        if let Some(Names::List(list)) = &targets.modules {
            let known = |target: &String| all.iter().any(|module| ends_in(&module.name, target));
            if let Some(target) = list.iter().find(|target| !known(target)) {
                let expected = format!("modules that the model has; adapters are read of {}", module_names());
                return Err(refused("target_modules", &Value::from(target.as_str()), &expected));
            }
        }
        let blocks = model.num_hidden_layers;
        let beyond = targets.layers.iter().flatten().find(|layer| !(0..blocks as i64).contains(*layer));
        if let Some(layer) = beyond {
            let expected = format!("blocks from 0 to {}: the model has {blocks}", blocks.saturating_sub(1));
            return Err(refused("layers_to_transform", &Value::from(*layer), &expected));
        }
        let mut adapted = Vec::new();
        for module in &all {
            if !targets.selects(module)? {
                continue;
            }
            let Some((layer, projection)) = module.projection else {
                let expected = format!("projections of blocks alone: {}", module_names());
                return Err(refused("target_modules", &Value::from(module.name.as_str()), &expected));
            };
            let rank = value_for(&targets.rank, &module.name)?.unwrap_or(self.rank);
            let alpha = value_for(&targets.alpha, &module.name)?.unwrap_or(self.alpha);
            let scaling = LoraConfig { alpha, ..self.lora(rank, Vec::new()) }.scaling();
            adapted.push(AdaptedModule { layer, projection, rank, scaling });
        }
        if adapted.is_empty() {
            let message =
                "target_modules: none of the model's modules is left: nothing is adapted".to_string();
            return Err(ConfigError::Adapter(message));
        }
        self.warn_of_idle_patterns(&adapted)?;
        Ok(adapted)
    }

    /// Tells of patterns that match no module: they have no effect, in peft neither.
    fn warn_of_idle_patterns(&self, adapted: &[AdaptedModule]) -> Result<(), ConfigError> {
        let ranks = self.targets.rank.iter().map(|(pattern, _)| ("rank_pattern", pattern));
        let alphas = self.targets.alpha.iter().map(|(pattern, _)| ("alpha_pattern", pattern));
        for (key, pattern) in ranks.chain(alphas) {
            let mut used = false;
            for module in adapted {
                used |= pattern.is_match(&module.name())?;
            }
            if !used {
                log::warn!("adapter_config.json: {key}: {:?} matches no adapted module", pattern.written());
            }
        }
        Ok(())
    }
}

/// Whether a name is a target's, or ends in it after a dot.
fn ends_in(name: &str, target: &str) -> bool {
    name == target || name.strip_suffix(target).is_some_and(|rest| rest.ends_with('.'))
}

fn matches(names: &Names, key: &str) -> Result<bool, ConfigError> {
    match names {
        Names::List(list) => Ok(list.iter().any(|target| ends_in(key, target))),
        Names::Regex(pattern) => pattern.is_match(key),
    }
}

/// The value of the first pattern that matches.
fn value_for<T: Copy>(patterns: &[(Pattern, T)], name: &str) -> Result<Option<T>, ConfigError> {
    for (pattern, value) in patterns {
        if pattern.is_match(name)? {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}

fn names(key: &'static str, value: &Value) -> Result<Names, ConfigError> {
    if let Some(text) = value.as_str() {
        return Ok(Names::Regex(Pattern::new(key, text, &format!("^(?:{text})$"))?));
    }
    let expected = || refused(key, value, "a list of names, or an expression");
    let list = value.as_array().ok_or_else(expected)?;
    let list = list.iter().map(|name| name.as_str().filter(|name| !name.is_empty()).map(str::to_string));
    list.collect::<Option<Vec<String>>>().map(Names::List).ok_or_else(expected)
}

fn numbers(value: &Value) -> Result<Vec<i64>, ConfigError> {
    let list = match value.as_array() {
        Some(list) => list.iter().map(Value::as_i64).collect::<Option<Vec<i64>>>(),
        None => value.as_i64().map(|number| vec![number]),
    };
    list.ok_or_else(|| refused("layers_to_transform", value, "the numbers of blocks"))
}

/// Where a block's number stands.
fn patterns_of_layers(value: &Value) -> Result<Vec<Pattern>, ConfigError> {
    let fault = || refused("layers_pattern", value, "a name or a list of names");
    let list = match value {
        Value::String(text) if text.is_empty() => Vec::new(),
        Value::String(text) => vec![text.as_str()],
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<Vec<_>>>().ok_or_else(fault)?,
        _ => return Err(fault()),
    };
    let full = |text: &str| Pattern::new("layers_pattern", text, &format!(r"^.*?\.{text}\.(\d+)\."));
    list.into_iter().map(full).collect()
}

fn pattern_values<T>(
    map: &Map<String, Value>,
    key: &'static str,
    read: impl Fn(&Value) -> Result<T, &'static str>,
) -> Result<Vec<(Pattern, T)>, ConfigError> {
    let Some(value) = keys::get(map, key) else { return Ok(Vec::new()) };
    let table =
        value.as_object().ok_or_else(|| refused(key, value, "an object: a value for each pattern"))?;
    let entry = |(pattern, value): (&String, &Value)| {
        let read = read(value).map_err(|expected| refused(&format!("{key}.{pattern}"), value, expected))?;
        // The group is there for the numbers of back references to be Python's.
        Ok((Pattern::new(key, pattern, &format!(r"^(.*\.)?({pattern})$"))?, read))
    };
    table.iter().map(entry).collect()
}
