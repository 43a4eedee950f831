//! Conversations as prompts: rendered by a template, checked that nothing of them is lost, encoded.

use serde::Serialize;
use serde_json::Value;

use crate::written::all_is_written;
use crate::{ChatTemplate, EncodeOptions, Message, TemplateInputs, TextError, Tokenizer};

impl Tokenizer {
    /// The text of a conversation, ready for an answer, of a template that is given `inputs` beside the messages.
    ///
    /// # Errors
    /// If the template fails or leaves out a message, a call or a tool.
    pub fn render_chat(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        inputs: TemplateInputs<'_>,
    ) -> Result<String, TextError> {
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        let (bos, eos) = (name(self.bos()), name(self.eos()));
        let prompt = template.render_with(messages, inputs, true, bos.as_deref(), eos.as_deref())?.text;
        all_is_written(&values(messages), inputs.tools, &prompt)?;
        Ok(prompt)
    }

    /// The ids of a conversation, ready for an answer: rendered with `template`, special tokens read as such,
    /// and with BOS at the beginning if sequences have one.
    ///
    /// # Errors
    /// If the template fails or leaves out a message, or the vocabulary lacks a character.
    pub fn encode_chat(&self, template: &ChatTemplate, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        self.encode_chat_with(template, messages, TemplateInputs::default())
    }

    /// As [`Self::encode_chat`], with tools and other variables for the template.
    ///
    /// # Errors
    /// As [`Self::encode_chat`], and if the template leaves out a call or a tool.
    pub fn encode_chat_with(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        inputs: TemplateInputs<'_>,
    ) -> Result<Vec<u32>, TextError> {
        let prompt = self.render_chat(template, messages, inputs)?;
        self.encode_with(&prompt, EncodeOptions { add_bos: self.adds_bos(), parse_special: true })
    }
}

/// Messages as JSON.
pub(crate) fn values<M: Serialize>(messages: &[M]) -> Vec<Value> {
    messages.iter().map(|message| serde_json::to_value(message).unwrap_or_default()).collect()
}
