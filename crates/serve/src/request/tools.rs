//! `tools`, `tool_choice` and `parallel_tool_calls`.

use serde_json::{Value, json};
use tritforge_support::counted;

use super::RequestError;
use super::values::{boolean, display, expected, known, text};

/// Tools that a request may have at most.
const MOST_TOOLS: usize = 128;
/// Characters of a function's name at most, as in OpenAI's reference.
const NAME_LENGTH: usize = 64;

/// What the model may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tools {
    /// The functions, at least one.
    pub functions: Vec<Function>,
    /// Whether it has to.
    pub choice: ToolChoice,
    /// Whether an answer may have several calls.
    pub parallel: bool,
}

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The schema of its arguments.
    pub parameters: Value,
    /// The tool as the request gives it, for the template.
    pub spec: Value,
}

/// `tool_choice`; `none` is a request without tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    Auto,
    /// At least one call of any of the functions.
    Required,
    /// A call of this one.
    Named(String),
}

/// The tools of a request, if it has some that may be called.
pub(super) fn read<'a>(given: &impl Fn(&str) -> Option<&'a Value>) -> Result<Option<Tools>, RequestError> {
    let functions = given("tools").map_or(Ok(Vec::new()), functions)?;
    let choice = given("tool_choice").map(|value| choice(value, &functions)).transpose()?;
    let parallel =
        given("parallel_tool_calls").map_or(Ok(true), |value| boolean("parallel_tool_calls", value))?;
    let choice = match choice {
        Some(choice) => choice,
        None => Some(ToolChoice::Auto),
    };
    Ok(choice.filter(|_| !functions.is_empty()).map(|choice| Tools { functions, choice, parallel }))
}

fn functions(value: &Value) -> Result<Vec<Function>, RequestError> {
    let Value::Array(list) = value else { return Err(expected("tools", value, "a list of tools")) };
    if list.len() > MOST_TOOLS {
        let message = format!("tools: {}, expected at most {MOST_TOOLS}", counted(list.len(), "tool"));
        return Err(RequestError::new("tools", message));
    }
    let mut found: Vec<Function> = Vec::with_capacity(list.len());
    for (i, tool) in list.iter().enumerate() {
        let function = function(&format!("tools[{i}]"), tool)?;
        if found.iter().any(|other| other.name == function.name) {
            let message =
                format!("tools[{i}].function.name = {:?}: another tool has this name", function.name);
            return Err(RequestError::new(format!("tools[{i}].function.name"), message));
        }
        found.push(function);
    }
    Ok(found)
}

fn function(param: &str, value: &Value) -> Result<Function, RequestError> {
    let form = "{\"type\": \"function\", \"function\": {\"name\": NAME, \"parameters\": SCHEMA}}";
    let Value::Object(tool) = value else { return Err(expected(param, value, form)) };
    known(param, tool, &["type", "function"])?;
    if tool.get("type").and_then(Value::as_str) != Some("function") {
        let found = tool.get("type").unwrap_or(&Value::Null);
        return Err(expected(&format!("{param}.type"), found, "\"function\""));
    }
    let inner = format!("{param}.function");
    let function = match tool.get("function") {
        Some(Value::Object(function)) => function,
        other => return Err(expected(&inner, other.unwrap_or(&Value::Null), form)),
    };
    known(&inner, function, &["name", "description", "parameters", "strict"])?;
    let name = name(&format!("{inner}.name"), function.get("name"))?;
    let given = |key: &str| function.get(key).filter(|value| !value.is_null());
    if let Some(description) = given("description") {
        text(&format!("{inner}.description"), description)?;
    }
    if let Some(strict) = given("strict") {
        boolean(&format!("{inner}.strict"), strict)?;
    }
    let parameters = match given("parameters") {
        None => json!({ "type": "object", "properties": {}, "additionalProperties": false }),
        Some(Value::Object(schema)) => {
            let mut schema = schema.clone();
            // Arguments are an object, whether the schema says so or not.
            if !["type", "$ref", "anyOf", "allOf", "oneOf"].iter().any(|key| schema.contains_key(*key)) {
                schema.insert("type".to_string(), "object".into());
            }
            Value::Object(schema)
        }
        Some(other) => return Err(expected(&format!("{inner}.parameters"), other, "a JSON schema")),
    };
    Ok(Function { name, parameters, spec: value.clone() })
}

fn name(param: &str, value: Option<&Value>) -> Result<String, RequestError> {
    let missing = || RequestError::new(param, format!("{param} is missing: it is required"));
    let value = value.ok_or_else(missing)?;
    let name = text(param, value)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > NAME_LENGTH || !name.chars().all(plain) {
        return Err(expected(param, value, "1 to 64 letters, digits and _-."));
    }
    Ok(name)
}

