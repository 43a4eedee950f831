//! Tokens that a Hugging Face directory adds to a vocabulary that knows nothing of them:
//! `added_tokens_decoder` in `tokenizer_config.json`, and `added_tokens.json` of older directories.

use std::collections::BTreeMap;

use serde_json::Value;
use tokenizers::AddedToken;

use crate::validate::MAX_VOCAB;
use crate::{TextError, Tokenizer};

/// The added tokens of a directory by id.
///
/// # Errors
/// If a key is no id, or a token has no text.
pub(crate) fn added_tokens(config: &Value, older: &Value) -> Result<BTreeMap<u32, AddedToken>, TextError> {
    let fault = |file: &str, place: String, problem: &str| {
        Err(TextError::malformed(file, place, problem.to_string()))
    };
    let mut added = BTreeMap::new();
    for (id, token) in config["added_tokens_decoder"].as_object().into_iter().flatten() {
        let place = format!("added_tokens_decoder[{id:?}]");
        let Some(id) = id.parse().ok().filter(|id| (*id as usize) < MAX_VOCAB) else {
            return fault("tokenizer_config.json", place, "expected an id, 0 to 2^24-1");
        };
        let Some(content) = token["content"].as_str().filter(|content| !content.is_empty()) else {
            return fault("tokenizer_config.json", place, "expected a token with content");
        };
        let flag = |name: &str| token[name].as_bool().unwrap_or(false);
        let token = AddedToken::from(content, flag("special"))
            .lstrip(flag("lstrip"))
            .rstrip(flag("rstrip"))
            .single_word(flag("single_word"))
            .normalized(flag("normalized"));
        added.insert(id, token);
    }
    for (content, id) in older.as_object().into_iter().flatten() {
        let Some(id) = id.as_u64().filter(|id| *id < MAX_VOCAB as u64 && !content.is_empty()) else {
            return fault("added_tokens.json", format!("{content:?}"), "expected an id, 0 to 2^24-1");
        };
        let token = AddedToken::from(content.as_str(), is_named(config, content)).normalized(false);
        added.entry(id as u32).or_insert(token);
    }
    Ok(added)
}

/// Whether a configuration gives a token a role.
fn is_named(config: &Value, token: &str) -> bool {
    let is = |value: &Value| value == token || value["content"] == token;
    ["bos_token", "eos_token", "pad_token", "unk_token"].iter().any(|key| is(&config[key]))
        || config["additional_special_tokens"].as_array().into_iter().flatten().any(is)
}

impl Tokenizer {
    /// With more added tokens.
    ///
    /// # Errors
    /// If a token cannot have the id that it is to have.
    pub(crate) fn with_added(self, added: &BTreeMap<u32, AddedToken>, file: &str) -> Result<Self, TextError> {
        if added.is_empty() {
            return Ok(self);
        }
        let Tokenizer { mut inner, roles, .. } = self;
        inner
            .add_tokens(added.values().cloned())
            .map_err(|e| TextError::malformed(file, "added tokens", e.to_string()))?;
        for (id, token) in added {
            let found = inner.token_to_id(&token.content);
            if found != Some(*id) {
                let found = found.map_or("no id".to_string(), |found| found.to_string());
                let problem = format!(
                    "{:?} is declared with id {id}, but the vocabulary assigns it {found}",
                    token.content
                );
                return Err(TextError::malformed(file, "added tokens", problem));
            }
        }
        Ok(Self::assemble(inner).with_roles(roles))
    }
}
