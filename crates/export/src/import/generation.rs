//! `generation_config.json`: what a model's authors recommend for sampling. A checkpoint has no place for it,
//! so that it is told.

use std::fs;
use std::path::Path;

use serde_json::Value;

/// Fields that change how text is generated, and the values that change nothing.
const FIELDS: [(&str, f64); 11] = [
    ("temperature", 1.0),
    ("top_k", 50.0),
    ("top_p", 1.0),
    ("min_p", 0.0),
    ("typical_p", 1.0),
    ("repetition_penalty", 1.0),
    ("presence_penalty", 0.0),
    ("frequency_penalty", 0.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_repetition_penalty", 1.0),
    ("guidance_scale", 1.0),
];

/// Fields that name tokens, or sequences of them, which are never to be generated, or always.
const TOKENS: [&str; 6] = [
    "suppress_tokens",
    "begin_suppress_tokens",
    "bad_words_ids",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "sequence_bias",
];

/// Tells of recommended sampling that an import does not keep.
pub(super) fn warn(directory: &Path) {
    let path = directory.join("generation_config.json");
    let Ok(bytes) = fs::read(&path) else { return };
    // A damaged file is an error of the tokenizer, which reads ids of it.
    let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let recommended = recommended(&json);
    if !recommended.is_empty() {
        log::warn!(
            "{}: {} not kept in the checkpoint: set these as options when running the model",
            path.display(),
            recommended.join(", ")
        );
    }
}

fn recommended(json: &Value) -> Vec<String> {
    let said = |key: &str| json.get(key).filter(|value| !value.is_null()).cloned();
    let numbers = FIELDS.into_iter().filter_map(|(key, neutral)| {
        let value = said(key)?;
        (value.as_f64() != Some(neutral)).then(|| format!("{key} = {value}"))
    });
    let tokens = TOKENS.into_iter().filter_map(|key| Some(format!("{key} = {}", said(key)?)));
    numbers.chain(tokens).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_changes_generation_is_told() {
        let json = json!({"bos_token_id": 1, "do_sample": true, "temperature": 0.6, "top_p": 1.0, "top_k": null,
            "suppress_tokens": [3], "transformers_version": "4.45.0"});
        assert_eq!(recommended(&json), ["temperature = 0.6", "suppress_tokens = [3]"]);
        assert!(recommended(&json!({"eos_token_id": [1, 2], "top_k": 50})).is_empty());
        assert!(recommended(&json!([])).is_empty());
    }
}
