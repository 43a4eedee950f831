//! From messages to tokens, keeping those that the cache already holds.
//!
//! An answer's tokens are those that the model chose, which need not be those that its text encodes to. So
//! each turn remembers its text and tokens, and the next prompt encodes only what the template adds after
//! them.

use anyhow::Result;
use tritforge_infer::Model;
use tritforge_text::{ChatTemplate, EncodeOptions, Message};

/// A rendered beginning of the conversation and its tokens.
struct Written {
    text: String,
    ids: Vec<u32>,
}

/// Makes prompts.
pub(super) struct Prompter {
    template: ChatTemplate,
    written: Vec<Written>,
}

impl Prompter {
    pub(super) fn new(template: ChatTemplate) -> Self {
        Self { template, written: Vec::new() }
    }

    /// The prompt of a conversation that waits for an answer: its text and its tokens.
    pub(super) fn prompt(&mut self, model: &Model, messages: &[Message]) -> Result<(String, Vec<u32>)> {
        let text = self.render(model, messages, true)?;
        while self.written.last().is_some_and(|w| !text.starts_with(&w.text)) {
            self.written.pop();
        }
        let ids = match self.written.last() {
            Some(known) => {
                let rest = &text[known.text.len()..];
                let options = EncodeOptions { add_bos: false, parse_special: true };
                [known.ids.as_slice(), &model.tokenizer().encode_with(rest, options)?].concat()
            }
            None => model.tokenizer().encode_chat(&self.template, messages)?,
        };
        Ok((text, ids))
    }

    /// Takes note of an answer: the prompt before it, the tokens chosen, and the text that was shown.
    pub(super) fn answered(
        &mut self,
        model: &Model,
        prompt: (String, Vec<u32>),
        tokens: &[u32],
        answer: &str,
    ) {
        let (mut text, mut ids) = prompt;
        // The last tokens may be a stop string, which is no part of the answer.
        let whole = (0..=tokens.len())
            .rev()
            .take(64)
            .find(|n| model.tokenizer().decode(&tokens[..*n]).is_ok_and(|decoded| decoded == answer));
        if let Some(n) = whole {
            text.push_str(answer);
            ids.extend_from_slice(&tokens[..n]);
            self.written.push(Written { text, ids });
        }
    }

    fn render(&self, model: &Model, messages: &[Message], answer: bool) -> Result<String> {
        let tokenizer = model.tokenizer();
        let name = |id: Option<u32>| id.and_then(|id| tokenizer.token(id));
        let (bos, eos) = (name(tokenizer.bos()), name(tokenizer.eos()));
        Ok(self.template.render(messages, answer, bos.as_deref(), eos.as_deref())?)
    }
}
