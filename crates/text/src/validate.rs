//! Checks of foreign vocabularies before the `tokenizers` crate sees them: it panics on some that contradict
//! themselves and reads others in silence as something else.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::TextError;
use crate::base64::unbase64;
use crate::sentencepiece::check_charsmap;

/// More tokens than any vocabulary has; it bounds what an id can make us allocate.
pub(crate) const MAX_VOCAB: usize = 1 << 24;

/// The name of a `tokenizer.json` whose path is not known.
pub(crate) const TOKENIZER_JSON: &str = "tokenizer.json";

/// Checks that both parts of every merge and what they make are tokens, and that no merge comes twice.
pub(crate) fn merges(
    vocab: &[(String, u32)],
    merges: &[(String, String)],
    file: &str,
    place: &str,
) -> Result<(), TextError> {
    let tokens: HashSet<&str> = vocab.iter().map(|(token, _)| token.as_str()).collect();
    let mut seen = HashSet::new();
    for (i, (left, right)) in merges.iter().enumerate() {
        let fault = |problem: String| Err(TextError::malformed(file, format!("{place}[{i}]"), problem));
        let whole = format!("{left}{right}");
        if let Some(part) = [left, right, &whole].into_iter().find(|part| !tokens.contains(part.as_str())) {
            return fault(format!("merges {left:?} and {right:?}, but {part:?} is not a token"));
        }
        if !seen.insert((left, right)) {
            return fault(format!("merges {left:?} and {right:?} a second time"));
        }
    }
    Ok(())
}

/// Checks a `tokenizer.json`.
pub(crate) fn tokenizer_json(json: &Value) -> Result<(), TextError> {
    let fault = |place: &str, problem: String| Err(TextError::malformed(TOKENIZER_JSON, place, problem));
    let model = &json["model"];
    if !model.is_object() {
        return fault("model", "missing; this is no tokenizer.json".to_string());
    }
    charsmaps(&json["normalizer"])?;
    // The library loops for ever on a token without text.
    if model["type"] == "Unigram"
        && let Some(vocab) = model["vocab"].as_array()
        && let Some(at) = vocab.iter().position(|entry| entry[0].as_str().is_none_or(str::is_empty))
    {
        return fault(
            &format!("model.vocab[{at}]"),
            "expected a token that is not empty, and its score".to_string(),
        );
    }
    // Old files of GPT-2's time leave the type out; only BPE has merges.
    if model["type"].as_str().unwrap_or("BPE") != "BPE" || model["merges"].is_null() {
        return Ok(());
    }
    if model["dropout"].as_f64().is_some_and(|p| p != 0.0) {
        let found = &model["dropout"];
        return fault(
            "model.dropout",
            format!("{found}: a text must always have the same ids; set it to null"),
        );
    }
    let prefix = model["continuing_subword_prefix"].as_str().unwrap_or_default();
    let Some(vocab) = model["vocab"].as_object() else {
        return fault("model.vocab", "expected an object of tokens and ids".to_string());
    };
    let mut by_id: HashMap<u64, &str> = HashMap::new();
    let mut tokens = Vec::with_capacity(vocab.len());
    for (token, id) in vocab {
        let id = match id.as_u64() {
            Some(id) if id < MAX_VOCAB as u64 => id,
            _ => {
                return fault(
                    "model.vocab",
                    format!("token {token:?} has the id {id}; expected 0 to 2^24-1"),
                );
            }
        };
        if let Some(other) = by_id.insert(id, token) {
            return fault("model.vocab", format!("{other:?} and {token:?} have the same id, {id}"));
        }
        tokens.push((token.clone(), id as u32));
    }
    let Some(list) = model["merges"].as_array() else {
        return fault("model.merges", "expected an array".to_string());
    };
    let mut pairs = Vec::with_capacity(list.len());
    for (i, merge) in list.iter().enumerate() {
        let pair = match merge {
            Value::String(line) if line.starts_with("#version") => continue,
            Value::String(line) => line.split_once(' ').filter(|(_, right)| !right.contains(' ')),
            Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
            _ => None,
        };
        let Some((left, right)) = pair.and_then(|(left, right)| Some((left, right.strip_prefix(prefix)?)))
        else {
            return fault(&format!("model.merges[{i}]"), format!("{merge}: expected two tokens"));
        };
        pairs.push((left.to_string(), right.to_string()));
    }
    if prefix.is_empty() {
        merges(&tokens, &pairs, TOKENIZER_JSON, "model.merges")?;
    } else {
        // With a prefix inside words the right part is a token only together with it.
        prefixed_merges(&tokens, &pairs, prefix)?;
    }
    Ok(())
}

/// Checks the compiled rules of a normalizer and of those in it.
fn charsmaps(normalizer: &Value) -> Result<(), TextError> {
    for inner in normalizer["normalizers"].as_array().into_iter().flatten() {
        charsmaps(inner)?;
    }
    match normalizer["precompiled_charsmap"].as_str() {
        None => Ok(()),
        Some(rules) => unbase64(rules)
            .ok_or_else(|| "no base64".to_string())
            .and_then(|rules| check_charsmap(&rules))
            .map_err(|problem| {
                TextError::malformed(TOKENIZER_JSON, "normalizer.precompiled_charsmap", problem)
            }),
    }
}

/// As [`merges`], for right parts whose prefix has been taken off.
fn prefixed_merges(
    vocab: &[(String, u32)],
    pairs: &[(String, String)],
    prefix: &str,
) -> Result<(), TextError> {
    let tokens: HashSet<&str> = vocab.iter().map(|(token, _)| token.as_str()).collect();
    for (i, (left, right)) in pairs.iter().enumerate() {
        for part in [left.clone(), format!("{prefix}{right}"), format!("{left}{right}")] {
            if !tokens.contains(part.as_str()) {
                let place = format!("model.merges[{i}]");
                return Err(TextError::malformed(TOKENIZER_JSON, place, format!("{part:?} is not a token")));
            }
        }
    }
    Ok(())
}
