//! How the tokens of a vocabulary spell text: in GPT-2's bytes, in sentencepiece's marks, or in another way.

use serde_json::Value;

use crate::byte_level;
use crate::pre::is_byte_level;
use crate::sentencepiece::{SPACE, byte_of};

/// What the tokens of a vocabulary are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// Each character is a byte, in GPT-2's way.
    ByteLevel,
    /// U+2581 is a space, `<0x0A>` a byte. A text may begin with a space that it does not have.
    SentencePiece {
        /// Whether it does.
        prefix: bool,
    },
    /// Whatever the tokenizer's decoder makes of them.
    Other,
}

impl Spelling {
    /// The spelling of a tokenizer, by its pre-tokenizer and decoder as in a `tokenizer.json`.
    pub(crate) fn of(pre_tokenizer: &Value, decoder: &Value) -> Self {
        if is_byte_level(pre_tokenizer) {
            return Spelling::ByteLevel;
        }
        let steps: Vec<&Value> = decoder["decoders"].as_array().into_iter().flatten().collect();
        let kinds: Vec<&str> = steps.iter().map(|step| step["type"].as_str().unwrap_or_default()).collect();
        let marks = steps.first().is_some_and(|step| {
            step["pattern"]["String"].as_str() == Some(SPACE) && step["content"].as_str() == Some(" ")
        });
        match kinds[..] {
            ["Replace", "ByteFallback", "Fuse"] if marks => Spelling::SentencePiece { prefix: false },
            ["Replace", "ByteFallback", "Fuse", "Strip"] if marks && strips_one_space(steps[3]) => {
                Spelling::SentencePiece { prefix: true }
            }
            _ => Spelling::Other,
        }
    }

    /// The bytes of a token of text.
    pub(crate) fn bytes(self, token: String) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => byte_level::unspell(&token),
            Spelling::SentencePiece { .. } => match byte_of(&token) {
                Some(byte) => vec![byte],
                None => token.replace(SPACE, " ").into_bytes(),
            },
            Spelling::Other => token.into_bytes(),
        }
    }

    /// Whether the bytes of tokens, put together, are the text.
    pub(crate) fn is_bytes(self) -> bool {
        self != Spelling::Other
    }
}

fn strips_one_space(step: &Value) -> bool {
    step["content"].as_str() == Some(" ") && step["start"] == 1 && step["stop"] == 0
}
