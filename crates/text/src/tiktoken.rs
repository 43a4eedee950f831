//! tiktoken files: one token a line, in base64, and its rank. Llama 3's original `tokenizer.model` is one.
//!
//! The file says which tokens there are, not how text is split before anything is merged, nor the special
//! tokens: both stand in the code of the model that it belongs to. [`TiktokenPattern`] has those of the known
//! ones.

use std::collections::{BTreeMap, HashSet};

use tokenizers::Model;
use tritforge_support::counted;

use crate::base64::unbase64;
use crate::byte_level::spell;
use crate::merges::{MAX_TOKEN, merges};
use crate::pre::Pre;
use crate::tokenizer::{Parts, Roles};
use crate::validate::MAX_VOCAB;
use crate::{TextError, Tokenizer};

/// A tiktoken file whose path is not known.
const FILE: &str = "tiktoken file";

/// How a tiktoken vocabulary splits text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TiktokenPattern {
    /// GPT-2's, in `r50k_base` and `p50k_base`.
    Gpt2,
    /// GPT-4's, `cl100k_base`.
    Cl100k,
    /// GPT-4o's, `o200k_base`.
    O200k,
    /// Llama 3's.
    Llama3,
    /// Qwen's.
    Qwen,
}

/// What is known of a published vocabulary.
struct Known {
    /// Words in a file's name that tell it.
    names: &'static [&'static str],
    /// How many tokens it has, special ones apart.
    ranks: usize,
    pattern: TiktokenPattern,
    /// Its special tokens and their ids.
    specials: fn() -> Vec<(u32, String)>,
}

/// One row a vocabulary. Sources: `tiktoken_ext/openai_public.py` of tiktoken 0.14.0; `llama3/tokenizer.py`
/// of llama-models 0.3.0; `tokenization_qwen.py` of Qwen-7B.
const KNOWN: [Known; 6] = [
    Known {
        names: &["r50k", "gpt2"],
        ranks: 50256,
        pattern: TiktokenPattern::Gpt2,
        specials: || tokens(&[(50256, "<|endoftext|>")]),
    },
    Known {
        names: &["p50k"],
        ranks: 50280,
        pattern: TiktokenPattern::Gpt2,
        specials: || tokens(&[(50256, "<|endoftext|>")]),
    },
    Known {
        names: &["cl100k"],
        ranks: 100_256,
        pattern: TiktokenPattern::Cl100k,
        specials: || {
            tokens(&[
                (100_257, "<|endoftext|>"),
                (100_258, "<|fim_prefix|>"),
                (100_259, "<|fim_middle|>"),
                (100_260, "<|fim_suffix|>"),
                (100_276, "<|endofprompt|>"),
            ])
        },
    },
    Known {
        names: &["o200k"],
        ranks: 199_998,
        pattern: TiktokenPattern::O200k,
        specials: || tokens(&[(199_999, "<|endoftext|>"), (200_018, "<|endofprompt|>")]),
    },
    Known {
        names: &["llama3", "llama-3"],
        ranks: 128_000,
        pattern: TiktokenPattern::Llama3,
        specials: llama3,
    },
    Known {
        names: &["qwen"],
        ranks: 151_643,
        pattern: TiktokenPattern::Qwen,
        specials: || {
            tokens(&[(151_643, "<|endoftext|>"), (151_644, "<|im_start|>"), (151_645, "<|im_end|>")])
        },
    },
];

fn tokens(list: &[(u32, &str)]) -> Vec<(u32, String)> {
    list.iter().map(|(id, token)| (*id, (*token).to_string())).collect()
}

/// The 256 special tokens of Llama 3.1; those of 3.0 have the same ids.
fn llama3() -> Vec<(u32, String)> {
    const NAMED: [&str; 11] = [
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|reserved_special_token_0|>",
        "<|reserved_special_token_1|>",
        "<|finetune_right_pad_id|>",
        "<|step_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eom_id|>",
        "<|eot_id|>",
        "<|python_tag|>",
    ];
    let reserved = (2..247).map(|i| format!("<|reserved_special_token_{i}|>"));
    (128_000..).zip(NAMED.map(str::to_string).into_iter().chain(reserved)).collect()
}

impl TiktokenPattern {
    /// The pattern under the name by which GGUF knows it.
    fn pre(self) -> Result<Pre, TextError> {
        Pre::by_name(match self {
            TiktokenPattern::Gpt2 => "gpt-2",
            TiktokenPattern::Cl100k | TiktokenPattern::Llama3 => "llama-bpe",
            TiktokenPattern::O200k => "gpt-4o",
            TiktokenPattern::Qwen => "qwen2",
        })
    }
}

impl Tokenizer {
    /// Reads the content of a tiktoken file: lines of a token in base64, a space, and its rank, which is its
    /// id.
    ///
    /// The special tokens are given with their ids, which the vocabulary leaves free. No token has a role.
    ///
    /// # Errors
    /// If the file is damaged, a token or rank is there twice, or a special token has the id of another.
    pub fn from_tiktoken(
        bytes: &[u8],
        pattern: TiktokenPattern,
        specials: &[(u32, String)],
    ) -> Result<Self, TextError> {
        build(&ranks(bytes, FILE)?, pattern, specials, FILE)
    }

