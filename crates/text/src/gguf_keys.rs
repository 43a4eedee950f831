//! What GGUF metadata says of a tokenizer beside its vocabulary: ids of special tokens that no token has, and
//! keys that are not applied. Each is told; the ones that change nothing here are on a list (also in
//! `docs/formats.md`).

use tritforge_gguf::{Array, Metadata, Value, optional};
use tritforge_support::counted;

use crate::TextError;

/// Keys that [`crate::Tokenizer::from_gguf`] reads.
const READ: [&str; 19] = [
    "tokenizer.ggml.model",
    "tokenizer.ggml.pre",
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.merges",
    "tokenizer.ggml.bos_token_id",
    "tokenizer.ggml.eos_token_id",
    "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
    "tokenizer.ggml.eos_token_ids",
    "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.add_bos_token",
    "tokenizer.ggml.add_space_prefix",
    "tokenizer.chat_template",
    "tokenizer.chat_template_kwargs",
];

/// Keys that change no id of a text and nothing that is generated.
const NO_EFFECT: [&str; 14] = [
    // The token of type unknown is the one.
    "tokenizer.ggml.unknown_token_id",
    "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.cls_token_id",
    "tokenizer.ggml.mask_token_id",
    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id",
    "tokenizer.ggml.fim_mid_token_id",
    "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",
    "tokenizer.ggml.middle_token_id",
    "tokenizer.ggml.token_type_count",
    "tokenizer.ggml.added_tokens",
    "tokenizer.huggingface.json",
    // Names of templates; the templates follow under `tokenizer.chat_template.`.
    "tokenizer.chat_templates",
];

/// Keys that are not applied, and why; a value of 0, false or an empty list asks for nothing.
const NOT_APPLIED: [(&str, &str); 6] = [
    ("tokenizer.ggml.add_eos_token", "prompts are to be continued"),
    ("tokenizer.ggml.add_sep_token", "prompts are to be continued"),
    ("tokenizer.ggml.remove_extra_whitespaces", "whitespace is kept as it is, as in llama.cpp"),
    ("tokenizer.ggml.precompiled_charsmap", "text is not normalized, as in llama.cpp"),
    ("tokenizer.ggml.normalizer.lowercase", "text is not normalized, as in llama.cpp"),
    ("tokenizer.ggml.normalizer.strip_accents", "text is not normalized, as in llama.cpp"),
];

/// Tokens that llama.cpp never generates.
const SUPPRESS: &str = "tokenizer.ggml.suppress_tokens";

/// Warns of keys that are not applied or not known.
///
/// # Errors
/// If the file asks for something that changes what is generated.
pub(crate) fn check(metadata: &Metadata) -> Result<(), TextError> {
    for (key, value) in metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
        let known =
            READ.contains(&key) || NO_EFFECT.contains(&key) || key.starts_with("tokenizer.chat_template.");
        if known {
            continue;
        }
        if key == SUPPRESS {
            if !asks_for_nothing(value) {
                return Err(TextError::Unsupported {
                    what: "metadata key",
                    found: format!("{key} (tokens that must not be generated)"),
                    supported: "files without it".to_string(),
                });
            }
        } else if let Some((_, why)) = NOT_APPLIED.iter().find(|(not_applied, _)| *not_applied == key) {
            if !asks_for_nothing(value) {
                log::warn!("metadata key {key} is not applied: {why}");
            }
        } else {
            log::warn!("metadata key {key}: unknown and ignored");
        }
    }
    Ok(())
}

/// Whether a value is false, 0 or an empty list.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(b) => !b,
        Value::Array(array) => Array::len(array) == 0,
        other => other.as_integer() == Some(0),
    }
}

/// The id of a special token in a vocabulary of `count`. Where a model has no such token converters write -1
/// or the largest number: an id that no token has means none, as in llama.cpp, and that is told.
///
/// # Errors
/// If the key is no whole number.
pub(crate) fn token_id(metadata: &Metadata, key: &str, count: usize) -> Result<Option<u32>, TextError> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let Some(number) = value.as_integer() else {
        // The getter says what is wrong.
        optional(metadata.get_i64(key))?;
        return Ok(None);
    };
    let id = u32::try_from(number).ok().filter(|id| (*id as usize) < count);
    if id.is_none() {
        log::warn!(
            "{key} = {number}: outside the vocabulary of {count}: ignored",
            count = counted(count, "token")
        );
    }
    Ok(id)
}
