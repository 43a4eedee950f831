//! Fill-in-the-middle: the prompt by which a model writes what stands between two texts.

use crate::{EncodeOptions, TextError, Tokenizer};

/// Names of the tokens before the text, before what comes after it, and before what is to be written, as models of the
/// families Qwen and Granite, StarCoder, SantaCoder, CodeLlama (two spellings) and DeepSeek have them.
const NAMES: [[&str; 3]; 6] = [
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    ["<PRE>", "<SUF>", "<MID>"],
    ["\u{2581}<PRE>", "\u{2581}<SUF>", "\u{2581}<MID>"],
    [
        "<\u{ff5c}fim\u{2581}begin\u{ff5c}>",
        "<\u{ff5c}fim\u{2581}hole\u{ff5c}>",
        "<\u{ff5c}fim\u{2581}end\u{ff5c}>",
    ],
];

impl Tokenizer {
    /// The ids of a prompt to write what stands between `prefix` and `suffix`, in the order prefix, suffix, middle; none
    /// if the vocabulary has no tokens for that. Names of special tokens in the texts are these tokens.
    ///
    /// # Errors
    /// If the vocabulary lacks a character.
    pub fn encode_fill_in(&self, prefix: &str, suffix: &str) -> Result<Option<Vec<u32>>, TextError> {
        let ids = |names: &[&str; 3]| {
            let mut ids = [0; 3];
            for (id, name) in ids.iter_mut().zip(names) {
                *id = self.id(name)?;
            }
            Some(ids)
        };
        let Some([before, behind, middle]) = NAMES.iter().find_map(ids) else { return Ok(None) };
        let encode =
            |text: &str| self.encode_with(text, EncodeOptions { add_bos: false, parse_special: true });
        let bos = self.bos().filter(|_| self.adds_bos());
        let mut prompt: Vec<u32> = bos.into_iter().chain([before]).collect();
        prompt.extend(encode(prefix)?);
        prompt.push(behind);
        prompt.extend(encode(suffix)?);
        prompt.push(middle);
        Ok(Some(prompt))
    }
}
