//! Tools, calls of tools, and what else a record gives the chat template beside its messages. Everything becomes
//! OpenAI's form, in which a served model is shown it.

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{ASSISTANT, Columns, convert::is_nothing};
use crate::rows::{Row, parse_json, type_name};

/// What a chat template reads of a record beside its messages.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Supplied {
    /// The functions that the model may call: `{"type": "function", "function": {"name", …}}`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Value>,
    /// Variables of the template by name: `documents`, and those of `chat_template_kwargs`.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub arguments: Map<String, Value>,
}

impl Supplied {
    /// What a record has of it.
    pub(super) fn of(row: &Row, columns: &Columns) -> Result<Self, String> {
        let mut supplied = Self::default();
        let column = |name| Ok::<_, String>((columns.name(name), parsed(row, columns.name(name))?));
        if let (name, Some(value)) = column("tools")? {
            supplied.tools = tools(&value).map_err(|e| format!("column {name:?}: {e}"))?;
        }
        if let (name, Some(value)) = column("documents")? {
            if !value.as_array().is_some_and(|list| list.iter().all(Value::is_object)) {
                return Err(format!(
                    "column {name:?}: expected a list of objects, which the chat template is given as its documents; to leave \
                     the column out, rename it"
                ));
            }
            supplied.arguments.insert("documents".to_string(), value);
        }
        let name = "chat_template_kwargs";
        match parsed(row, name)? {
            None => {}
            Some(Value::Object(arguments)) => {
                if let Some(taken) =
                    ["tools", "documents"].into_iter().find(|key| arguments.contains_key(*key))
                {
                    return Err(format!("column {name:?} has {taken:?}: it has a column of its own"));
                }
                // A table of fixed columns has null where a record does not give a key.
                supplied.arguments.extend(arguments.into_iter().filter(|(_, value)| !value.is_null()));
            }
            Some(other) => {
                return Err(format!("column {name:?} is {}, expected an object", type_name(&other)));
            }
        }
        Ok(supplied)
    }

    /// Whether there is nothing of it.
    pub fn is_empty(&self) -> bool {
        self.tools.is_empty() && self.arguments.is_empty()
    }

    /// The names of the tools.
    pub fn tool_names(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().filter_map(function_name)
    }
}

/// The name of the function of a tool, or of a call.
pub(crate) fn function_name(value: &Value) -> Option<&str> {
    value["function"]["name"].as_str()
}

/// A column's value, or what its text is as JSON; none where it is null or empty.
pub(super) fn parsed(row: &Row, name: &str) -> Result<Option<Value>, String> {
    match row.get(name) {
        Some(Value::String(text)) if !text.trim().is_empty() => {
            let value = parse_json(text).map_err(|e| format!("column {name:?} is not JSON: {e}"))?;
            Ok(Some(value).filter(|value| !is_nothing(value)))
        }
        Some(value) if !is_nothing(value) && !value.is_string() => Ok(Some(value.clone())),
        _ => Ok(None),
    }
}

/// The functions of a list, each as it is or within `{"type": "function", "function": …}`.
pub(super) fn tools(value: &Value) -> Result<Vec<Value>, String> {
    let Value::Array(list) = value else {
        return Err(format!("found {}, expected a list of tools", type_name(value)));
    };
    let mut found: Vec<Value> = Vec::with_capacity(list.len());
    for (i, item) in list.iter().enumerate() {
        let tool = tool(item).map_err(|e| format!("tool {}: {e}", i + 1))?;
        if let Some(name) =
            function_name(&tool).filter(|name| found.iter().any(|other| function_name(other) == Some(*name)))
        {
            return Err(format!("tool {}: another tool is called {name:?}, too", i + 1));
        }
        found.push(tool);
    }
    Ok(found)
}

