//! A conversation in a file: a JSON list of `{"role": …, "content": …}`, as chat services take them.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tritforge_text::Message;

/// Writes messages.
pub(super) fn save(path: &Path, messages: &[Message]) -> Result<()> {
    let mut text = serde_json::to_string_pretty(messages)?;
    text.push('\n');
    std::fs::write(path, text).with_context(|| format!("{}: cannot write", path.display()))
}

/// Reads messages, which must be whole turns: each message of the user with its answer.
pub(super) fn load(path: &Path) -> Result<Vec<Message>> {
    let place = path.display();
    let bytes = std::fs::read(path).with_context(|| format!("{place}: cannot read"))?;
    let messages: Vec<Message> = serde_json::from_slice(&bytes)
        .with_context(|| format!("{place}: expected a list of {{\"role\": …, \"content\": …}}"))?;
    let turns = usize::from(messages.first().is_some_and(|m| m.role == "system"));
    for (index, message) in messages.iter().enumerate().skip(turns) {
        let expected = if (index - turns).is_multiple_of(2) { "user" } else { "assistant" };
        if message.role != expected {
            bail!("{place}: message {}: found the role {:?}, expected {expected:?}", index + 1, message.role);
        }
    }
    if !(messages.len() - turns).is_multiple_of(2) {
        bail!(
            "{place}: the last message has no answer: expected a message with the role \"assistant\" after \
               it"
        );
    }
    Ok(messages)
}
