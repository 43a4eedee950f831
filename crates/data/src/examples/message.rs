//! A message of a record: who says what, and whether it is to be learned.

use serde_json::{Map, Value};

use super::convert::is_nothing;
use super::{ASSISTANT, ChatTurn, tools};
use crate::rows::type_name;

/// Keys of a message by which data sets say whether it is to be learned: axolotl's, OpenAI's, ms-swift's.
const FLAGS: [&str; 6] = ["train", "training", "train_on_turn", "weight", "loss", "loss_scale"];

/// Keys of a message that say something that a template cannot be given.
const REFUSED_OF_MESSAGES: [(&str, &str); 10] = [
    ("images", "images are not supported"),
    ("image", "images are not supported"),
    ("videos", "videos are not supported"),
    ("audio", "audio is not supported"),
    ("audios", "audio is not supported"),
    ("train_detail", "per-part loss masks are not supported: use train = true or false"),
    ("training_detail", "per-part loss masks are not supported: use train = true or false"),
    ("reasoning_training_detail", "per-part loss masks are not supported: use train = true or false"),
    ("mask", "its meaning differs between data sets: use train = true or false"),
    ("loss_mask", "its meaning differs between data sets: use train = true or false"),
];

/// A message: `role` and `content`, or `from` and `value`.
pub(super) fn said(item: &Value) -> Result<ChatTurn, String> {
    let Value::Object(item) = item else {
        return Err(format!("found {}; expected an object with role and content", type_name(item)));
    };
    if let Some((name, why)) =
        REFUSED_OF_MESSAGES.iter().find(|(name, _)| item.get(*name).is_some_and(|value| !is_nothing(value)))
    {
        return Err(format!("it has {name:?}: {why}"));
    }
    let mut message = Map::new();
    let role = match (item.get("role"), item.get("from")) {
        (Some(Value::String(role)), _) => role.as_str(),
        (None, Some(Value::String(from))) if from == "function_call" => return function_call(item),
        (None, Some(Value::String(from))) => speaker(from)?,
        (None, None) => return Err("it has no \"role\" and no \"from\"".to_string()),
        _ => return Err("its role is not a string".to_string()),
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
    tools::read_calls(role, &mut message)?;
    if !message.contains_key("content") && !message.contains_key("tool_calls") {
        return Err("it has no \"content\"".to_string());
    }
    let answer = role == ASSISTANT;
    let flag = flag(item)?;
    Ok(ChatTurn { message, answer, learn: flag.unwrap_or(answer), flag })
}

/// An answer that is nothing but calls of tools, as LLaMA-Factory writes them: their JSON as its text.
fn function_call(item: &Map<String, Value>) -> Result<ChatTurn, String> {
    let Some(Value::String(text)) = item.get("value") else {
        return Err("it is a function_call, expected the JSON of a call as its value".to_string());
    };
    let mut turn = ChatTurn::new(ASSISTANT, "");
    turn.message.insert("tool_calls".to_string(), tools::calls_of_text(text)?);
    turn.flag = flag(item)?;
    turn.learn = turn.flag.unwrap_or(true);
    Ok(turn)
}

/// Text, or a list of parts that are all text.
fn content_of(content: Option<&Value>) -> Result<Value, String> {
    match content {
        None | Some(Value::Null) => Ok(Value::Null),
        Some(Value::String(text)) => Ok(Value::from(text.as_str())),
        Some(Value::Array(parts)) => {
            let flags = ["train", "weight", "training", "train_detail", "training_detail"];
            // axolotl's flags of parts.
            let flagged = |part: &Value| flags.into_iter().find(|flag| !part[*flag].is_null());
            if let Some(flag) = parts.iter().find_map(flagged) {
                return Err(format!(
                    "a part of its content has {flag:?}: parts of a message cannot be left out: give the message train = true \
                     or false"
                ));
            }
            let text = |part: &Value| match (part, part["type"].as_str(), part["text"].as_str()) {
                (Value::String(text), ..) => Ok(text.clone()),
                (_, Some("text"), Some(text)) => Ok(text.to_string()),
                (_, kind, _) => {
                    let kind = kind.unwrap_or("without a type");
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
        _ => Err(format!("from = {from:?}: expected human, gpt, system, tool, function_call or observation")),
    }
}

/// What a message says of whether it is to be learned: true or false, 1 or 0.
fn flag(item: &Map<String, Value>) -> Result<Option<bool>, String> {
    let mut found: Option<(&str, bool)> = None;
    for name in FLAGS {
        let flag = match item.get(name) {
            None | Some(Value::Null) => continue,
            Some(Value::Bool(flag)) => *flag,
            Some(number) if number.as_f64() == Some(0.0) => false,
            Some(number) if number.as_f64() == Some(1.0) => true,
            Some(other) => return Err(format!("{name} = {other}: expected true or false, 1 or 0")),
        };
        match found {
            Some((other, before)) if before != flag => {
                return Err(format!("{name} = {flag} contradicts {other} = {before}"));
            }
            _ => found = Some((name, flag)),
        }
    }
    Ok(found.map(|(_, flag)| flag))
}
