//! Conversations to train on: the ids of the whole, and which of them the model is to learn.
//!
//! The ids are those of the rendered conversation, as a whole: exactly what a deployed model is given. Where
//! the template has generation blocks, these say what the answers are, as
//! `apply_chat_template(return_assistant_tokens_mask=True)` does. For other templates an answer is what a
//! longer conversation adds: from where the prompt before it ends to where the conversation up to it ends.
//! That needs a template that only ever appends; one that does not is refused.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value;
use tokenizers::OffsetType;

use crate::encode_chat::values;
use crate::written::{all_is_written, answer_is_written};
use crate::{ChatTemplate, EncodeOptions, Rendered, TemplateInputs, TextError, Tokenizer};

/// A message of a conversation to train on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn<'a, M> {
    /// The message as the template sees it.
    pub message: &'a M,
    /// Whether the model is the one who says it.
    pub answer: bool,
    /// Whether the model is to learn it.
    pub learn: bool,
}

/// Ids, and which of them count.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Masked {
    /// The ids.
    pub ids: Vec<u32>,
    /// Whether the model is to learn to say each id.
    pub mask: Vec<bool>,
}

impl Tokenizer {
    /// The ids of a conversation with a mask over those that are to be learned: all tokens that lie in a turn
    /// that is [`Turn::learn`], with what the template ends it by. White space after the last special token
    /// of a turn is not part of it: a model that has said that token is not asked again. Begins with BOS as
    /// [`Tokenizer::encode_chat`] does.
    ///
    /// # Errors
    /// If the template fails, gives no way to tell the turns apart, or the vocabulary lacks a character.
    pub fn encode_turns<M: Serialize>(
        &self,
        template: &ChatTemplate,
        turns: &[Turn<'_, M>],
    ) -> Result<Masked, TextError> {
        self.encode_turns_with(template, turns, TemplateInputs::default())
    }

    /// As [`Self::encode_turns`], with tools and other variables for the template.
    ///
    /// # Errors
    /// As [`Self::encode_turns`]; if the template leaves out a tool, a call, its result, or what is said beside a call.
    pub fn encode_turns_with<M: Serialize>(
        &self,
        template: &ChatTemplate,
        turns: &[Turn<'_, M>],
        inputs: TemplateInputs<'_>,
    ) -> Result<Masked, TextError> {
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        let (bos, eos) = (name(self.bos()), name(self.eos()));
        let render = |messages: &[&M], prompt| {
            template.render_with(messages, inputs, prompt, bos.as_deref(), eos.as_deref())
        };
        let (text, spans) = spans(template, turns, &render)?;
        let messages: Vec<_> = turns.iter().map(|turn| turn.message).collect();
        check(turns, &values(&messages), inputs.tools, &text, &spans)?;
        let options = EncodeOptions { add_bos: self.adds_bos(), parse_special: true };
        let mut masked = self.encode_spans(&text, &spans, options)?;
        if !template.has_generation() {
            self.pass_over_ends(&mut masked)?;
        }
        Ok(masked)
    }

    /// The ids of a text with a mask over those that lie in `spans`, ascending byte ranges of it, wholly or
    /// in part.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_spans(
        &self,
        text: &str,
        spans: &[Range<usize>],
        options: EncodeOptions,
    ) -> Result<Masked, TextError> {
        let encoding = self.encoding(text, options, OffsetType::Byte)?;
        let mut masked = Masked::default();
        if let Some(bos) = self.bos().filter(|bos| options.add_bos && encoding.get_ids().first() != Some(bos))
        {
            masked.ids.push(bos);
            masked.mask.push(false);
        }
        let mut span = 0;
        for (id, (start, end)) in encoding.get_ids().iter().zip(encoding.get_offsets()) {
            while spans.get(span).is_some_and(|span| span.end <= *start) {
                span += 1;
            }
            masked.ids.push(*id);
            masked.mask.push(spans.get(span).is_some_and(|span| span.start < *end));
        }
        Ok(masked)
    }

    /// Takes white space after the last special token of each run of the mask out of it.
    fn pass_over_ends(&self, masked: &mut Masked) -> Result<(), TextError> {
        let mut end = masked.ids.len();
        while let Some(last) = masked.mask[..end].iter().rposition(|m| *m) {
            let first = masked.mask[..last].iter().rposition(|m| !m).map_or(0, |at| at + 1);
            let run = &masked.ids[first..=last];
            if let Some(special) = run.iter().rposition(|id| self.is_special(*id)) {
                let rest = &run[special + 1..];
                if !rest.is_empty() && self.decode(rest)?.trim().is_empty() {
                    masked.mask[first + special + 1..=last].fill(false);
                }
            }
            end = first;
        }
        Ok(())
    }
}

/// Checks that a conversation with tools is written whole. `spans` are the places of what is learned in `text`.
fn check<M>(
    turns: &[Turn<'_, M>],
    messages: &[Value],
    tools: &[Value],
    text: &str,
    spans: &[Range<usize>],
) -> Result<(), TextError> {
    // A template may put what a system prompt says in its own way.
    let known = |message: &&Value| !matches!(message["role"].as_str(), Some("system" | "developer"));
    let others: Vec<Value> = messages.iter().filter(known).cloned().collect();
    all_is_written(&others, tools, text)?;
    let learned = turns.iter().zip(messages).filter(|(turn, _)| turn.learn);
    if learned.clone().count() != spans.len() {
        // Several answers in one block.
        return Ok(());
    }
    learned.zip(spans).try_for_each(|((_, message), span)| answer_is_written(message, &text[span.clone()]))
}

/// The rendered conversation, and the byte ranges of what is to be learned. `render` renders messages, with the
/// beginning of an answer behind them or without.
fn spans<M: Serialize>(
    template: &ChatTemplate,
    turns: &[Turn<'_, M>],
    render: &impl Fn(&[&M], bool) -> Result<Rendered, TextError>,
) -> Result<(String, Vec<Range<usize>>), TextError> {
    let messages: Vec<&M> = turns.iter().map(|turn| turn.message).collect();
    let whole = render(&messages, false)?;
    let fault = |problem: String| Err(TextError::Template { line: None, problem });
    if template.has_generation() {
        if let Some(at) = turns.iter().position(|turn| turn.learn && !turn.answer) {
            return fault(format!("message {}: only answers stand in generation blocks", at + 1));
        }
        let answers: Vec<bool> = turns.iter().filter(|turn| turn.answer).map(|turn| turn.learn).collect();
        let (mut blocks, count) = (whole.generated, answers.len());
        if answers.contains(&false) {
            if blocks.len() != count {
                return fault(format!(
                    "{} generation blocks for {count} answers: none can be left out",
                    blocks.len()
                ));
            }
            blocks =
                blocks.into_iter().zip(answers).filter(|(_, learn)| *learn).map(|(block, _)| block).collect();
        }
        return Ok((whole.text, blocks));
    }
    let mut spans = Vec::new();
    for (i, turn) in turns.iter().enumerate().filter(|(_, turn)| turn.learn) {
        // What is not an answer has no prompt of its own: it begins where the conversation before it ends.
        let before = match i {
            0 if !turn.answer => String::new(),
            _ => render(&messages[..i], turn.answer)?.text,
        };
        let through = render(&messages[..=i], false)?.text;
        if !(through.starts_with(&before) && whole.text.starts_with(&through)) {
            return fault(format!(
                "message {}: the conversation up to it is not how the whole begins, so that its place cannot be told: use a \
                 template with {{% generation %}} blocks",
                i + 1
            ));
        }
        spans.push(before.len()..through.len());
    }
    Ok((whole.text, spans))
}
