//! `AdapterConfig`: an `adapter_config.json`, key by key as peft 0.21 defines them (`LoraConfig` in
//! `src/peft/tuners/lora/config.py`), and the modules of a model that it adapts.
//!
//! A key takes part with peft's meaning, has no effect on what an adapter computes, or is refused by name
//! unless its value is neutral. [`keys`] has the list; [`targets`] says which modules are adapted, with which
//! rank and scaling.

mod keys;
mod pattern;
mod targets;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub use self::targets::AdaptedModule;
use self::targets::Targets;
use crate::lora::{LOTA, LOTA_THRESHOLD};
use crate::{ConfigError, LoraConfig, LoraMode, Projection};

/// `adapter_config.json`, read: what an adapter is, before it is known which model it adapts.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// Where the product enters; [`LoraMode::Adapter`] in a file of peft's own.
    pub mode: LoraMode,
    /// peft's `r`: the rank of modules that `rank_pattern` does not name.
    pub rank: usize,
    /// peft's `lora_alpha`: that of modules that `alpha_pattern` does not name.
    pub alpha: f32,
    /// Share of A's inputs that training drops.
    pub dropout: f32,
    /// Whether the scaling is `alpha / √rank`.
    pub use_rslora: bool,
    /// For [`LoraMode::Lota`]: ω over the rank.
    pub threshold: f32,
    /// The path or name of the model that the adapter belongs to.
    pub base: Option<String>,
    targets: Targets,
}

impl AdapterConfig {
    /// Reads an `adapter_config.json`.
    ///
    /// # Errors
    /// If it is no JSON object, or a key has a value that changes the adapter in a way that is not computed;
    /// the message names key and value.
    pub fn from_json(text: &str) -> Result<Self, ConfigError> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|e| ConfigError::Adapter(e.to_string()))?;
        keys::check(&map)?;
        let mode = match map.get("tritforge_mode") {
            None | Some(Value::Null) => LoraMode::Adapter,
            Some(value) => serde_json::from_value(value.clone())
                .map_err(|_| refused("tritforge_mode", value, "adapter, qat_lora or lota"))?,
        };
        let expected = if mode == LoraMode::Lota { LOTA } else { "LORA" };
        if map.get("peft_type").and_then(Value::as_str) != Some(expected) {
            let found = map.get("peft_type").unwrap_or(&Value::Null);
            return Err(refused(
                "peft_type",
                found,
                &format!("\"{expected}\": no other kind of adapter is read"),
            ));
        }
        // Without the key peft has a default; with null it has no number to compute with.
        for key in ["r", "lora_alpha"] {
            if let Some(null @ Value::Null) = map.get(key) {
                return Err(refused(key, null, "a number, or no such key"));
            }
        }
        let config = Self {
            mode,
            rank: keys::integer(&map, "r")?.unwrap_or(8),
            alpha: keys::number(&map, "lora_alpha")?.unwrap_or(8.0),
            dropout: keys::number(&map, "lora_dropout")?.unwrap_or(0.0),
            use_rslora: keys::flag(&map, "use_rslora")?,
            threshold: keys::number(&map, "lota_threshold")?.unwrap_or(LOTA_THRESHOLD),
            base: keys::text(&map, "base_model_name_or_path")?,
            targets: Targets::from_json(&map)?,
        };
        if let Some(revision) = keys::text(&map, "revision")?.filter(|revision| revision != "main") {
            let base = config.base.as_deref().unwrap_or("its base");
            log::warn!(
                "adapter_config.json: revision = {revision}: nothing tells whether the model is that revision of {base}"
            );
        }
        // The modules are those of a model, which is not known yet.
        config.lora(config.rank, vec![Projection::Q]).validate()?;
        Ok(config)
    }

    /// The adapter where every block has the same projections with one rank and one scaling, as recipes train
    /// it.
    ///
    /// # Errors
    /// If a key makes one module unlike another, or names modules otherwise than by the names of projections.
    pub fn uniform(&self) -> Result<LoraConfig, ConfigError> {
        let config = self.lora(self.rank, self.targets.uniform()?);
        config.validate()?;
        Ok(config)
    }

    /// The adapter with one rank for all modules, on these projections.
    pub fn lora(&self, rank: usize, target_modules: Vec<Projection>) -> LoraConfig {
        LoraConfig {
            mode: self.mode,
            rank,
            alpha: self.alpha,
            dropout: self.dropout,
            use_rslora: self.use_rslora,
            target_modules,
            threshold: self.threshold,
        }
    }
}

/// A value of a key that is not taken.
fn refused(key: &str, found: &Value, expected: &str) -> ConfigError {
    let mut found = found.to_string();
    if found.len() > 200 {
        let end = (0..=200).rev().find(|at| found.is_char_boundary(*at)).unwrap_or(0);
        found.truncate(end);
        found.push('…');
    }
    ConfigError::Adapter(format!("{key} = {found}: expected {expected}"))
}
