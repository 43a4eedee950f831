//! Conversations as prompts: rendered by a template, checked that nothing of them is lost, encoded.

use serde_json::Value;

use crate::{ChatTemplate, EncodeOptions, Message, TextError, Tokenizer};

impl Tokenizer {
    /// The text of a conversation, ready for an answer. `tools` are the functions that the model may call, in
    /// OpenAI's form.
    ///
    /// # Errors
    /// If the template fails or leaves out a message, a call or a tool.
    pub fn render_chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        tools: &[Value],
    ) -> Result<String, TextError> {
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        let (bos, eos) = (name(self.bos()), name(self.eos()));
        let prompt = template.render_tools(messages, tools, true, bos.as_deref(), eos.as_deref())?.text;
        let fault = |problem: String| Err(TextError::Template { line: None, problem });
        if let Some(message) = messages.iter().find(|message| left_out(message, &prompt)) {
            return fault(format!("the chat template drops messages with the role {:?}", message.role));
        }
        let functions = |list: &Value| -> Vec<String> {
            let names = list.as_array().into_iter().flatten().map(|item| &item["function"]["name"]);
            names.filter_map(|name| name.as_str().map(str::to_string)).collect()
        };
        let calls = messages.iter().filter_map(|message| message.more.get("tool_calls")).flat_map(&functions);
        if let Some(name) = calls.into_iter().find(|name| !prompt.contains(name.as_str())) {
            return fault(format!("the chat template drops calls of tools, such as that of {name}"));
        }
        let tools = functions(&Value::from(tools));
        if let Some(name) = tools.iter().find(|name| !prompt.contains(name.as_str())) {
            return fault(format!(
                "the chat template does not show tools to the model, such as {name}: it was not trained on them"
            ));
        }
        Ok(prompt)
    }

    /// The ids of a conversation, ready for an answer: rendered with `template`, special tokens read as such,
    /// and with BOS at the beginning if sequences have one.
    ///
    /// # Errors
    /// If the template fails or leaves out a message, or the vocabulary lacks a character.
    pub fn encode_chat(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        self.encode_chat_tools(template, messages, &[])
    }

    /// As [`Self::encode_chat`], with the functions that the model may call, in OpenAI's form.
    ///
    /// # Errors
    /// As [`Self::encode_chat`], and if the template leaves out a call or a tool.
    pub fn encode_chat_tools(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        tools: &[Value],
    ) -> Result<Vec<u32>, TextError> {
        let prompt = self.render_chat(template, messages, tools)?;
        self.encode_with(&prompt, EncodeOptions { add_bos: self.adds_bos(), parse_special: true })
    }
}

/// Whether a template that does not know a message's role has dropped it. Users and assistants are known to
/// all; of an assistant templates may leave out what it thought.
fn left_out(message: &Message, prompt: &str) -> bool {
    let content = message.content.trim();
    let written = || prompt.contains(content) || prompt.contains(json_escaped(content).as_str());
    !matches!(message.role.as_str(), "user" | "assistant") && !written()
}

/// A text as it stands between the quotes of a JSON string.
fn json_escaped(text: &str) -> String {
    let json = Value::from(text).to_string();
    json[1..json.len() - 1].to_string()
}