/// None for `"none"`.
fn choice(value: &Value, functions: &[Function]) -> Result<Option<ToolChoice>, RequestError> {
    let param = "tool_choice";
    let forms =
        "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": NAME}}";
    let choice = match value {
        Value::String(word) => match word.as_str() {
            "none" => return Ok(None),
            "auto" => return Ok(Some(ToolChoice::Auto)),
            "required" => ToolChoice::Required,
            _ => return Err(expected(param, value, forms)),
        },
        Value::Object(fields) if fields.get("type").and_then(Value::as_str) == Some("function") => {
            known(param, fields, &["type", "function"])?;
            let named = name("tool_choice.function.name", value.pointer("/function/name"))?;
            if !functions.iter().any(|function| function.name == named) {
                let names: Vec<&str> = functions.iter().map(|function| function.name.as_str()).collect();
                let message = format!(
                    "tool_choice.function.name = {named:?}: expected one of the tools: {}",
                    names.join(", ")
                );
                return Err(RequestError::new("tool_choice.function.name", message));
            }
            ToolChoice::Named(named)
        }
        _ => return Err(expected(param, value, forms)),
    };
    if functions.is_empty() {
        let message = format!("tool_choice = {}: only allowed when tools are given", display(value));
        return Err(RequestError::new(param, message));
    }
    Ok(Some(choice))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: &Value) -> Result<Option<Tools>, RequestError> {
        read(&|name: &str| body.get(name).filter(|value| !value.is_null()))
    }

    fn tool(name: &str) -> Value {
        json!({ "type": "function", "function": { "name": name, "description": "x", "parameters": { "properties": {} } } })
    }

    #[test]
    fn tools_and_choices_are_read() {
        let tools = json!([tool("a"), tool("b-2")]);
        assert_eq!(of(&json!({})).unwrap(), None);
        assert_eq!(
            of(&json!({ "tools": [], "tool_choice": "auto", "parallel_tool_calls": false })).unwrap(),
            None
        );
        assert_eq!(of(&json!({ "tools": tools, "tool_choice": "none" })).unwrap(), None);
        let found = of(&json!({ "tools": tools })).unwrap().unwrap();
        assert_eq!((found.choice, found.parallel, found.functions.len()), (ToolChoice::Auto, true, 2));
        assert_eq!(found.functions[0].parameters, json!({ "properties": {}, "type": "object" }));
        assert_eq!(found.functions[1].spec, tool("b-2"));
        let named = json!({ "type": "function", "function": { "name": "a" } });
        for (value, right) in
            [(json!("required"), ToolChoice::Required), (named, ToolChoice::Named("a".to_string()))]
        {
            let found = of(&json!({ "tools": tools, "tool_choice": value, "parallel_tool_calls": false }));
            let found = found.unwrap().unwrap();
            assert_eq!((found.choice, found.parallel), (right, false));
        }
    }

    #[test]
    fn what_is_wrong_is_refused_at_its_place() {
        let function = |function: Value| json!({ "tools": [{ "type": "function", "function": function }] });
        for (body, param) in [
            (json!({ "tools": {} }), "tools"),
            (json!({ "tools": [3] }), "tools[0]"),
            (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type"),
            (json!({ "tools": [{ "type": "function" }] }), "tools[0].function"),
            (function(json!({})), "tools[0].function.name"),
            (function(json!({ "name": "a b" })), "tools[0].function.name"),
            (function(json!({ "name": "x".repeat(65) })), "tools[0].function.name"),
            (function(json!({ "name": "a", "parameters": [] })), "tools[0].function.parameters"),
            (function(json!({ "name": "a", "strict": 1 })), "tools[0].function.strict"),
            (function(json!({ "name": "a", "cost": 1 })), "tools[0].function.cost"),
            (json!({ "tools": [tool("a"), tool("a")] }), "tools[1].function.name"),
            (json!({ "tools": vec![tool("a"); 129] }), "tools"),
            (json!({ "tool_choice": "required" }), "tool_choice"),
            (json!({ "tools": [tool("a")], "tool_choice": "any" }), "tool_choice"),
            (
                json!({ "tools": [tool("a")], "tool_choice": { "type": "function", "function": { "name": "b" } } }),
                "tool_choice.function.name",
            ),
            (json!({ "tools": [tool("a")], "parallel_tool_calls": 1 }), "parallel_tool_calls"),
        ] {
            let error = of(&body).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param), "{body}: {error}");
            assert!(error.message.contains(param), "{error}");
        }
    }
}