fn tool(value: &Value) -> Result<Value, String> {
    let whole = wrapped(value)?;
    for (key, expected) in [("description", "a string"), ("parameters", "an object: a JSON schema")] {
        let given = &whole["function"][key];
        let fits = if key == "description" { given.is_string() } else { given.is_object() };
        if !given.is_null() && !fits {
            return Err(format!("its {key} is {}, expected {expected}", type_name(given)));
        }
    }
    Ok(whole)
}

/// A message's `tool_calls` as templates read them: the arguments are an object, not its text.
pub(super) fn calls(value: &Value) -> Result<Value, String> {
    let Value::Array(list) = value else {
        return Err(format!("its tool_calls is {}, expected a list of calls", type_name(value)));
    };
    list.iter().enumerate().map(|(i, item)| call(item).map_err(|e| format!("call {}: {e}", i + 1))).collect()
}

fn call(value: &Value) -> Result<Value, String> {
    let mut whole = wrapped(value)?;
    let name = function_name(&whole).unwrap_or_default().to_string();
    let given = whole["function"]["arguments"].take();
    let arguments = match &given {
        Value::Object(_) => given,
        Value::String(text) if text.trim().is_empty() => json!({}),
        Value::String(text) => match parse_json(text) {
            Ok(arguments @ Value::Object(_)) => arguments,
            Ok(other) => {
                return Err(format!(
                    "the arguments of {name} are the text of {}, expected that of an object",
                    type_name(&other)
                ));
            }
            Err(e) => return Err(format!("the arguments of {name} are not JSON: {e}")),
        },
        other => {
            return Err(format!(
                "the arguments of {name} are {}, expected an object or its text as JSON",
                type_name(other)
            ));
        }
    };
    whole["function"]["arguments"] = arguments;
    Ok(whole)
}

/// A function with a name within `{"type": "function", "function": …}`, whether it was or not.
fn wrapped(value: &Value) -> Result<Value, String> {
    let form = "{\"type\": \"function\", \"function\": {\"name\": …}}";
    let Value::Object(fields) = value else {
        return Err(format!("found {}, expected {form}", type_name(value)));
    };
    let whole = match fields.get("function") {
        Some(Value::Object(_)) => value.clone(),
        Some(other) => return Err(format!("its function is {}, expected {form}", type_name(other))),
        None => {
            let outer = |key: &str| key == "id" || key == "type";
            let (mut whole, function): (Map<_, _>, Map<_, _>) =
                fields.clone().into_iter().partition(|(key, _)| outer(key));
            whole.entry("type").or_insert_with(|| "function".into());
            whole.insert("function".to_string(), Value::Object(function));
            Value::Object(whole)
        }
    };
    match &whole["type"] {
        Value::Null => {}
        Value::String(kind) if kind == "function" => {}
        other => return Err(format!("its type is {other}, expected \"function\"")),
    }
    match function_name(&whole) {
        Some(name) if !name.trim().is_empty() => Ok(whole),
        _ => Err(format!("it has no name, expected {form}")),
    }
}

/// Reads what a message of a role says of calls. An empty list is left out.
pub(super) fn read_calls(role: &str, message: &mut Map<String, Value>) -> Result<(), String> {
    let Some(given) = message.get("tool_calls") else { return Ok(()) };
    if given.as_array().is_some_and(Vec::is_empty) {
        message.remove("tool_calls");
        return Ok(());
    }
    if role != ASSISTANT {
        return Err(format!("it has tool_calls, but its role is {role}: only {ASSISTANT} calls tools"));
    }
    let calls = calls(given)?;
    message.insert("tool_calls".to_string(), calls);
    Ok(())
}

/// The calls that a text is, the JSON of one or of a list of them: a message of `function_call` in LLaMA-Factory.
pub(super) fn calls_of_text(text: &str) -> Result<Value, String> {
    match parse_json(text).map_err(|e| format!("its function call is not JSON: {e}"))? {
        list @ Value::Array(_) => calls(&list),
        one => calls(&Value::Array(vec![one])),
    }
}
