//! What a key's value may be: the reader checks it, messages and the reference describe it, the JSON Schema
//! repeats it.

use std::fmt;

use serde_json::{Map, Value, json};

/// A key of a recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What its value may be.
    pub kind: Kind,
}

/// What a value may be.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// An integer between two bounds, both included.
    Integer {
        /// The least.
        low: u64,
        /// The greatest; `u64::MAX` is none.
        high: u64,
    },
    /// A finite number.
    Number(Range),
    /// An array of two numbers.
    Pair(Range),
    /// `true` or `false`.
    Flag,
    /// A string.
    Text,
    /// One of these strings.
    Choice(Vec<String>),
    /// An array of some of these strings.
    Choices(Vec<String>),
    /// A path.
    Path,
    /// A path, or an array of paths.
    Paths,
    /// A table whose keys are among these, each with a string.
    Names(Vec<&'static str>),
    /// A table of any keys and values.
    Table,
    /// An array of tables with these keys, of which the first is needed.
    Tables(Vec<(&'static str, Kind)>),
}

/// Finite numbers between two bounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    low: Bound,
    high: Option<Bound>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound {
    at: f64,
    included: bool,
}

impl Range {
    /// Numbers above a bound.
    pub const fn above(at: f64) -> Self {
        Self { low: Bound { at, included: false }, high: None }
    }

    /// A bound and the numbers above it.
    pub const fn at_least(at: f64) -> Self {
        Self { low: Bound { at, included: true }, high: None }
    }

    /// Of these, the numbers below a bound.
    pub const fn below(self, at: f64) -> Self {
        Self { high: Some(Bound { at, included: false }), ..self }
    }

    /// Of these, a bound and the numbers below it.
    pub const fn at_most(self, at: f64) -> Self {
        Self { high: Some(Bound { at, included: true }), ..self }
    }

    /// Whether `x` is a number of the range.
    pub fn holds(self, x: f64) -> bool {
        let low = x > self.low.at || (self.low.included && x == self.low.at);
        let high = self.high.is_none_or(|high| x < high.at || (high.included && x == high.at));
        x.is_finite() && low && high
    }

    fn schema(self) -> Value {
        let mut schema = json!({ "type": "number" });
        schema[if self.low.included { "minimum" } else { "exclusiveMinimum" }] = json!(self.low.at);
        if let Some(high) = self.high {
            schema[if high.included { "maximum" } else { "exclusiveMaximum" }] = json!(high.at);
        }
        schema
    }
}

impl Kind {
    /// As JSON Schema.
    pub fn schema(&self) -> Value {
        match self {
            Kind::Integer { low, high } => {
                let mut schema = json!({ "type": "integer", "minimum": low });
                if *high < u64::MAX {
                    schema["maximum"] = json!(high);
                }
                schema
            }
            Kind::Number(range) => range.schema(),
            Kind::Pair(range) => {
                json!({ "type": "array", "items": range.schema(), "minItems": 2, "maxItems": 2 })
            }
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Text | Kind::Path => json!({ "type": "string" }),
            Kind::Choice(names) if names.iter().any(|name| is_number(name)) => {
                let values = names.iter().map(|name| name.parse::<u64>().map_or(json!(name), |n| json!(n)));
                json!({ "enum": values.collect::<Vec<_>>() })
            }
            Kind::Choice(names) => json!({ "type": "string", "enum": names }),
            Kind::Choices(names) => {
                json!({ "type": "array", "items": { "type": "string", "enum": names }, "minItems": 1, "uniqueItems": true })
            }
            Kind::Paths => json!({
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
            }),
            Kind::Names(keys) => {
                let properties: Map<String, Value> =
                    keys.iter().map(|name| (name.to_string(), json!({ "type": "string" }))).collect();
                json!({ "type": "object", "properties": properties, "additionalProperties": false })
            }
            Kind::Table => json!({ "type": "object" }),
            Kind::Tables(keys) => {
                let properties: Map<String, Value> =
                    keys.iter().map(|(name, kind)| (name.to_string(), kind.schema())).collect();
                let needed: Vec<&str> = keys.iter().take(1).map(|(name, _)| *name).collect();
                json!({
                    "type": "array",
                    "items": {
                        "type": "object",
                        "properties": properties,
                        "required": needed,
                        "additionalProperties": false,
                    },
                })
            }
        }
    }
}

/// Whether a name is written as a number.
pub(super) fn is_number(name: &str) -> bool {
    name.parse::<u64>().is_ok()
}

/// A name as TOML writes it.
pub(super) fn quoted(name: &str) -> String {
    if is_number(name) { name.to_string() } else { format!("\"{name}\"") }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.section, self.name)
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { low, high } = self;
        match (low.included, high) {
            (true, None) => write!(f, "of at least {}", low.at),
            (false, None) => write!(f, "above {}", low.at),
            (true, Some(high)) if high.included => write!(f, "from {} to {}", low.at, high.at),
            (true, Some(high)) => write!(f, "from {} to less than {}", low.at, high.at),
            (false, Some(high)) if high.included => write!(f, "above {} and at most {}", low.at, high.at),
            (false, Some(high)) => write!(f, "above {} and below {}", low.at, high.at),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Integer { low, high: u64::MAX } => write!(f, "an integer of at least {low}"),
            Kind::Integer { low, high } => write!(f, "an integer from {low} to {high}"),
            Kind::Number(range) => write!(f, "a number {range}"),
            Kind::Pair(range) => write!(f, "an array of two numbers {range}"),
            Kind::Flag => f.write_str("true or false"),
            Kind::Text => f.write_str("a string"),
            Kind::Choice(names) => {
                let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
                f.write_str(&names.join(" or "))
            }
            Kind::Choices(names) => {
                let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
                write!(f, "an array of one or more of {}", names.join(", "))
            }
            Kind::Path => f.write_str("a path"),
            Kind::Paths => f.write_str("a path, or an array of paths"),
            Kind::Names(keys) => write!(f, "a table of strings, with keys among {}", keys.join(", ")),
            Kind::Table => f.write_str("a table"),
            Kind::Tables(_) => f.write_str("an array of tables"),
        }
    }
}
