//! Whether JSON is valid by a schema, for the keywords that the tests use: written from the specification of JSON
//! Schema (draft 2020-12), without anything of the engine.
#![allow(dead_code, reason = "each test uses a part of it")]

use serde_json::Value;

/// Every keyword that [`valid`] knows.
const KNOWN: [&str; 21] = [
    "type",
    "enum",
    "const",
    "anyOf",
    "oneOf",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "$ref",
    "$defs",
    // What only describes.
    "title",
    "description",
    "format",
    "default",
];

/// Whether `value` is valid by `schema`, a part of `root`.
pub(crate) fn valid(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(keywords) = schema else { return schema == true };
    for key in keywords.keys() {
        assert!(KNOWN.contains(&key.as_str()), "the test does not know {key}");
    }
    let is_a = |name: &str| match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("the test does not know the type {other}"),
    };
    let of_type = match schema.get("type") {
        Some(Value::String(name)) => is_a(name),
        Some(Value::Array(names)) => names.iter().any(|name| is_a(name.as_str().unwrap())),
        _ => true,
    };
    let least = |key: &str| schema.get(key).and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY);
    let most = |key: &str| schema.get(key).and_then(Value::as_f64).unwrap_or(f64::INFINITY);
    let between = |number: f64, low: &str, high: &str| least(low) <= number && number <= most(high);
    let reference = schema.get("$ref").map(|path| {
        let path = path.as_str().unwrap().strip_prefix('#').unwrap();
        root.pointer(path).unwrap()
    });
    of_type
        && reference.is_none_or(|schema| valid(root, schema, value))
        && schema.get("const").is_none_or(|right| right == value)
        && schema.get("enum").is_none_or(|list| list.as_array().unwrap().contains(value))
        && (schema.get("anyOf"))
            .is_none_or(|list| list.as_array().unwrap().iter().any(|schema| valid(root, schema, value)))
        && schema.get("oneOf").is_none_or(|list| {
            list.as_array().unwrap().iter().filter(|schema| valid(root, schema, value)).count() == 1
        })
        && value.as_f64().is_none_or(|number| between(number, "minimum", "maximum"))
        && value.as_str().is_none_or(|text| between(text.chars().count() as f64, "minLength", "maxLength"))
        && value.as_array().is_none_or(|list| {
            let items = schema.get("items").unwrap_or(&Value::Bool(true));
            between(list.len() as f64, "minItems", "maxItems") && list.iter().all(|v| valid(root, items, v))
        })
        && value.as_object().is_none_or(|fields| {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            let other = schema.get("additionalProperties").unwrap_or(&Value::Bool(true));
            required.map(|name| name.as_str().unwrap()).all(|name| fields.contains_key(name))
                && (fields.iter()).all(|(name, value)| {
                    valid(root, schema.get("properties").and_then(|p| p.get(name)).unwrap_or(other), value)
                })
        })
}

/// The value of a text if it is JSON that is valid by the schema.
pub(crate) fn check(schema: &Value, text: &str) -> Value {
    let value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    assert!(valid(schema, schema, &value), "{schema}: {text}");
    value
}