    /// Reads a tiktoken file whose vocabulary is known by the name of the file or the number of its tokens.
    /// `specials` replaces the special tokens that belong to it.
    pub(crate) fn from_known_tiktoken(
        bytes: &[u8],
        file: &str,
        specials: Option<&[(u32, String)]>,
    ) -> Result<Self, TextError> {
        let ranks = ranks(bytes, file)?;
        let name = file.rsplit(['/', '\\']).next().unwrap_or_default().to_lowercase();
        let named = KNOWN.iter().find(|known| known.names.iter().any(|part| name.contains(part)));
        let known = named.or_else(|| KNOWN.iter().find(|known| known.ranks == ranks.len())).ok_or_else(|| {
            TextError::Unsupported {
                what: "tiktoken vocabulary",
                found: format!("{file} with {}, which does not say how text is split", counted(ranks.len(), "token")),
                supported: "cl100k_base, o200k_base, r50k_base, p50k_base, llama3 and qwen, by number of tokens or in \
                            the name of the file: llama3.tiktoken"
                    .to_string(),
            }
        })?;
        let own = (known.specials)();
        // The known ids belong to the published vocabulary, whatever the file is called.
        let own = if known.ranks == ranks.len() { &own[..] } else { &[] };
        let tokenizer = build(&ranks, known.pattern, specials.unwrap_or(own), file)?;
        let roles = tokenizer.known_roles(&serde_json::Value::Null);
        // Llama 3's reference code begins every text with BOS.
        let add_bos = known.pattern == TiktokenPattern::Llama3 && roles.bos.is_some();
        Ok(tokenizer.with_roles(Roles { add_bos, ..roles }))
    }
}

/// Whether a file is a tiktoken file and not a sentencepiece model: its first line is base64, a space and a
/// number.
pub(crate) fn is_tiktoken(bytes: &[u8]) -> bool {
    let end = bytes.iter().take(2 * MAX_TOKEN).position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    line(&bytes[..end]).is_some()
}

/// Token and rank of a line.
fn line(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let line = std::str::from_utf8(line).ok()?.trim_end_matches('\r');
    let (token, rank) = line.split_once(' ')?;
    if !rank.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((unbase64(token)?, rank.parse().ok()?))
}

/// Tokens by rank.
fn ranks(bytes: &[u8], file: &str) -> Result<BTreeMap<u32, Vec<u8>>, TextError> {
    let mut ranks = BTreeMap::new();
    let mut lines = 0;
    for (i, text) in bytes.split(|byte| *byte == b'\n').enumerate().filter(|(_, text)| !text.is_empty()) {
        let fault = |problem: String| Err(TextError::malformed(file, format!("line {}", i + 1), problem));
        let Some((token, rank)) = line(text) else {
            return fault("expected a token in base64, a space and its rank".to_string());
        };
        if token.is_empty() || token.len() > MAX_TOKEN {
            return fault(format!("a token of {}; expected 1 to {MAX_TOKEN}", counted(token.len(), "byte")));
        }
        if rank as usize >= MAX_VOCAB {
            return fault(format!("rank {rank}; expected 0 to 2^24-1"));
        }
        if ranks.insert(rank, token).is_some() {
            return fault(format!("rank {rank} a second time"));
        }
        lines += 1;
    }
    if lines == 0 {
        return Err(TextError::malformed(file, "lines", "none: expected a token and its rank in each"));
    }
    Ok(ranks)
}

fn build(
    ranks: &BTreeMap<u32, Vec<u8>>,
    pattern: TiktokenPattern,
    specials: &[(u32, String)],
    file: &str,
) -> Result<Tokenizer, TextError> {
    let (ids, tokens): (Vec<u32>, Vec<&[u8]>) = ranks.iter().map(|(rank, token)| (*rank, &token[..])).unzip();
    let spelled: Vec<String> = tokens.iter().map(|token| spell(token)).collect();
    let merges: Vec<(String, String)> =
        merges(&tokens).into_iter().map(|(l, r)| (spelled[l].clone(), spelled[r].clone())).collect();
    let mut vocab: Vec<(String, u32)> = spelled.iter().cloned().zip(ids).collect();
    let mut seen: HashSet<&str> = spelled.iter().map(String::as_str).collect();
    if seen.len() != spelled.len() {
        return Err(TextError::malformed(file, "lines", "a token comes twice"));
    }
    let mut taken: HashSet<u32> = ranks.keys().copied().collect();
    for (id, token) in specials {
        if *id as usize >= MAX_VOCAB || !taken.insert(*id) || token.is_empty() || !seen.insert(token) {
            let problem = format!("{token:?} with the id {id}: the token or the id is taken, or none");
            return Err(TextError::malformed(file, "special tokens", problem));
        }
        vocab.push((token.clone(), *id));
    }
    let added: Vec<(String, bool)> = specials.iter().map(|(_, token)| (token.clone(), true)).collect();
    let parts = |ignore_merges| -> Result<Tokenizer, TextError> {
        let mut pre = pattern.pre()?;
        pre.ignore_merges = ignore_merges;
        let (vocab, merges, added) = (vocab.clone(), merges.clone(), Vec::clone(&added));
        Tokenizer::build(Parts { vocab, merges, pre, added }, file, "merges")
    };
    let tokenizer = parts(pattern.pre()?.ignore_merges)?;
    // tiktoken looks a piece up before it merges anything. Where merges find every token, that makes no
    // difference, and the tokenizer is what GGUF's name of the pattern says.
    let model = tokenizer.inner.get_model();
    let found = |token: &String| model.tokenize(token).is_ok_and(|tokens| tokens.len() == 1);
    if spelled.iter().all(found) { Ok(tokenizer) } else { parts(true) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_tokens_of_llama_3_have_the_ids_of_its_models() {
        let tokens = llama3();
        assert_eq!(tokens.len(), 256);
        assert_eq!(tokens[9], (128_009, "<|eot_id|>".to_string()));
        assert_eq!(tokens[255], (128_255, "<|reserved_special_token_246|>".to_string()));
    }
}
