//! `[tokenizer]`: where the tokenizer comes from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::Model;
use crate::Reader;

/// Vocabulary of a BPE where the recipe does not say.
const VOCAB_SIZE: usize = 4096;

/// `[tokenizer]`: where the tokenizer comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Tokenizer {
    /// By default `"bpe"`, or `"base"` where `model.base` is given.
    pub kind: TokenizerKind,
    /// For `"bpe"`: size of the vocabulary to train; by default `model.vocab_size`, and without that 4096. 0 for the
    /// other kinds, whose size the text or the file determines.
    #[serde(skip_serializing_if = "is_zero")]
    pub vocab_size: usize,
    /// For `"file"`: a `tokenizer.json`, sentencepiece model or tiktoken file, the directory of one, or `hf://OWNER/NAME` for the
    /// `tokenizer.json` of a repository of the Hugging Face Hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

/// Kinds of tokenizers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TokenizerKind {
    /// `"bpe"`: a byte-level BPE, trained on the training text.
    Bpe,
    /// `"characters"`: one token for each character of the text.
    Characters,
    /// `"file"`: a Hugging Face `tokenizer.json`, a sentencepiece model or a tiktoken file.
    File,
    /// `"base"`: that of `model.base`.
    Base,
}

impl Tokenizer {
    /// Reads the section; `model_vocab_size` is the size that `[model]` or its file gives, and a run that is `based` has
    /// a base.
    pub fn read(r: &mut Reader, model_vocab_size: Option<usize>, based: bool) -> Self {
        let kinds = [
            ("bpe", TokenizerKind::Bpe),
            ("characters", TokenizerKind::Characters),
            ("file", TokenizerKind::File),
            ("base", TokenizerKind::Base),
        ];
        let default = if based { TokenizerKind::Base } else { TokenizerKind::Bpe };
        let kind = r.choice("tokenizer", "kind", &kinds).unwrap_or(default);
        // A byte-level BPE begins with the 256 bytes.
        let vocab_size = r.size("tokenizer", "vocab_size", 257);
        let path = r.path("tokenizer", "path");
        let default = if kind == TokenizerKind::Bpe { model_vocab_size.unwrap_or(VOCAB_SIZE) } else { 0 };
        Self { kind, vocab_size: vocab_size.unwrap_or(default), path }
    }

    /// Notes what contradicts it.
    pub fn check(&self, r: &mut Reader, model: &Model) {
        match (self.kind, &self.path) {
            (TokenizerKind::Base, _) if model.base.is_none() => {
                r.fault("tokenizer", "kind", "tokenizer.kind = \"base\": model.base is missing");
            }
            (TokenizerKind::File, None) => r.missing("tokenizer", "path", "the path of a tokenizer.json"),
            (TokenizerKind::Bpe | TokenizerKind::Characters | TokenizerKind::Base, Some(path)) => {
                let message =
                    format!("tokenizer.path = \"{}\": only for tokenizer.kind = \"file\"", path.display());
                r.fault("tokenizer", "path", message);
            }
            _ => {}
        }
        let vocab_size = self.vocab_size;
        if self.kind != TokenizerKind::Bpe && vocab_size > 0 {
            let message = format!(
                "tokenizer.vocab_size = {vocab_size}: only for tokenizer.kind = \"bpe\"; leave it out"
            );
            r.fault("tokenizer", "vocab_size", message);
        } else if let Some(rows) = model.vocab_size.filter(|rows| vocab_size > 0 && *rows != vocab_size) {
            let message = format!(
                "model.vocab_size = {rows} contradicts tokenizer.vocab_size = {vocab_size}: leave model.vocab_size out"
            );
            r.fault("model", "vocab_size", message);
        } else if self.kind == TokenizerKind::Bpe && vocab_size <= 256 {
            let message = format!("model.vocab_size = {vocab_size}: a byte-level BPE needs at least 257");
            r.fault("model", "vocab_size", message);
        }
    }
}

// serde hands references to `skip_serializing_if`.
fn is_zero(n: &usize) -> bool {
    *n == 0
}
