//! Records of Salesforce's xLAM function-calling sets: `query`, `tools` and `answers`, the latter two usually the text of
//! JSON. Arguments are described there by names of Python's types, here by a JSON schema, as other tools are.

use serde_json::{Map, Value, json};

use super::tools::calls;
use super::{ASSISTANT, ChatTurn};

/// The conversation of a record: the question, and an answer of nothing but calls.
pub(super) fn turns(query: &str, answers: Option<Value>) -> Result<Vec<ChatTurn>, String> {
    let mut answer = ChatTurn::new(ASSISTANT, "");
    if let Some(answers) = answers {
        answer.message.insert("tool_calls".to_string(), calls(&answers)?);
    }
    Ok(vec![ChatTurn::new("user", query), answer])
}

/// A tool whose parameters are `{name: {"type": "str, optional", "description", "default"}}` with a schema of these; one
/// that has a schema stays as it is.
pub(super) fn with_schema(mut tool: Value) -> Value {
    let Some(Value::Object(given)) = tool["function"].get("parameters") else { return tool };
    let is_schema = given.get("properties").is_some_and(Value::is_object);
    if is_schema || !given.values().all(Value::is_object) {
        return tool;
    }
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (name, described) in given {
        let mut described = described.clone();
        let (kind, optional) = described["type"].as_str().map_or((None, false), json_type);
        if !optional && described.get("default").is_none() {
            required.push(name.clone());
        }
        if let Some(kind) = kind {
            described["type"] = kind.into();
        }
        properties.insert(name.clone(), described);
    }
    tool["function"]["parameters"] =
        json!({ "type": "object", "properties": properties, "required": required });
    tool
}

/// The type of JSON that a type of Python is, if it is known, and whether it is optional.
fn json_type(python: &str) -> (Option<&'static str>, bool) {
    let (written, mut optional) = match python.split_once(',').filter(|(_, rest)| rest.trim() == "optional") {
        Some((kind, _)) => (kind.trim(), true),
        None => (python.trim(), false),
    };
    let inner = written.strip_prefix("Optional[").and_then(|rest| rest.strip_suffix(']'));
    optional |= inner.is_some();
    let name = inner.unwrap_or(written).split('[').next().unwrap_or_default().trim().to_ascii_lowercase();
    let kind = match name.as_str() {
        "str" | "string" => Some("string"),
        "int" | "integer" => Some("integer"),
        "float" | "number" => Some("number"),
        "bool" | "boolean" => Some("boolean"),
        "list" | "tuple" | "set" | "array" => Some("array"),
        "dict" | "object" => Some("object"),
        _ => None,
    };
    (kind, optional)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_of_python_become_types_of_json() {
        for (python, kind, optional) in [
            ("str", Some("string"), false),
            ("int, optional", Some("integer"), true),
            ("List[List[int]]", Some("array"), false),
            ("Tuple[int, int]", Some("array"), false),
            ("Optional[Dict[str, float]]", Some("object"), true),
            ("Callable[[float], float]", None, false),
        ] {
            assert_eq!(json_type(python), (kind, optional), "{python}");
        }
    }
}
