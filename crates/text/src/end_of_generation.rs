//! Which tokens end an answer: one definition for training samples, generation, the service and evaluation.
//!
//! A token ends the generation if it is
//!
//! * the tokenizer's EOS token (`tokenizer.ggml.eos_token_id`, `eos_token` of `tokenizer_config.json`);
//! * one that the model's files declare beside it: `tokenizer.ggml.eot_token_id`, `eom_token_id`,
//!   `fim_pad_token_id`, `fim_rep_token_id`, `fim_sep_token_id` and `eos_token_ids` (ollama's) in GGUF;
//!   `eos_token_id`, a number or a list, of `generation_config.json`, or of `config.json` where the former
//!   does not have it, as `transformers` reads them;
//! * one with a name that llama.cpp counts as an end of generation (`llama_vocab::impl::load` in
//!   `llama-vocab.cpp`), under its conditions. A token that plain text is encoded to is text, whatever its
//!   name;
//! * the special token that the model's chat template writes after an answer.
//!
//! A template may end its turns with plain text instead. That text is a stop string of conversations alone
//! ([`TurnEnd`]).

use crate::{ChatTemplate, EncodeOptions, Message, TextError, Tokenizer};

/// Tokens that llama.cpp knows as ends of a generation by their names.
const NAMES: [&str; 31] = [
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|flush|>",
    "<|calls|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    // Padding, repository and file marks of fill-in-the-middle models.
    "<|fim_pad|>",
    "<fim-pad>",
    "<fim_pad>",
    "<PAD>",
    "<|fim_repo|>",
    "<|repo_name|>",
    "<fim-repo>",
    "<REPO>",
    "<reponame>",
    "<|file_sep|>",
];

/// A name that ends nothing in a vocabulary that has all of the others: there it stands between parts of one
/// answer.
const UNLESS: [(&str, &[&str]); 5] = [
    ("<|end|>", &["<|return|>", "<|call|>"]),
    ("<|end|>", &["<|return|>", "<|calls|>"]),
    ("<|end|>", &["<|flush|>", "<|call|>"]),
    ("<|end|>", &["<|flush|>", "<|calls|>"]),
    ("</s>", &["<|tool_response>"]),
];

/// How a chat template ends an answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TurnEnd {
    /// The special token that it writes after an answer.
    pub token: Option<u32>,
    /// Where there is no such token: the text that ends an answer. It stands after the answer or, if that is
    /// white space alone, between the answer and the next message's content.
    pub stop: Option<String>,
    /// Where there is no such token: the white space after an answer, which is not part of it. `stop` begins
    /// with it.
    pub closing: String,
    /// Whether the template writes the token or a text by which an answer ends after every answer, the last
    /// of a conversation too.
    pub written: bool,
}

