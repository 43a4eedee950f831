//! Base and scaling of RoPE in a `config.json`: `rope_parameters` of transformers 5, `rope_theta` and
//! `rope_scaling` of 4, and the names in them that are older still.

use serde_json::{Map, Value};

use crate::{ConfigError, RopeScaling};

/// What the fields say.
#[derive(Debug, PartialEq)]
pub(super) struct Rope {
    pub(super) theta: f32,
    pub(super) scaling: Option<RopeScaling>,
    /// Keys that are not known, with their values.
    pub(super) unknown: Vec<String>,
}

fn fault(message: String) -> ConfigError {
    ConfigError::Json(message)
}

/// Reads base and scaling of a model whose context is `context` tokens; `theta` is its family's base.
///
/// # Errors
/// If a field contradicts another, lacks a number, or asks for what the engine does not compute.
pub(super) fn read(fields: &Map<String, Value>, theta: f64, context: usize) -> Result<Rope, ConfigError> {
    let number = |key: &str| match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(number) => Ok(Some(number as f32)),
            None => Err(fault(format!("{key} = {value}: expected a number"))),
        },
    };
    if let Some(part) = number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
        return Err(fault(format!(
            "partial_rotary_factor = {part}: partial rotary embeddings are not supported; expected 1"
        )));
    }
    let top = number("rope_theta")?;
    let mut found: Option<(&str, Rope)> = None;
    for name in ["rope_parameters", "rope_scaling"] {
        let object = match fields.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(object)) if object.is_empty() => continue,
            Some(Value::Object(object)) => object,
            Some(other) => return Err(fault(format!("{name} = {other}: expected an object or null"))),
        };
        let outer = number("original_max_position_embeddings")?.map(|tokens| tokens as usize);
        let rope = Reader { name, object, outer, context, top, theta: theta as f32 }.read()?;
        match &mut found {
            Some((first, other)) if (other.theta, &other.scaling) != (rope.theta, &rope.scaling) => {
                return Err(fault(format!(
                    "{first} and {name} differ, and versions of transformers disagree on which takes \
                     precedence: remove one of them"
                )));
            }
            Some((_, other)) => other.unknown.extend(rope.unknown),
            None => found = Some((name, rope)),
        }
    }
    let plain = Rope { theta: top.unwrap_or(theta as f32), scaling: None, unknown: Vec::new() };
    Ok(found.map_or(plain, |(_, rope)| rope))
}

/// One of the two objects.
struct Reader<'a> {
    name: &'static str,
    object: &'a Map<String, Value>,
    /// `original_max_position_embeddings` beside the object.
    outer: Option<usize>,
    context: usize,
    /// `rope_theta` beside the object.
    top: Option<f32>,
    /// The family's base.
    theta: f32,
}

