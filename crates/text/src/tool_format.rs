//! How a model writes calls of tools, found out from its chat template.

use crate::ChatTemplate;

/// A form of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolFormat {
    /// `<tool_call>\n{"name": …, "arguments": {…}}\n</tool_call>`, each call in its own: Hermes, Qwen 2.5 and 3.
    Hermes,
    /// `{"name": …, "parameters": {…}}`, with or without `<|python_tag|>`, as the whole answer: Llama 3.1 to 3.3.
    Llama3,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}, …]`: Mistral.
    Mistral,
}

impl ToolFormat {
    /// All of them by their names.
    pub const ALL: [(&'static str, Self); 3] =
        [("hermes", Self::Hermes), ("llama3", Self::Llama3), ("mistral", Self::Mistral)];

    /// The one of a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, format)| format)
    }

    /// The one that a template tells the model, if it is one of these.
    pub fn of(template: &ChatTemplate) -> Option<Self> {
        let source = template.source();
        let has = |text: &str| source.contains(text);
        if !has("tools") {
            return None;
        }
        // Qwen3-Coder's has the same mark, and XML within it.
        if has("<tool_call>") {
            return (!has("<function=")).then_some(Self::Hermes);
        }
        if has("[TOOL_CALLS]") {
            // Later ones write the name before the arguments.
            return (!has("[ARGS]")).then_some(Self::Mistral);
        }
        let parameters = has("\"parameters\": ") || has("\\\"parameters\\\": ");
        (parameters && has("tool_calls") && has("<|start_header_id|>")).then_some(Self::Llama3)
    }
}
