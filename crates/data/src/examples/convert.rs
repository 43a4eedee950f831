//! A record becomes messages, whatever its layout.

use serde_json::{Map, Value};

use super::{ASSISTANT, Body, Columns, RecordKind, Said};
use crate::records::type_name;
use crate::rows::Row;

/// Keys of a message by which data sets say whether it is to be learned.
const FLAGS: [&str; 3] = ["train", "training", "weight"];

/// The example that a record of a layout is.
pub(super) fn body(row: &Row, kind: RecordKind, columns: &Columns) -> Result<Body, String> {
    let record = Record { row, columns };
    if let Some(tools) = row.get("tools").filter(|tools| !is_nothing(tools)) {
        return Err(format!(
            "column \"tools\" is {}: descriptions of tools are not supported",
            type_name(tools)
        ));
    }
    Ok(match kind {
        RecordKind::Alpaca => {
            let (instruction, input) = (record.text("instruction")?, record.optional("input")?);
            let mut said = record.system()?;
            said.push(match input {
                None => Said::new("user", instruction),
                // Templates know one content; that of Alpaca also knows its parts.
                Some(input) => {
                    let mut user = Said::new("user", &format!("{instruction}\n\n{input}"));
                    user.message.insert("instruction".to_string(), Value::from(instruction));
                    user.message.insert("input".to_string(), Value::from(input));
                    user
                }
            });
            said.push(Said::new(ASSISTANT, record.text("output")?));
            Body::Turns(said)
        }
        RecordKind::InputOutput => {
            let mut said = record.system()?;
            said.push(Said::new("user", record.text("input")?));
            said.push(Said::new(ASSISTANT, record.text("output")?));
            Body::Turns(said)
        }
        RecordKind::Messages | RecordKind::Sharegpt => {
            let column = if kind == RecordKind::Messages { "messages" } else { "conversations" };
            let mut said = record.messages(column)?;
            if said.first().is_none_or(|first| first.role() != "system") {
                said.splice(0..0, record.system()?);
            }
            Body::Turns(said)
        }
        RecordKind::PromptCompletion => {
            let mut said = record.said("prompt", "user")?;
            said.iter_mut().for_each(|said| said.learn = false);
            said.extend(record.said("completion", ASSISTANT)?);
            Body::Turns(said)
        }
        RecordKind::Preference => record.preference()?,
        RecordKind::Text | RecordKind::Auto => Body::Text(record.text("text")?.to_string()),
    })
}

struct Record<'a> {
    row: &'a Row,
    columns: &'a Columns,
}

impl<'a> Record<'a> {
    fn get(&self, column: &str) -> Result<&'a Value, String> {
        let name = self.columns.name(column);
        self.row.get(name).ok_or_else(|| {
            let found: Vec<&str> = self.row.keys().map(String::as_str).collect();
            format!("no column {name:?}: found {}", found.join(", "))
        })
    }

    fn text(&self, column: &str) -> Result<&'a str, String> {
        let value = self.get(column)?;
        value.as_str().ok_or_else(|| self.wrong(column, value, "a string"))
    }

    /// A string that need not be there and may be null or empty.
    fn optional(&self, column: &str) -> Result<Option<&'a str>, String> {
        match self.row.get(self.columns.name(column)) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|text| !text.is_empty())),
            Some(other) => Err(self.wrong(column, other, "a string")),
        }
    }

    fn wrong(&self, column: &str, value: &Value, expected: &str) -> String {
        format!("column {:?} is {}, expected {expected}", self.columns.name(column), type_name(value))
    }

    /// The system prompt of a column, where there is one.
    fn system(&self) -> Result<Vec<Said>, String> {
        Ok(self.optional("system")?.map(|text| Said::new("system", text)).into_iter().collect())
    }

    /// A list of messages; in a table of strings, its JSON.
    fn messages(&self, column: &str) -> Result<Vec<Said>, String> {
        let value = self.get(column)?;
        let parsed: Value;
        let value = match value {
            Value::String(text) => {
                parsed = serde_json::from_str(text)
                    .map_err(|e| format!("column {:?} is not JSON: {e}", self.columns.name(column)))?;
                &parsed
            }
            other => other,
        };
        let Value::Array(items) = value else {
            return Err(self.wrong(column, value, "a list of messages"));
        };
        if items.is_empty() {
            return Err(format!(
                "column {:?} is an empty list, expected messages",
                self.columns.name(column)
            ));
        }
        let said = items
            .iter()
            .enumerate()
            .map(|(i, item)| said(item).map_err(|e| format!("message {}: {e}", i + 1)));
        said.collect()
    }

    /// A string as one message of a role, or a list of messages.
    fn said(&self, column: &str, role: &str) -> Result<Vec<Said>, String> {
        match self.get(column)? {
            Value::String(text) => Ok(vec![Said::new(role, text)]),
            Value::Array(_) => self.messages(column),
            other => Err(self.wrong(column, other, "a string or a list of messages")),
        }
    }

    /// A prompt with two answers. Lists may repeat the prompt; without a prompt, it is what both lists begin with.
    fn preference(&self) -> Result<Body, String> {
        let (mut chosen, mut rejected) = (self.said("chosen", ASSISTANT)?, self.said("rejected", ASSISTANT)?);
        let mut prompt = self.system()?;
        if self.row.contains_key(self.columns.name("prompt")) {
            prompt.extend(self.said("prompt", "user")?);
            for answer in [&mut chosen, &mut rejected] {
                if answer.len() > prompt.len()
                    && answer.iter().zip(&prompt).all(|(a, p)| a.message == p.message)
                {
                    answer.drain(..prompt.len());
                }
            }
        } else {
            let common = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
            if common == 0 {
                return Err("there is no column \"prompt\", and the answers have no first message in common"
                    .to_string());
            }
            prompt.extend(chosen.drain(..common));
            rejected.drain(..common);
        }
        prompt.iter_mut().for_each(|said| said.learn = false);
        if chosen.is_empty() || rejected.is_empty() {
            return Err("one of the answers is nothing but the prompt".to_string());
        }
        Ok(Body::Preference { prompt, chosen, rejected })
    }
}

