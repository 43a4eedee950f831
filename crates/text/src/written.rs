//! Whether a template wrote what it was given: what it leaves out would be missing without a word.

use serde_json::Value;

use crate::TextError;

/// Checks that a rendered conversation has each message that is not a user's or an assistant's, each call of a tool,
/// and each tool. `messages` and `tools` are in OpenAI's form.
///
/// # Errors
/// If it lacks one; the text says which.
pub(crate) fn all_is_written(messages: &[Value], tools: &[Value], text: &str) -> Result<(), TextError> {
    if let Some(message) = messages.iter().find(|message| left_out(message, text)) {
        return fault(format!("the chat template drops messages with the role {}", message["role"]));
    }
    if let Some(name) = messages.iter().flat_map(calls).find(|name| !text.contains(name)) {
        return fault(format!("the chat template drops calls of tools, such as that of {name}"));
    }
    if let Some(name) = tools.iter().filter_map(function).find(|name| !text.contains(name)) {
        return fault(format!(
            "the chat template does not show tools to the model, such as {name}: it was not trained on them"
        ));
    }
    Ok(())
}

/// Checks that what a template wrote of an answer has its calls and, beside them, its text.
///
/// # Errors
/// If it lacks one; the text says which.
pub(crate) fn answer_is_written(answer: &Value, text: &str) -> Result<(), TextError> {
    let mut names = calls(answer).peekable();
    if names.peek().is_none() {
        return Ok(());
    }
    if let Some(name) = names.find(|name| !text.contains(name)) {
        return fault(format!("the chat template drops calls of tools, such as that of {name}"));
    }
    // Reasoning in front of it may be written elsewhere, or not at all.
    let content = answer["content"].as_str().unwrap_or_default();
    let content = content.rsplit("</think>").next().unwrap_or_default().trim();
    if !text.contains(content) {
        return fault(
            "the chat template drops what an answer says beside its calls: leave its content out, or choose another \
             template"
                .to_string(),
        );
    }
    Ok(())
}

/// The names of the tools that a message calls.
fn calls(message: &Value) -> impl Iterator<Item = &str> {
    message["tool_calls"].as_array().into_iter().flatten().filter_map(function)
}

/// The name of the function of a tool or a call.
fn function(value: &Value) -> Option<&str> {
    value["function"]["name"].as_str()
}

/// Whether a template that does not know a message's role has dropped it. Users and assistants are known to
/// all; of an assistant templates may leave out what it thought.
fn left_out(message: &Value, text: &str) -> bool {
    let content = message["content"].as_str().unwrap_or_default().trim();
    let written = || text.contains(content) || text.contains(json_escaped(content).as_str());
    !matches!(message["role"].as_str(), Some("user" | "assistant")) && !written()
}

/// A text as it stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let json = Value::from(text).to_string();
    json[1..json.len() - 1].to_string()
}

fn fault(problem: String) -> Result<(), TextError> {
    Err(TextError::Template { line: None, problem })
}
