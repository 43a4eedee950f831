//! The options of the service: what a plan decides, and the rest from a preset.

use std::fmt::Write as _;

use serde::Serialize;
use toml::{Table, Value};
use tritforge_kernels::KvType;
use tritforge_support::counted;

use crate::{DeployError, Plan, readable};

/// An option of the service, and why it has its value.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// The option's name without the hyphens before it.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// Why.
    pub why: String,
}

impl Setting {
    fn new(key: &str, value: impl Into<Value>, why: String) -> Self {
        Self { key: key.to_string(), value: value.into(), why }
    }
}

/// Options that a plan leaves to a preset.
fn preset(plan: &Plan) -> Result<Table, DeployError> {
    toml::from_str(plan.target.preset_text()).map_err(|e| DeployError::Write(e.to_string()))
}

/// The options that depend on model and target.
pub(crate) fn settings(plan: &Plan, request_kv: u64) -> Result<Vec<Setting>, DeployError> {
    let integer = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let preset = preset(plan)?;
    let default =
        |key: &str, otherwise: i64| preset.get(key).and_then(Value::as_integer).unwrap_or(otherwise);
    let at_once = plan.concurrency as i64;
    // As many wait for a place as the preset has.
    let queue = (default("queue", 32) * at_once / default("concurrency", 2).max(1)).clamp(1, 10_000);
    let connections = default("max-connections", 512).max(2 * (queue + at_once));
    let settings = vec![
        Setting::new("model", plan.served.clone(), {
            plan.export
                .as_ref()
                .map_or_else(|| "the file that was planned".to_string(), |it| format!("made by: {it}"))
        }),
        Setting::new(
            "threads",
            plan.target.cores as i64,
            format!(
                "the {} of {}; prompts use all of them",
                counted(plan.target.cores, "core"),
                plan.target.name
            ),
        ),
        Setting::new(
            "concurrency",
            at_once,
            "requests at once share each pass over the weights; as many as the target asks for".to_string(),
        ),
        Setting::new(
            "kv-memory",
            integer(plan.memory.kv),
            format!(
                "{} = {} of {} each, {}; one request may be longer while others leave room",
                readable(plan.memory.kv),
                counted(plan.concurrency, "request"),
                counted(plan.context, "token"),
                readable(request_kv)
            ),
        ),
        Setting::new(
            "kv",
            plan.target.kv.to_string(),
            match plan.target.kv {
                KvType::F32 => "keys and values as training computes them".to_string(),
                KvType::F16 => "the default: half the memory of f32".to_string(),
                KvType::Q8_0 => "half the memory of f16".to_string(),
            },
        ),
        Setting::new("queue", queue, format!("as many a place as the preset {} has", plan.target.preset)),
        Setting::new(
            "max-connections",
            connections,
            "room for those that run and wait twice over, for health checks and metrics".to_string(),
        ),
    ];
    Ok(settings)
}

/// The file for `tritforge serve --config`: the options of the plan with their reasons, then those of the preset.
///
/// # Errors
/// If the preset cannot be written, which tests exclude.
pub fn serve_toml(plan: &Plan) -> Result<String, DeployError> {
    let fault = |e: toml::ser::Error| DeployError::Write(e.to_string());
    let mut text = format!(
        "# Written by `tritforge deploy plan` for {} on {} ({}).\n# Memory under full load: {} of {}.\n",
        plan.model,
        plan.target.name,
        plan.target.isa,
        readable(plan.peak),
        readable(plan.target.memory)
    );
    for Setting { key, value, why } in &plan.settings {
        let _ = write!(text, "\n# {why}\n{key} = {value}\n");
    }
    let mut rest = preset(plan)?;
    for Setting { key, .. } in &plan.settings {
        rest.remove(key);
    }
    let _ = write!(text, "\n# What does not depend on the model, from the preset {}.\n", plan.target.preset);
    text.push_str(&toml::to_string(&rest).map_err(fault)?);
    Ok(text)
}