/// A message: `role` and `content`, or `from` and `value`.
fn said(item: &Value) -> Result<Said, String> {
    let Value::Object(item) = item else {
        return Err(format!("found {}, expected an object with role and content", type_name(item)));
    };
    let mut message = Map::new();
    let role = match (item.get("role"), item.get("from")) {
        (Some(Value::String(role)), _) => role.as_str(),
        (None, Some(Value::String(from))) => speaker(from)?,
        (None, None) => return Err("it has no \"role\" and no \"from\"".to_string()),
        _ => return Err("its role is no string".to_string()),
    };
    message.insert("role".to_string(), Value::from(role));
    let content = item.get("content").or_else(|| item.get("value"));
    // As `transformers` does, null is left out: templates write "None" for it.
    if let content @ Value::String(_) = content_of(content)? {
        message.insert("content".to_string(), content);
    }
    let known = ["role", "from", "content", "value"];
    let others = item.iter().filter(|(key, value)| {
        !known.contains(&key.as_str()) && !FLAGS.contains(&key.as_str()) && !value.is_null()
    });
    message.extend(others.map(|(key, value)| (key.clone(), value.clone())));
    if !message.contains_key("content") && !message.contains_key("tool_calls") {
        return Err("it has no \"content\"".to_string());
    }
    let answer = role == ASSISTANT;
    let learn = flag(item)?.unwrap_or(answer);
    Ok(Said { message, answer, learn })
}

/// Text, or a list of parts that are all text.
fn content_of(content: Option<&Value>) -> Result<Value, String> {
    match content {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::String(text)) => Ok(Value::from(text.as_str())),
        Some(Value::Array(parts)) => {
            let text = |part: &Value| match (part, part["type"].as_str(), part["text"].as_str()) {
                (Value::String(text), ..) => Ok(text.clone()),
                (_, Some("text"), Some(text)) => Ok(text.to_string()),
                (_, kind, _) => {
                    let kind = kind.unwrap_or("of no type");
                    Err(format!("a part of its content is {kind}, expected text"))
                }
            };
            Ok(Value::from(parts.iter().map(text).collect::<Result<String, String>>()?))
        }
        Some(other) => Err(format!("its content is {}, expected a string", type_name(other))),
    }
}

/// The role of a name by which ShareGPT's data sets call speakers.
fn speaker(from: &str) -> Result<&'static str, String> {
    match from.to_ascii_lowercase().as_str() {
        "human" | "user" => Ok("user"),
        "gpt" | "assistant" | "model" | "chatgpt" | "bot" | "bing" | "bard" => Ok(ASSISTANT),
        "system" => Ok("system"),
        "tool" | "observation" | "function_response" => Ok("tool"),
        _ => Err(format!("from = {from:?}: expected human, gpt, system or tool")),
    }
}

/// What a message says of whether it is to be learned: `train` or `weight`, true or false, 1 or 0.
fn flag(item: &Map<String, Value>) -> Result<Option<bool>, String> {
    for name in FLAGS {
        match item.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Bool(flag)) => return Ok(Some(*flag)),
            Some(number) if number.as_f64() == Some(0.0) => return Ok(Some(false)),
            Some(number) if number.as_f64() == Some(1.0) => return Ok(Some(true)),
            Some(other) => return Err(format!("{name} = {other}: expected true or false, 1 or 0")),
        }
    }
    Ok(None)
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::String(text) => text.is_empty() || text == "[]",
        _ => false,
    }
}
