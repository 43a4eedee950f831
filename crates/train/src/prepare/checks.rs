//! What contradicts a recipe in its examples: what the template would leave out, flags against the loss.

use serde_json::{Map, Value};
use tritforge_data::{Body, Example};

use crate::TrainError;

/// What an answer may consist of beside its content.
const PARTS: [&str; 5] = ["tool_calls", "function_call", "reasoning_content", "reasoning", "thinking"];

/// Whether a template has a word that is no part of a longer one.
fn names(template: &str, word: &str) -> bool {
    let inside = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    template.match_indices(word).any(|(at, _)| {
        let (before, after) = (&template[..at], &template[at + word.len()..]);
        !inside(before.chars().next_back()) && !inside(after.chars().next())
    })
}

/// Refuses arguments of a recipe that a template does not know.
pub(super) fn arguments_are_used(arguments: &Map<String, Value>, template: &str) -> Result<(), TrainError> {
    match arguments.keys().find(|name| !names(template, name)) {
        None => Ok(()),
        Some(name) => Err(TrainError::State(format!(
            "data.chat_template_kwargs.{name}: data.template does not use it: take it out, or choose a template that does"
        ))),
    }
}

/// Refuses an example with a message of which a template knows only a part, or with tools or arguments that it does not
/// know: the rest would be left out without a word.
pub(super) fn all_is_written(example: &Example, template: &str) -> Result<(), TrainError> {
    let supplied = &example.supplied;
    let tools = if supplied.tools.is_empty() { None } else { Some("tools") };
    let arguments = supplied.arguments.keys().map(String::as_str);
    if let Some(name) = tools.into_iter().chain(arguments).find(|name| !names(template, name)) {
        return Err(TrainError::State(format!(
            "{}: the record has {name:?}, which data.template does not use: choose a template that does, or remove it from \
             the data",
            example.source
        )));
    }
    for (index, said) in example.body.messages().into_iter().enumerate() {
        let lost = PARTS.into_iter().find(|part| said.message.contains_key(*part) && !names(template, part));
        if let Some(part) = lost {
            return Err(TrainError::State(format!(
                "{}: message {} has {part:?}, which data.template does not use: choose a template that does, \
                 or remove it from the data",
                example.source,
                index + 1
            )));
        }
    }
    Ok(())
}

/// Refuses an example that says of a message that it is not to be learned, where every token is.
pub(super) fn learns_all(example: &Example) -> Result<(), TrainError> {
    let Body::Turns(said) = &example.body else { return Ok(()) };
    match said.iter().position(|said| said.flag == Some(false)) {
        None => Ok(()),
        Some(index) => Err(TrainError::State(format!(
            "{}: message {} says that it is not to be learned, and data.loss = \"all\" learns every token: leave the flag out of \
             the data, or choose data.loss = \"completions\"",
            example.source,
            index + 1
        ))),
    }
}

#[cfg(test)]
mod tests {
    use tritforge_data::ChatTurn;

    use super::*;

    #[test]
    fn a_message_that_is_not_to_be_learned_contradicts_loss_all() {
        let example = |flag| {
            let answer = ChatTurn { flag, ..ChatTurn::new("assistant", "b") };
            let turns = vec![ChatTurn::new("user", "a"), answer];
            Example::new("a.jsonl: line 1".to_string(), Body::Turns(turns))
        };
        assert!(learns_all(&example(None)).is_ok() && learns_all(&example(Some(true))).is_ok());
        let error = learns_all(&example(Some(false))).unwrap_err().to_string();
        assert!(error.contains("a.jsonl: line 1: message 2") && error.contains("data.loss"), "{error}");
    }

    #[test]
    fn a_word_of_a_template_is_no_part_of_another() {
        assert!(names("{{ m['reasoning'] }}", "reasoning") && names("m.reasoning", "reasoning"));
        assert!(!names("{{ m.reasoning_content }}", "reasoning"));
    }
}
