//! What a conversation says of calls of tools: an assistant's `tool_calls`, and what came of them.

use serde_json::{Value, json};

use super::RequestError;
use super::values::{expected, known, text};

/// A message's `tool_calls` as templates read them: the arguments are an object, not its text.
pub(super) fn tool_calls(param: &str, value: &Value) -> Result<Value, RequestError> {
    let Value::Array(list) = value else { return Err(expected(param, value, "a list of calls")) };
    list.iter().enumerate().map(|(i, call)| tool_call(&format!("{param}[{i}]"), call)).collect()
}

fn tool_call(param: &str, value: &Value) -> Result<Value, RequestError> {
    let form = "{\"id\": ID, \"type\": \"function\", \"function\": {\"name\": NAME, \"arguments\": JSON}}";
    let Value::Object(call) = value else { return Err(expected(param, value, form)) };
    known(param, call, &["id", "type", "function", "index"])?;
    if let Some(kind) = call.get("type").filter(|kind| *kind != "function") {
        return Err(expected(&format!("{param}.type"), kind, "\"function\""));
    }
    let Some(Value::Object(function)) = call.get("function") else {
        return Err(expected(
            &format!("{param}.function"),
            call.get("function").unwrap_or(&Value::Null),
            form,
        ));
    };
    known(&format!("{param}.function"), function, &["name", "arguments"])?;
    let field = |key: &str| function.get(key).unwrap_or(&Value::Null);
    let name = text(&format!("{param}.function.name"), field("name"))?;
    let arguments = arguments(&format!("{param}.function.arguments"), field("arguments"))?;
    let mut read = json!({ "type": "function", "function": { "name": name, "arguments": arguments } });
    if let Some(id) = call.get("id").filter(|id| !id.is_null()) {
        read["id"] = text(&format!("{param}.id"), id)?.into();
    }
    Ok(read)
}

/// An object, or the text of one; no text is an object without fields.
fn arguments(param: &str, value: &Value) -> Result<Value, RequestError> {
    let parsed = match value {
        Value::Object(_) => return Ok(value.clone()),
        Value::String(text) if text.trim().is_empty() => return Ok(json!({})),
        Value::String(text) => serde_json::from_str::<Value>(text).ok(),
        _ => None,
    };
    parsed.filter(Value::is_object).ok_or_else(|| expected(param, value, "the text of a JSON object"))
}
