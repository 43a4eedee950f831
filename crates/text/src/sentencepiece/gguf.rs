//! sentencepiece BPE models as GGUF metadata: `tokenizer.ggml.model = "llama"` with tokens, scores and types.
//!
//! Runtimes merge by score there, put a space before a text if `tokenizer.ggml.add_space_prefix` says so, and
//! spell what has no token in bytes; text is normalized in no other way (`llm_tokenizer_spm` of llama.cpp).

use std::collections::{BTreeMap, HashMap, HashSet};

use serde_json::Value as Json;
use tokenizers::ModelWrapper;
use tokenizers::models::bpe::BPE;
use tritforge_gguf::{Metadata, optional};
use tritforge_support::counted;

use super::{Algorithm, Piece, PieceType, SentencePiece, byte_of};
use crate::gguf::{ADD_SPACE_PREFIX, GGUF, SCORES, TOKEN_TYPE, TOKENS};
use crate::merges::merges;
use crate::{TextError, Tokenizer};

/// What the keys of a sentencepiece model say beside tokens and types.
pub(crate) struct Described {
    /// Of each token that merges make: minus its place in their order.
    pub(crate) scores: HashMap<String, f32>,
    pub(crate) add_space_prefix: bool,
    /// The token for text that has none.
    pub(crate) unk: String,
}

/// The tokenizer that the keys describe, without roles, and the ids that stand for nothing.
///
/// # Errors
/// If a key is missing or has another type, or the lists contradict each other.
pub(crate) fn from_gguf(metadata: &Metadata) -> Result<(Tokenizer, BTreeMap<u32, String>), TextError> {
    let fault = |place: String, problem: String| TextError::malformed(GGUF, place, problem);
    let tokens = metadata.get_str_array(TOKENS)?;
    let scores = metadata.get_f64_array(SCORES)?;
    let types = metadata.get_i64_array(TOKEN_TYPE)?;
    if tokens.is_empty() || scores.len() != tokens.len() || types.len() != tokens.len() {
        let found = format!(
            "{}, {}, {}",
            counted(tokens.len(), "token"),
            counted(scores.len(), "score"),
            counted(types.len(), "type")
        );
        return Err(fault(TOKENS.to_string(), format!("{found}; expected as many of each")));
    }
    let mut pieces = Vec::with_capacity(tokens.len());
    let mut unused = BTreeMap::new();
    for (id, ((text, score), ty)) in tokens.iter().zip(scores).zip(types).enumerate() {
        let ty = PieceType::from_number(ty).ok_or_else(|| {
            fault(format!("{TOKEN_TYPE}[{id}]"), format!("{ty} for {text:?}: expected 1 to 6"))
        })?;
        if ty == PieceType::Unused {
            unused.insert(id as u32, text.clone());
        }
        pieces.push(Piece { text: text.clone(), score: score as f32, ty });
    }
    let byte_fallback = pieces.iter().any(|piece| piece.ty == PieceType::Byte);
    let model = SentencePiece {
        pieces,
        algorithm: Algorithm::Bpe,
        byte_fallback,
        add_dummy_prefix: optional(metadata.get_bool(ADD_SPACE_PREFIX))?.unwrap_or(true),
        remove_extra_whitespaces: false,
        charsmap: Vec::new(),
        unk: 0,
        bos: None,
        eos: None,
        pad: None,
    };
    Ok((model.checked(GGUF)?.build()?, unused))
}

/// What GGUF says of a BPE with sentencepiece's marks.
///
/// # Errors
/// If it cannot say it exactly; the message says what it cannot.
pub(crate) fn describe(tokenizer: &Tokenizer, prefix: bool) -> Result<Described, TextError> {
    let unsupported = |found: String, supported: &str| {
        let supported = supported.to_string();
        Err(TextError::Unsupported { what: "sentencepiece vocabulary for GGUF", found, supported })
    };
    let json = |part: Result<Json, serde_json::Error>| {
        part.map_err(|e| TextError::Tokenize(format!("cannot describe the tokenizer: {e}")))
    };
    let inner = &tokenizer.inner;
    let ModelWrapper::BPE(bpe) = inner.get_model() else {
        return unsupported("a unigram model".to_string(), "BPE with byte fallback");
    };
    let normalizer = json(serde_json::to_value(inner.get_normalizer()))?;
    let expected = super::convert::escape(prefix);
    let single = expected["normalizers"].as_array().filter(|steps| steps.len() == 1).map(|steps| &steps[0]);
    if normalizer != expected && Some(&normalizer) != single {
        return unsupported(
            format!("the normalizer {normalizer}"),
            "spaces as they are, and one before the text or none: sentencepiece's remove_extra_whitespaces = false and \
             normalization_rule_name = identity",
        );
    }
    if inner.get_pre_tokenizer().is_some() || bpe.ignore_merges || bpe.dropout.is_some() {
        return unsupported("a pre-tokenizer, dropout or ignore_merges".to_string(), "merges alone");
    }
    let bytes = (0..=255u8).all(|byte| inner.token_to_id(&format!("<0x{byte:02X}>")).is_some());
    let Some(unk) = bpe.unk_token.clone().filter(|_| bpe.byte_fallback && bytes) else {
        return unsupported(
            "no token for unknown text or for every byte".to_string(),
            "BPE with byte fallback",
        );
    };
    Ok(Described { scores: scores(tokenizer, bpe, &unk)?, add_space_prefix: prefix, unk })
}

/// Scores by which the same merges are found.
fn scores(tokenizer: &Tokenizer, bpe: &BPE, unk: &str) -> Result<HashMap<String, f32>, TextError> {
    let described = serde_json::to_value(bpe)
        .map_err(|e| TextError::Tokenize(format!("cannot describe the tokenizer: {e}")))?;
    let list = described["merges"].as_array().into_iter().flatten();
    let list: Vec<(&str, &str)> =
        list.filter_map(|merge| Some((merge[0].as_str()?, merge[1].as_str()?))).collect();
    let mut order: Vec<String> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut grouped = true;
    for (left, right) in &list {
        let whole = format!("{left}{right}");
        let place = *places.entry(whole).or_insert_with_key(|whole| {
            order.push(whole.clone());
            order.len() - 1
        });
        grouped &= place + 1 == order.len();
    }
    let added = tokenizer.inner.get_added_vocabulary().get_vocab();
    let is_text = |token: &str| token != unk && byte_of(token).is_none() && !added.contains_key(token);
    let rest = bpe.get_vocab().into_keys().filter(|token| is_text(token) && !places.contains_key(token));
    let mut all = order.clone();
    all.extend(rest);
    let tokens: Vec<&[u8]> = all.iter().map(|token| token.as_bytes()).collect();
    let expected: HashSet<(&str, &str)> =
        merges(&tokens).into_iter().map(|(l, r)| (all[l].as_str(), all[r].as_str())).collect();
    if !grouped || expected.len() != list.len() || !list.iter().all(|merge| expected.contains(merge)) {
        return Err(TextError::Unsupported {
            what: "sentencepiece vocabulary for GGUF",
            found: "merges that do not follow from an order of tokens".to_string(),
            supported:
                "the merges of a sentencepiece model: all ways of making a token, one token after the other"
                    .to_string(),
        });
    }
    Ok(order.into_iter().enumerate().map(|(place, token)| (token, -(place as f32))).collect())
}
