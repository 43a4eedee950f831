//! A tokenizer in a few words, from the GGUF metadata that describes it, whether or not this program runs its
//! kind.

use serde::Serialize;
use tritforge_gguf::{Metadata, optional};
use tritforge_text::Tokenizer;

use crate::ExportError;

/// A tokenizer in a few words.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenizerSummary {
    /// `byte-level BPE`, `sentencepiece`, or the name that its file gives.
    pub kind: String,
    /// The pre-tokenizer as GGUF names it; none if the file does not say, which makes runtimes guess.
    pub pre: Option<String>,
    /// Ids.
    pub size: usize,
    /// Merges of a BPE.
    pub merges: usize,
    /// Tokens with a role: `bos`, `eos`, `pad`, and their names.
    pub roles: Vec<(String, String)>,
    /// All special tokens: id and name.
    pub special: Vec<(usize, String)>,
    /// Whether sequences begin with BOS where the user does not say; none if the file does not say.
    pub adds_bos: Option<bool>,
    /// Whether there is a chat template.
    pub chat_template: bool,
}

/// Type of control tokens, as `llama.h` numbers them.
const CONTROL: i64 = 3;

impl TokenizerSummary {
    /// The tokenizer that GGUF metadata describes, if it does.
    pub(super) fn of_metadata(metadata: &Metadata) -> Result<Option<Self>, ExportError> {
        let key = |suffix: &str| format!("tokenizer.ggml.{suffix}");
        let Some(model) = optional(metadata.get_str(&key("model")))? else { return Ok(None) };
        let tokens = optional(metadata.get_str_array(&key("tokens")))?.unwrap_or(&[]);
        let types = optional(metadata.get_i64_array(&key("token_type")))?.unwrap_or_default();
        let mut roles = Vec::new();
        for (role, suffix) in [("bos", "bos_token_id"), ("eos", "eos_token_id"), ("pad", "padding_token_id")]
        {
            if let Some(id) = optional(metadata.get_usize(&key(suffix)))? {
                let name = tokens.get(id).cloned().unwrap_or_else(|| {
                    format!(
                        "{id}, which is not in the \
                                                                              vocabulary"
                    )
                });
                roles.push((role.to_string(), name));
            }
        }
        let special = tokens.iter().zip(&types).enumerate().filter(|(_, (_, ty))| **ty == CONTROL);
        Ok(Some(Self {
            kind: match model {
                "gpt2" => "byte-level BPE".to_string(),
                "llama" => "sentencepiece".to_string(),
                other => other.to_string(),
            },
            pre: optional(metadata.get_str(&key("pre")))?.map(str::to_string),
            size: tokens.len(),
            merges: optional(metadata.get_array(&key("merges")))?.map_or(0, tritforge_gguf::Array::len),
            roles,
            special: special.map(|(id, (token, _))| (id, token.clone())).collect(),
            adds_bos: optional(metadata.get_bool(&key("add_bos_token")))?,
            chat_template: metadata.contains("tokenizer.chat_template"),
        }))
    }

    /// A tokenizer of Hugging Face's format in a model with `vocab_size` ids; one that GGUF cannot describe
    /// is told by the reason.
    pub(super) fn of(tokenizer: &Tokenizer, vocab_size: usize) -> Result<Option<Self>, ExportError> {
        let mut metadata = Metadata::new();
        match tokenizer.to_gguf(vocab_size.max(tokenizer.vocab_size())) {
            Ok(entries) => entries.into_iter().for_each(|(key, value)| {
                metadata.insert(key, value);
            }),
            Err(error) => {
                return Ok(Some(Self {
                    kind: error.to_string(),
                    pre: None,
                    size: tokenizer.vocab_size(),
                    merges: 0,
                    roles: Vec::new(),
                    special: Vec::new(),
                    adds_bos: Some(tokenizer.adds_bos()),
                    chat_template: tokenizer.chat_template()?.is_some(),
                }));
            }
        }
        Self::of_metadata(&metadata)
    }
}