impl Reader<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str) -> Result<Option<f32>, ConfigError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number as f32)),
                None => Err(fault(format!("{}.{key} = {value}: expected a number", self.name))),
            },
        }
    }

    fn needed(&self, key: &str) -> Result<f32, ConfigError> {
        self.number(key)?.ok_or_else(|| fault(format!("{}.{key} is missing", self.name)))
    }

    /// The context of pretraining.
    fn original(&self) -> Result<Option<usize>, ConfigError> {
        match self.get("original_max_position_embeddings") {
            None => Ok(self.outer),
            Some(value) => match value.as_u64() {
                Some(tokens) => Ok(Some(tokens as usize)),
                None => Err(fault(format!(
                    "{}.original_max_position_embeddings = {value}: expected a number of tokens",
                    self.name
                ))),
            },
        }
    }

    /// `rope_type`, or `type` as it was called before.
    fn ty(&self) -> Result<&str, ConfigError> {
        let named = |key: &str| match self.get(key) {
            None => Ok(None),
            Some(Value::String(ty)) => Ok(Some(ty.as_str())),
            Some(other) => Err(fault(format!("{}.{key} = {other}: expected a name", self.name))),
        };
        match (named("rope_type")?, named("type")?) {
            (Some(ty), Some(older)) if ty != older => Err(fault(format!(
                "{}: rope_type = \"{ty}\" contradicts type = \"{older}\", its older name",
                self.name
            ))),
            (Some(ty), _) | (None, Some(ty)) => Ok(ty),
            (None, None) => {
                let plain = ["rope_theta", "partial_rotary_factor", "original_max_position_embeddings"];
                match self
                    .object
                    .iter()
                    .find(|(key, value)| !plain.contains(&key.as_str()) && !value.is_null())
                {
                    None => Ok("default"),
                    Some((key, Value::Object(_))) => Err(fault(format!(
                        "{}.{key}: a separate RoPE per attention type is not supported",
                        self.name
                    ))),
                    Some((key, value)) => {
                        Err(fault(format!("{}.{key} = {value} without a rope_type", self.name)))
                    }
                }
            }
        }
    }

    fn read(self) -> Result<Rope, ConfigError> {
        if let Some(part) = self.number("partial_rotary_factor")?.filter(|part| *part != 1.0) {
            return Err(fault(format!(
                "{}.partial_rotary_factor = {part}: partial rotary embeddings are not supported; expected 1",
                self.name
            )));
        }
        let theta = match (self.number("rope_theta")?, self.top) {
            (Some(inner), Some(top)) if inner != top => {
                return Err(fault(format!(
                    "{}.rope_theta = {inner} contradicts rope_theta = {top}: versions of transformers \
                     disagree on which takes precedence",
                    self.name
                )));
            }
            (inner, top) => inner.or(top).unwrap_or(self.theta),
        };
        let (scaling, keys): (_, &[&str]) = match self.ty()? {
            "default" => {
                if let Some(factor) = self.number("factor")?.filter(|factor| *factor != 1.0) {
                    return Err(fault(format!(
                        "{}.factor = {factor} with rope_type = \"default\"",
                        self.name
                    )));
                }
                (None, &["factor"])
            }
            "linear" => (Some(RopeScaling::Linear { factor: self.needed("factor")? }), &["factor"]),
            "llama3" => {
                let original = self.original()?.ok_or_else(|| {
                    fault(format!("{}.original_max_position_embeddings is missing", self.name))
                })?;
                let scaling = RopeScaling::Llama3 {
                    factor: self.needed("factor")?,
                    low_freq_factor: self.needed("low_freq_factor")?,
                    high_freq_factor: self.needed("high_freq_factor")?,
                    original_max_position_embeddings: original,
                };
                (Some(scaling), &["factor", "low_freq_factor", "high_freq_factor"])
            }
            "yarn" => {
                for key in ["mscale", "mscale_all_dim"] {
                    if let Some(value) = self.get(key) {
                        let message =
                            format!("{}.{key} = {value}: this YaRN parameter is not supported", self.name);
                        return Err(fault(message));
                    }
                }
                let original = self.original()?.unwrap_or(self.context);
                let factor = match self.number("factor")? {
                    Some(factor) => factor,
                    None => self.context as f32 / original.max(1) as f32,
                };
                // 0 stands for the default, too.
                let or = |key: &str, default: f32| {
                    self.number(key).map(|n| n.filter(|n| *n != 0.0).unwrap_or(default))
                };
                let truncate = match self.get("truncate") {
                    None => true,
                    Some(Value::Bool(truncate)) => *truncate,
                    Some(other) => {
                        return Err(fault(format!(
                            "{}.truncate = {other}: expected true or false",
                            self.name
                        )));
                    }
                };
                let scaling = RopeScaling::Yarn {
                    factor,
                    beta_fast: or("beta_fast", 32.0)?,
                    beta_slow: or("beta_slow", 1.0)?,
                    truncate,
                    attention_factor: self
                        .number("attention_factor")?
                        .unwrap_or_else(|| RopeScaling::yarn_attention_factor(factor)),
                    original_max_position_embeddings: original,
                };
                (
                    Some(scaling),
                    &["factor", "beta_fast", "beta_slow", "truncate", "attention_factor", "finetuned"],
                )
            }
            other => {
                return Err(fault(format!(
                    "{}.rope_type = \"{other}\": expected default, linear, llama3 or yarn",
                    self.name
                )));
            }
        };
        let always =
            ["rope_type", "type", "rope_theta", "partial_rotary_factor", "original_max_position_embeddings"];
        let known = |key: &str| always.contains(&key) || keys.contains(&key);
        let unknown = self.object.iter().filter(|(key, value)| !known(key) && !value.is_null());
        let unknown = unknown.map(|(key, value)| format!("{}.{key} = {value}", self.name)).collect();
        Ok(Rope { theta, scaling, unknown })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(fields: &Value) -> Result<Rope, String> {
        read(fields.as_object().unwrap(), 10_000.0, 4096).map_err(|e| e.to_string())
    }

    fn refused(fields: &Value, parts: &[&str]) {
        let error = parsed(fields).unwrap_err();
        for part in parts {
            assert!(error.contains(part), "{fields}: {error}");
        }
    }

    #[test]
    fn older_and_newer_names_mean_the_same() {
        let linear = Some(RopeScaling::Linear { factor: 2.0 });
        for fields in [
            json!({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2}}),
            json!({"rope_theta": 5e5, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
            json!({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}}),
            json!({"rope_theta": 500000, "rope_parameters": {"rope_type": "linear", "type": "linear", "factor": 2.0, "rope_theta": 5e5},
                "rope_scaling": {"type": "linear", "factor": 2.0, "rope_theta": null}}),
        ] {
            let rope = parsed(&fields).unwrap();
            assert_eq!((rope.theta, rope.scaling, rope.unknown), (5e5, linear.clone(), vec![]), "{fields}");
        }
        for plain in [
            json!({}),
            json!({"rope_scaling": null}),
            json!({"rope_scaling": {}, "partial_rotary_factor": 1}),
        ] {
            assert_eq!(parsed(&plain).unwrap(), Rope { theta: 10_000.0, scaling: None, unknown: vec![] });
        }
    }

    #[test]
    fn yarn_takes_what_is_missing_from_the_context() {
        let yarn = |fields: Value| match parsed(&fields).unwrap().scaling {
            Some(RopeScaling::Yarn { factor, beta_fast, original_max_position_embeddings, .. }) => {
                (factor, beta_fast, original_max_position_embeddings)
            }
            other => panic!("{other:?}"),
        };
        let only = |object: Value| json!({ "rope_scaling": object });
        assert_eq!(yarn(only(json!({"type": "yarn", "factor": 4}))), (4.0, 32.0, 4096));
        assert_eq!(
            yarn(only(json!({"type": "yarn", "original_max_position_embeddings": 1024, "beta_fast": 0}))),
            (4.0, 32.0, 1024)
        );
        let outer =
            json!({"original_max_position_embeddings": 2048, "rope_scaling": {"type": "yarn", "factor": 2}});
        assert_eq!(yarn(outer), (2.0, 32.0, 2048));
    }

    #[test]
    fn what_cannot_be_computed_or_contradicts_itself_is_named() {
        let scaling = |object: Value| json!({ "rope_scaling": object });
        refused(&scaling(json!("linear")), &["rope_scaling", "object"]);
        refused(&scaling(json!({"factor": 2.0})), &["rope_scaling.factor", "rope_type"]);
        refused(&scaling(json!({"type": "linear"})), &["rope_scaling.factor", "missing"]);
        refused(&scaling(json!({"type": "linear", "factor": "2"})), &["rope_scaling.factor", "number"]);
        refused(&scaling(json!({"type": "dynamic", "factor": 2.0})), &["dynamic"]);
        refused(&scaling(json!({"type": "linear", "rope_type": "yarn", "factor": 2.0})), &["yarn", "linear"]);
        refused(&scaling(json!({"rope_type": "default", "factor": 2.0})), &["factor = 2"]);
        refused(&scaling(json!({"type": "yarn", "factor": 2.0, "mscale": 1.0})), &["mscale"]);
        refused(&scaling(json!({"type": "yarn", "factor": 2.0, "truncate": 1})), &["truncate"]);
        refused(
            &scaling(json!({"full_attention": {"rope_type": "default"}})),
            &["full_attention", "a separate RoPE per attention type"],
        );
        refused(&json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor"]);
        refused(&scaling(json!({"partial_rotary_factor": 0.5})), &["partial_rotary_factor"]);
        refused(
            &json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 2e4}}),
            &["rope_theta", "20000"],
        );
        refused(
            &json!({"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2}}),
            &["rope_parameters and rope_scaling differ"],
        );
        let rope = parsed(&scaling(json!({"type": "linear", "factor": 2, "mystery": [1]}))).unwrap();
        assert_eq!(rope.unknown, ["rope_scaling.mystery = [1]"]);
    }
}