impl Tokenizer {
    /// The ids of the tokens that end a generation, ascending.
    pub fn end_ids(&self) -> Vec<u32> {
        let mut ids: Vec<u32> =
            self.roles.eos.into_iter().chain(self.declared_ends.iter().copied()).collect();
        ids.extend(NAMES.into_iter().filter_map(|name| self.id_by_name(name)));
        // A template that is damaged or refuses the example is an error where a conversation is rendered, not
        // here.
        if let Ok(Some(template)) = self.chat_template() {
            ids.extend(self.turn_end(&template).token);
        }
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Beside EOS, the ids for the two other keys that GGUF has for ends of a generation (end of turn, end of
    /// message): what the template writes after an answer, then what readers do not know by its name.
    pub(crate) fn further_ends(&self) -> [Option<u32>; 2] {
        let turn = self.chat_template().ok().flatten().and_then(|template| self.turn_end(&template).token);
        let by_name = |id: &u32| NAMES.into_iter().any(|name| self.id_by_name(name) == Some(*id));
        let unnamed = self.end_ids().into_iter().filter(|id| turn != Some(*id) && !by_name(id));
        let mut ids = turn.into_iter().chain(unnamed).filter(|id| self.roles.eos != Some(*id));
        [ids.next(), ids.next()]
    }

    /// How `template` ends an answer; nothing is known of a template that does not render a question and its
    /// answer, or changes the answer's text.
    pub fn turn_end(&self, template: &ChatTemplate) -> TurnEnd {
        self.turn_end_of(template).unwrap_or_default()
    }

    fn turn_end_of(&self, template: &ChatTemplate) -> Option<TurnEnd> {
        let (question, answer, next) = ("<<question>>", "<<answer>>", "<<next>>");
        let mut messages = vec![Message::new("user", question), Message::new("assistant", answer)];
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        let (bos, eos) = (name(self.bos()), name(self.eos()));
        let after = |messages: &[Message]| {
            let text = template.render(messages, false, bos.as_deref(), eos.as_deref()).ok()?;
            Some(text.rsplit_once(answer)?.1.to_string())
        };
        let closing = after(&messages)?;
        if let Some(token) = self.first_special(&closing).ok()? {
            return Some(TurnEnd { token: Some(token), written: true, ..TurnEnd::default() });
        }
        if !closing.trim().is_empty() {
            return Some(TurnEnd {
                stop: Some(closing.trim().to_string()),
                written: true,
                ..TurnEnd::default()
            });
        }
        messages.push(Message::new("user", next));
        let between = after(&messages).and_then(|text| Some(text.split_once(next)?.0.trim_end().to_string()));
        Some(match between.filter(|text| !text.is_empty()) {
            Some(stop) if stop.starts_with(&closing) => {
                TurnEnd { stop: Some(stop), closing, ..TurnEnd::default() }
            }
            stop => TurnEnd { stop, ..TurnEnd::default() },
        })
    }

    /// The special token with which a text begins, white space aside.
    fn first_special(&self, text: &str) -> Result<Option<u32>, TextError> {
        let ids = self.encode_with(text, EncodeOptions { add_bos: false, parse_special: true })?;
        let Some(at) = ids.iter().position(|id| self.is_added(*id)) else { return Ok(None) };
        Ok(self.decode(&ids[..at])?.trim().is_empty().then_some(ids[at]))
    }

    /// The id of a token that ends a generation by its name, if the vocabulary has it and does not mean
    /// something else by it.
    fn id_by_name(&self, name: &str) -> Option<u32> {
        let id = self.id(name)?;
        let has = |others: &[&str]| others.iter().all(|other| self.id(other).is_some());
        if UNLESS.iter().any(|(unless, others)| *unless == name && has(others)) {
            return None;
        }
        let is_text = || self.encode(name, false).is_ok_and(|ids| ids == [id]);
        (self.is_added(id) || !is_text()).then_some(id)
    }

    /// Whether an id is an added token, special or not.
    fn is_added(&self, id: u32) -> bool {
        self.inner.get_added_vocabulary().get_added_tokens_decoder().contains_key(&id)
    }

    /// Takes ids that the model's files declare as ends. Ids that no token has cannot be generated: they are
    /// left out.
    pub(crate) fn declare_ends(&mut self, ids: impl IntoIterator<Item = u32>) {
        for id in ids {
            if (id as usize) < self.vocab_size() {
                self.declared_ends.push(id);
            } else {
                log::warn!(
                    "end-of-generation token id {id} is outside the vocabulary of {}",
                    self.vocab_size()
                );
            }
        }
        self.declared_ends.sort_unstable();
        self.declared_ends.dedup();
    }
}

/// The ids of a JSON value as `transformers` allows them for `eos_token_id`: none, one or a list; those below
/// 0 mean none.
///
/// # Errors
/// If it is something else; the text says what.
pub(crate) fn ids_of_json(value: &serde_json::Value) -> Result<Vec<u32>, String> {
    let id = |value: &serde_json::Value| match value.as_i64() {
        Some(id) => Ok(u32::try_from(id).ok()),
        None => Err(format!("{value}: expected a token id or a list of them")),
    };
    match value {
        serde_json::Value::Null => Ok(Vec::new()),
        serde_json::Value::Array(list) => {
            Ok(list.iter().map(id).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
        }
        one => Ok(id(one)?.into_iter().collect()),
    }
}
