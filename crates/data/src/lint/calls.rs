//! Calls of tools that the record does not declare: the model would learn to call what it is not shown.

use tritforge_support::counted;

use super::FindingKind;
use crate::examples::{ASSISTANT, Example, function_name};

pub(super) fn check(example: &Example, find: &mut dyn FnMut(FindingKind, String)) {
    let turns = example.body.messages();
    let declared: Vec<&str> = example.supplied.tool_names().collect();
    let calls = turns.iter().enumerate().flat_map(|(index, turn)| {
        let list = turn.message.get("tool_calls").and_then(|calls| calls.as_array());
        list.into_iter().flatten().filter_map(function_name).map(move |name| (index + 1, name))
    });
    let mut undeclared = calls.filter(|(_, name)| !declared.contains(name));
    let Some((message, name)) = undeclared.next() else { return };
    let known = match declared.len() {
        0 => "the record has no tools".to_string(),
        _ => format!("tools are {}", declared.join(", ")),
    };
    let more = match undeclared.count() {
        0 => String::new(),
        more => format!("; {} more", counted(more, "call")),
    };
    find(FindingKind::UndeclaredTool, format!("message {message}: {ASSISTANT} calls {name}, {known}{more}"));
}
