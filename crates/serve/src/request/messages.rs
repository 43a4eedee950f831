//! `messages`: roles and contents. A part of a message that no template would get is refused.

use serde_json::{Map, Value};
use tritforge_text::Message;

use super::RequestError;
use super::tool_messages::tool_calls;
use super::values::{display, expected, text};

/// Keys of OpenAI's messages that have no meaning in the messages of most roles, or without audio or several
/// speakers. Clients send them empty.
const EMPTY_ONLY: [&str; 9] = [
    "name",
    "tool_calls",
    "tool_call_id",
    "function_call",
    "refusal",
    "audio",
    "annotations",
    "reasoning",
    "reasoning_content",
];

pub(super) fn read(value: &Value) -> Result<Vec<Message>, RequestError> {
    let Value::Array(list) = value else { return Err(expected("messages", value, "a list of messages")) };
    if list.is_empty() {
        return Err(RequestError::new("messages", "messages is empty: give at least one"));
    }
    list.iter().enumerate().map(|(i, item)| message(&format!("messages[{i}]"), item)).collect()
}

fn message(name: &str, value: &Value) -> Result<Message, RequestError> {
    let Value::Object(fields) = value else {
        return Err(expected(name, value, "an object with role and content"));
    };
    let role = fields.get("role").and_then(Value::as_str).unwrap_or_default();
    let mut more = Map::new();
    for (key, value) in fields {
        let param = format!("{name}.{key}");
        match (role, key.as_str()) {
            (_, "role" | "content") => {}
            // An empty list is none.
            ("assistant", "tool_calls") if value.as_array().is_none_or(|list| !list.is_empty()) => {
                if !value.is_null() {
                    more.insert(key.clone(), tool_calls(&param, value)?);
                }
            }
            ("tool", "tool_call_id" | "name") => {
                if !value.is_null() {
                    more.insert(key.clone(), text(&param, value)?.into());
                }
            }
            (_, key) if EMPTY_ONLY.contains(&key) => {
                if !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty()) {
                    return Err(RequestError::new(
                        &param,
                        format!("{param} = {} is not supported", display(value)),
                    ));
                }
            }
            _ => {
                return Err(RequestError::new(
                    &param,
                    format!("Unrecognized request argument supplied: {param}"),
                ));
            }
        }
    }
    let param = format!("{name}.role");
    let role = match fields.get("role") {
        Some(Value::String(role)) if !role.is_empty() => role.clone(),
        Some(role) => return Err(expected(&param, role, "a role, such as system, user or assistant")),
        None => return Err(RequestError::new(&param, format!("{param} is missing"))),
    };
    let empty = fields.get("content").is_none_or(Value::is_null);
    let content = match more.contains_key("tool_calls") && empty {
        true => String::new(),
        false => content(&format!("{name}.content"), fields)?,
    };
    Ok(Message { role, content, more })
}

/// A string, or the joined texts of a list of parts.
fn content(param: &str, fields: &Map<String, Value>) -> Result<String, RequestError> {
    match fields.get("content") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) if !parts.is_empty() => {
            parts.iter().enumerate().map(|(i, part)| part_text(&format!("{param}[{i}]"), part)).collect()
        }
        Some(other) => Err(expected(param, other, "a string or a list of text parts")),
        None => Err(RequestError::new(param, format!("{param} is missing"))),
    }
}

