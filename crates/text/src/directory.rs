//! What the files beside a `tokenizer.json` say, as `transformers` reads them (`from_pretrained` of
//! `tokenization_utils_base.py`).

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use crate::{TextError, Tokenizer};

/// Roles by token, in directories of before 2023.
pub(crate) const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// The roles that this crate knows.
const ROLES: [&str; 3] = ["bos_token", "eos_token", "pad_token"];

/// The content of `tokenizer_config.json` with what `special_tokens_map.json` says: the latter counts where
/// the former has no `added_tokens_decoder`, and is passed over where it has one; a contradiction is told
/// then.
///
/// # Errors
/// If a file is no JSON object.
pub(crate) fn with_special_tokens(
    config: Option<Vec<u8>>,
    special: Option<Vec<u8>>,
) -> Result<Option<Vec<u8>>, TextError> {
    let Some(special) = special else { return Ok(config) };
    let special = object(SPECIAL_TOKENS, &special)?;
    let mut fields = match &config {
        Some(bytes) => object("tokenizer_config.json", bytes)?,
        None => Map::new(),
    };
    if fields.contains_key("added_tokens_decoder") {
        for role in ROLES {
            let name = |fields: &Map<String, Value>| fields.get(role).and_then(content).map(str::to_string);
            if let Some(other) = name(&special).filter(|other| name(&fields).as_ref() != Some(other)) {
                log::warn!(
                    "{SPECIAL_TOKENS}: {role} = {other:?} differs from tokenizer_config.json, which takes \
                     precedence"
                );
            }
        }
        return Ok(config);
    }
    for (key, value) in special {
        fields.insert(key, value);
    }
    Ok(Some(Value::Object(fields).to_string().into_bytes()))
}

fn object(file: &str, bytes: &[u8]) -> Result<Map<String, Value>, TextError> {
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(TextError::malformed(file, "JSON", "expected an object")),
        Err(e) => Err(TextError::malformed(file, "JSON", e.to_string())),
    }
}

/// The text of a token: a string, or an object that describes an added token.
fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// Adds the tokens that the directory lists beside `tokenizer.json` and that the latter lacks. Padding, which
/// no text has, is left out.
///
/// # Errors
/// If a token cannot have the id that it is to have.
pub(crate) fn with_missing(
    tokenizer: Tokenizer,
    added: &BTreeMap<u32, AddedToken>,
    config: &Value,
    file: &str,
) -> Result<Tokenizer, TextError> {
    let padding = content(&config["pad_token"]);
    let mut missing = BTreeMap::new();
    for (id, token) in added {
        match tokenizer.id(&token.content) {
            Some(found) if found == *id => {}
            Some(found) => log::warn!(
                "added token {:?} has the id {id} in tokenizer_config.json or added_tokens.json, but {found} \
                 in {file}, which takes precedence",
                token.content
            ),
            None if padding == Some(token.content.as_str()) => {
                log::warn!("padding token {:?} with the id {id} is not in {file}: ignored", token.content);
            }
            None => {
                missing.insert(*id, token.clone());
            }
        }
    }
    if missing.is_empty() {
        return Ok(tokenizer);
    }
    let mut tokenizer = tokenizer.with_added(&missing, file)?;
    tokenizer.extended = true;
    Ok(tokenizer)
}

/// Tells of chat templates that are not read.
pub(crate) fn warn_of_templates(directory: &Path, has_template: bool) {
    let named = directory.join("additional_chat_templates");
    if named.is_dir() {
        log::warn!("{}: named chat templates are ignored; only the default one is read", named.display());
    }
    let processor = directory.join("chat_template.json");
    if processor.is_file() && !has_template {
        log::warn!(
            "{}: ignored, since it is the template of a processor, not of the tokenizer",
            processor.display()
        );
    }
}

/// Tells of keys of `tokenizer_config.json` that are not applied.
pub(crate) fn warn_of_keys(config: &Value) {
    if config["add_eos_token"] == true {
        log::warn!(
            "tokenizer_config.json: add_eos_token = true is not applied, since prompts are to be continued"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_special_tokens_map_counts_where_transformers_reads_it() {
        let merged = |config: Option<&str>, special: Option<&str>| {
            let bytes = |text: &str| text.as_bytes().to_vec();
            let merged = with_special_tokens(config.map(bytes), special.map(bytes)).unwrap();
            merged.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap())
        };
        let special = Some(r#"{"eos_token": {"content": "</s>"}}"#);
        assert_eq!(merged(None, None), None);
        assert_eq!(merged(None, special).unwrap()["eos_token"]["content"], "</s>");
        let older = merged(Some(r#"{"eos_token": "<e>", "add_bos_token": true}"#), special).unwrap();
        assert_eq!((&older["eos_token"]["content"], &older["add_bos_token"]), (&"</s>".into(), &true.into()));
        let newer = merged(Some(r#"{"eos_token": "<e>", "added_tokens_decoder": {}}"#), special).unwrap();
        assert_eq!(newer["eos_token"], "<e>");
        assert!(with_special_tokens(None, Some(b"[]".to_vec())).is_err());
    }
}
