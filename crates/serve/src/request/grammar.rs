//! What a text is to fit: `response_format`, and the names that vLLM, llama.cpp's server and SGLang have for schemas,
//! grammars and regular expressions.

use serde_json::{Map, Value};
use tritforge_infer::Grammar;

use super::RequestError;
use super::values::{boolean, display, expected, same, text};

/// A grammar under the field that it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedGrammar {
    /// The field, such as `response_format.json_schema.schema`.
    pub param: String,
    /// What the text is to fit.
    pub grammar: Grammar,
}

/// Fields that each hold a grammar of one kind.
const FIELDS: [(&str, Kind); 8] = [
    ("json_schema", Kind::Json),
    ("guided_json", Kind::Json),
    ("regex", Kind::Regex),
    ("guided_regex", Kind::Regex),
    ("guided_choice", Kind::Choice),
    ("grammar", Kind::Lark),
    ("guided_grammar", Kind::Lark),
    ("structured_outputs", Kind::Several),
];

/// The keys of vLLM's `structured_outputs`.
const STRUCTURED: [(&str, Kind); 5] = [
    ("json", Kind::Json),
    ("regex", Kind::Regex),
    ("choice", Kind::Choice),
    ("grammar", Kind::Lark),
    ("json_object", Kind::Object),
];

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A schema, or its text.
    Json,
    /// Whether any object will do.
    Object,
    Regex,
    Choice,
    Lark,
    /// An object of these.
    Several,
}

/// The grammar of a request, if it has one.
pub(super) fn read<'a>(
    given: &impl Fn(&str) -> Option<&'a Value>,
) -> Result<Option<NamedGrammar>, RequestError> {
    let mut found: Vec<NamedGrammar> = Vec::new();
    found.extend(given("response_format").map(response_format).transpose()?.flatten());
    for (name, kind) in FIELDS {
        let Some(value) = given(name) else { continue };
        match kind {
            Kind::Several => found.extend(structured_outputs(name, value)?),
            kind => found.extend(of_kind(kind, name, value)?),
        }
    }
    one(found)
}

fn one(mut found: Vec<NamedGrammar>) -> Result<Option<NamedGrammar>, RequestError> {
    if let [first, second, ..] = &found[..] {
        let message = format!("{}: {} is given as well: give one of the two", second.param, first.param);
        return Err(RequestError::new(&second.param, message));
    }
    Ok(found.pop())
}

fn of_kind(kind: Kind, param: &str, value: &Value) -> Result<Option<NamedGrammar>, RequestError> {
    let grammar = match kind {
        Kind::Json => Grammar::JsonSchema(schema(param, value)?),
        Kind::Object if boolean(param, value)? => Grammar::JsonObject,
        Kind::Regex => Grammar::Regex(text(param, value)?),
        Kind::Choice => Grammar::Choice(choices(param, value)?),
        // llama.cpp's clients send an empty one for none.
        Kind::Lark => match text(param, value)? {
            text if text.is_empty() => return Ok(None),
            text => Grammar::lark(text),
        },
        Kind::Object | Kind::Several => return Ok(None),
    };
    Ok(Some(NamedGrammar { param: param.to_string(), grammar }))
}

fn structured_outputs(name: &str, value: &Value) -> Result<Option<NamedGrammar>, RequestError> {
    let Value::Object(fields) = value else {
        return Err(expected(name, value, "an object with json, regex, choice, grammar or json_object"));
    };
    let mut found = Vec::new();
    for (key, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let param = format!("{name}.{key}");
        let kind = STRUCTURED.iter().find(|(known, _)| known == key).ok_or_else(|| unknown(&param))?.1;
        found.extend(of_kind(kind, &param, value)?);
    }
    one(found)
}

/// OpenAI's `response_format`, with the place for a schema that llama.cpp's server has besides.
fn response_format(value: &Value) -> Result<Option<NamedGrammar>, RequestError> {
    let name = "response_format";
    let forms = "{\"type\": \"text\"}, {\"type\": \"json_object\"} or {\"type\": \"json_schema\", \"json_schema\": {\"schema\": SCHEMA}}";
    let Value::Object(fields) = value else { return Err(expected(name, value, forms)) };
    known(name, fields, &["type", "schema", "json_schema"])?;
    let field = |key: &str| fields.get(key).filter(|value| !value.is_null());
    let kind = field("type").ok_or_else(|| missing("response_format.type"))?;
    let schema_of = |param: &str, value: &Value| {
        Ok(Some(NamedGrammar {
            param: param.to_string(),
            grammar: Grammar::JsonSchema(schema(param, value)?),
        }))
    };
    match (kind.as_str(), field("json_schema"), field("schema")) {
        (Some("text"), None, None) => Ok(None),
        (Some("json_object"), None, None) => {
            Ok(Some(NamedGrammar { param: name.to_string(), grammar: Grammar::JsonObject }))
        }
        (Some("json_object" | "json_schema"), None, Some(value)) => {
            schema_of("response_format.schema", value)
        }
        (Some("json_schema"), Some(Value::Object(inner)), None) => {
            let param = "response_format.json_schema";
            known(param, inner, &["name", "description", "strict", "schema"])?;
            // A text is valid by its schema whether it is strict or not.
            if let Some(strict) = inner.get("strict").filter(|value| !value.is_null()) {
                boolean("response_format.json_schema.strict", strict)?;
            }
            let param = "response_format.json_schema.schema";
            schema_of(param, inner.get("schema").ok_or_else(|| missing(param))?)
        }
        (Some("json_schema"), Some(other), None) => {
            Err(expected("response_format.json_schema", other, "an object with schema"))
        }
        (Some("json_schema"), None, None) => Err(missing("response_format.json_schema")),
        _ => Err(expected(name, value, forms)),
    }
}