fn part_text(param: &str, part: &Value) -> Result<String, RequestError> {
    let Value::Object(fields) = part else {
        return Err(expected(param, part, "{\"type\": \"text\", \"text\": TEXT}"));
    };
    match fields.get("type").and_then(Value::as_str) {
        Some("text") => {}
        Some(kind) => {
            let message =
                format!("{param}: parts of type {kind} are not supported: this model accepts only text");
            return Err(RequestError::new(param, message));
        }
        None => return Err(RequestError::new(param, format!("{param}.type is missing: expected \"text\""))),
    }
    if let Some(key) = fields.keys().find(|key| !matches!(key.as_str(), "type" | "text")) {
        return Err(RequestError::new(
            param,
            format!("Unrecognized request argument supplied: {param}.{key}"),
        ));
    }
    match fields.get("text") {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(expected(&format!("{param}.text"), other, "a string")),
        None => Err(RequestError::new(param, format!("{param}.text is missing"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parts_are_joined_and_empty_extras_change_nothing() {
        let part = |text: &str| json!({"type": "text", "text": text});
        let found = read(&json!([
            {"role": "developer", "content": "a"},
            {"role": "user", "content": [part("b"), part(" c")]},
            {"role": "assistant", "content": "d", "refusal": null, "tool_calls": [], "audio": null},
        ]));
        let right =
            [("developer", "a"), ("user", "b c"), ("assistant", "d")].map(|(r, c)| Message::new(r, c));
        assert_eq!(found.unwrap(), right);
    }

    #[test]
    fn calls_and_what_came_of_them_are_kept_for_the_template() {
        let call = |arguments: Value| json!({ "id": "c1", "type": "function", "function": { "name": "add", "arguments": arguments } });
        let read = read(&json!([
            { "role": "assistant", "content": null, "tool_calls": [call(json!("{\"a\": 1}")), call(json!({}))] },
            { "role": "assistant", "tool_calls": [call(json!(""))] },
            { "role": "tool", "content": "3", "tool_call_id": "c1", "name": "add" },
        ]))
        .unwrap();
        assert_eq!((read[0].content.as_str(), read[1].content.as_str()), ("", ""));
        assert_eq!(read[0].more["tool_calls"], json!([call(json!({ "a": 1 })), call(json!({}))]));
        assert_eq!(Value::from(read[2].more.clone()), json!({ "tool_call_id": "c1", "name": "add" }));
    }

    #[test]
    fn what_would_be_dropped_is_refused_by_name() {
        let user = |more: Value| {
            let mut message = json!({"role": "user", "content": "x"});
            message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!([message])
        };
        let image = json!({"type": "image_url", "image_url": {"url": "data:"}});
        for (messages, named) in [
            (json!([]), "messages is empty"),
            (json!("hi"), "messages = "),
            (json!(["hi"]), "messages[0] = "),
            (json!([{"content": "x"}]), "messages[0].role is missing"),
            (json!([{"role": 1, "content": "x"}]), "messages[0].role = 1"),
            (json!([{"role": "user"}]), "messages[0].content is missing"),
            (user(json!({"content": null})), "messages[0].content = null"),
            (user(json!({"content": []})), "messages[0].content = []"),
            (user(json!({"content": 3})), "messages[0].content = 3"),
            (user(json!({"content": [image]})), "messages[0].content[0]: parts of type image_url"),
            (user(json!({"content": ["x"]})), "messages[0].content[0] = "),
            (user(json!({"content": [{"type": "text", "text": 1}]})), "messages[0].content[0].text = 1"),
            (user(json!({"content": [{"type": "text", "text": "x", "cache_control": {}}]})), "Unrecognized"),
            (user(json!({"name": "Ada"})), "messages[0].name = \"Ada\" is not supported"),
            (user(json!({"tool_calls": [{"id": "1"}]})), "messages[0].tool_calls"),
            (
                json!([{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[]"}}]}]),
                "messages[0].tool_calls[0].function.arguments",
            ),
            (json!([{"role": "assistant", "tool_calls": 3, "content": ""}]), "messages[0].tool_calls = 3"),
            (
                json!([{"role": "assistant", "tool_calls": [{"type": "custom"}]}]),
                "messages[0].tool_calls[0].type",
            ),
            (json!([{"role": "tool", "tool_call_id": 3, "content": "x"}]), "messages[0].tool_call_id = 3"),
            (json!([{"role": "tool", "tool_call_id": "a"}]), "messages[0].content is missing"),
            (user(json!({"weight": 1})), "Unrecognized request argument supplied: messages[0].weight"),
        ] {
            let error = read(&messages).unwrap_err();
            assert!(error.message.starts_with(named), "{messages}: {error}");
            assert!(error.param.unwrap().starts_with("messages"), "{messages}");
        }
    }
}
