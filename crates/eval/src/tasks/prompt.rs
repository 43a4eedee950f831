//! What stands before an answer: examples, the question, and the marks of a conversation.

use tritforge_text::{ChatTemplate, EncodeOptions, Message, Tokenizer};

use super::Example;
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
            let message = "the model has no chat template: leave out --apply-chat-template";
            return Err(EvalError::Input(message.to_string()));
        }
        Ok(Self { tokenizer, template })
    }

    /// Whether prompts are conversations.
    pub(crate) fn chat(&self) -> bool {
        self.template.is_some()
    }

    /// The text that ends an answer of a conversation whose template has no token for that.
    pub(crate) fn stop(&self) -> Option<String> {
        self.tokenizer.turn_end(self.template.as_ref()?).stop
    }

    /// What stands between a question and its answer: a conversation's marks, or a space.
    pub(crate) fn delimiter(&self) -> &'static str {
        if self.chat() { "" } else { super::question::TARGET_DELIMITER }
    }

    /// The context of an answer: the examples and the question; in a conversation each is a message of the
    /// user's, the answers of examples are the assistant's, and `begin` is the beginning of the answer.
    pub(crate) fn context(
        &self,
        examples: &[&Example],
        question: &str,
        begin: &str,
    ) -> Result<String, EvalError> {
        let mut text = match &self.template {
            None => {
                let answered = examples.iter().map(|Example { question, answer }| {
                    format!("{question}{}{answer}{EXAMPLE_DELIMITER}", self.delimiter())
                });
                answered.chain([question.to_string()]).collect()
            }
            Some(template) => {
                let turns = examples.iter().flat_map(|Example { question, answer }| {
                    [Message::new("user", question), Message::new("assistant", answer)]
                });
                let messages: Vec<Message> = turns.chain([Message::new("user", question)]).collect();
                let name = |id: Option<u32>| id.and_then(|id| self.tokenizer.token(id));
                let (bos, eos) = (name(self.tokenizer.bos()), name(self.tokenizer.eos()));
                template.render(&messages, true, bos.as_deref(), eos.as_deref())?
            }
        };
        text.push_str(begin);
        Ok(text)
    }

    /// The tokens of a context that the model goes on from, at most the last `longest`, and whether some were
    /// dropped.
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