/// A schema, or the text of one.
fn schema(param: &str, value: &Value) -> Result<Value, RequestError> {
    match value {
        Value::Object(_) | Value::Bool(_) => Ok(value.clone()),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(schema),
            _ => Err(expected(param, value, "a JSON schema")),
        },
        other => Err(expected(param, other, "a JSON schema")),
    }
}

fn choices(param: &str, value: &Value) -> Result<Vec<String>, RequestError> {
    let wrong = || expected(param, value, "a list of strings, all different, at least one");
    let list = value.as_array().filter(|list| !list.is_empty()).ok_or_else(wrong)?;
    if let Some((i, _)) =
        list.iter().enumerate().find(|(i, item)| list[..*i].iter().any(|other| same(other, item)))
    {
        let message = format!("{param}[{i}] = {}: it is in the list twice", display(&list[i]));
        return Err(RequestError::new(param, message));
    }
    list.iter().map(|item| item.as_str().map(str::to_string).ok_or_else(wrong)).collect()
}

fn known(param: &str, fields: &Map<String, Value>, known: &[&str]) -> Result<(), RequestError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(unknown(&format!("{param}.{key}"))),
        None => Ok(()),
    }
}

fn unknown(param: &str) -> RequestError {
    RequestError::new(param, format!("Unrecognized request argument supplied: {param}"))
}

fn missing(param: &str) -> RequestError {
    RequestError::new(param, format!("{param} is missing: it is required"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(body: &Value) -> Result<Option<(String, Grammar)>, RequestError> {
        let given = |name: &str| body.get(name).filter(|value| !value.is_null());
        Ok(read(&given)?.map(|found| (found.param, found.grammar)))
    }

    #[test]
    fn every_name_for_a_grammar_is_read() {
        let schema = json!({ "type": "string" });
        let json = || Grammar::JsonSchema(schema.clone());
        for (body, right) in [
            (json!({}), None),
            (json!({ "response_format": { "type": "text" }, "grammar": "" }), None),
            (json!({ "structured_outputs": { "json_object": false, "regex": null } }), None),
            (
                json!({ "response_format": { "type": "json_object" } }),
                Some(("response_format", Grammar::JsonObject)),
            ),
            (
                json!({ "response_format": { "type": "json_schema", "json_schema": {
                    "name": "x", "description": "y", "strict": true, "schema": schema } } }),
                Some(("response_format.json_schema.schema", json())),
            ),
            (
                json!({ "response_format": { "type": "json_object", "schema": schema } }),
                Some(("response_format.schema", json())),
            ),
            (json!({ "json_schema": schema }), Some(("json_schema", json()))),
            (json!({ "guided_json": schema.to_string() }), Some(("guided_json", json()))),
            (json!({ "regex": "a" }), Some(("regex", Grammar::Regex("a".to_string())))),
            (json!({ "guided_regex": "a" }), Some(("guided_regex", Grammar::Regex("a".to_string())))),
            (
                json!({ "guided_choice": ["a", "b"] }),
                Some(("guided_choice", Grammar::Choice(vec!["a".to_string(), "b".to_string()]))),
            ),
            (json!({ "grammar": "start: \"a\"" }), Some(("grammar", Grammar::lark("start: \"a\"")))),
            (
                json!({ "guided_grammar": "start: \"a\"" }),
                Some(("guided_grammar", Grammar::lark("start: \"a\""))),
            ),
            (json!({ "structured_outputs": { "json": schema } }), Some(("structured_outputs.json", json()))),
            (
                json!({ "structured_outputs": { "json_object": true } }),
                Some(("structured_outputs.json_object", Grammar::JsonObject)),
            ),
        ] {
            let right = right.map(|(param, grammar)| (param.to_string(), grammar));
            assert_eq!(of(&body).unwrap(), right, "{body}");
        }
    }

    #[test]
    fn anything_else_is_refused_at_its_place() {
        let format = |value: Value| json!({ "response_format": value });
        for (body, param) in [
            (format(json!("json")), "response_format"),
            (format(json!({})), "response_format.type"),
            (format(json!({ "type": "yaml" })), "response_format"),
            (format(json!({ "type": "text", "schema": {} })), "response_format"),
            (format(json!({ "type": "json_object", "x": 1 })), "response_format.x"),
            (format(json!({ "type": "json_schema" })), "response_format.json_schema"),
            (format(json!({ "type": "json_schema", "json_schema": 3 })), "response_format.json_schema"),
            (
                format(json!({ "type": "json_schema", "json_schema": {} })),
                "response_format.json_schema.schema",
            ),
            (
                format(json!({ "type": "json_schema", "json_schema": { "schema": 3 } })),
                "response_format.json_schema.schema",
            ),
            (
                format(json!({ "type": "json_schema", "json_schema": { "schema": {}, "strict": "yes" } })),
                "response_format.json_schema.strict",
            ),
            (json!({ "guided_json": "{" }), "guided_json"),
            (json!({ "guided_choice": [] }), "guided_choice"),
            (json!({ "guided_choice": ["a", 1] }), "guided_choice"),
            (json!({ "guided_choice": ["a", "a"] }), "guided_choice"),
            (json!({ "regex": 3 }), "regex"),
            (json!({ "grammar": {} }), "grammar"),
            (json!({ "structured_outputs": { "xml": 1 } }), "structured_outputs.xml"),
            (json!({ "regex": "a", "guided_regex": "a" }), "guided_regex"),
            (json!({ "structured_outputs": { "regex": "a", "json": {} } }), "structured_outputs.json"),
        ] {
            let error = of(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
            assert!(error.message.contains(param), "{body}: {error}");
        }
    }
}
