//! What stands before an answer: examples, the question, and the marks of a conversation.

use tritforge_text::{ChatTemplate, EncodeOptions, Message, Tokenizer};

use crate::EvalError;

/// What stands between examples, and between the last of them and the question.
const EXAMPLE_DELIMITER: &str = "\n\n";

/// How prompts are put together.
#[derive(Debug)]
pub(crate) struct Prompts<'a> {
    tokenizer: &'a Tokenizer,
    template: Option<ChatTemplate>,
}

impl<'a> Prompts<'a> {
    /// Prompts of plain text, or with the model's chat template.
    pub(crate) fn new(tokenizer: &'a Tokenizer, chat: bool) -> Result<Self, EvalError> {
        let template = if chat { tokenizer.chat_template()? } else { None };
        if chat && template.is_none() {
            let message = "the model has no chat template: evaluate it without --apply-chat-template";
            return Err(EvalError::Input(message.to_string()));
        }
        Ok(Self { tokenizer, template })
    }

    /// Whether prompts are conversations.
    pub(crate) fn chat(&self) -> bool {
        self.template.is_some()
    }

    /// What stands between a question and its answer: a conversation's marks, or a space.
    pub(crate) fn delimiter(&self) -> &'static str {
        if self.chat() { "" } else { super::question::TARGET_DELIMITER }
    }

    /// The context of an answer: the examples and the question; in a conversation one message of the user's, and `begin` as
    /// the beginning of the answer.
    pub(crate) fn context(
        &self,
        examples: &[&str],
        question: &str,
        begin: &str,
    ) -> Result<String, EvalError> {
        let mut text = String::new();
        for example in examples {
            text.push_str(example);
            text.push_str(EXAMPLE_DELIMITER);
        }
        text.push_str(question);
        if let Some(template) = &self.template {
            let name = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id));
            let (bos, eos) = (name(self.tokenizer.bos()), name(self.tokenizer.eos()));
            text = template.render(&[Message::new("user", text)], true, bos.as_deref(), eos.as_deref())?;
        }
        text.push_str(begin);
        Ok(text)
    }

    /// The tokens of a context that the model goes on from, at most the last `longest`, and whether some were dropped.
    pub(crate) fn encode(&self, context: &str, longest: usize) -> Result<(Vec<u32>, bool), EvalError> {
        let options = EncodeOptions { add_bos: self.tokenizer.adds_bos(), parse_special: self.chat() };
        let mut ids = self.tokenizer.encode_with(context, options)?;
        if ids.is_empty() {
            ids.extend(self.tokenizer.bos().or(self.tokenizer.eos()));
        }
        let dropped = ids.len().saturating_sub(longest);
        ids.drain(..dropped);
        Ok((ids, dropped > 0))
    }
}
