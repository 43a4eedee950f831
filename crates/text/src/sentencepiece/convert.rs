//! A sentencepiece model as a `tokenizer.json`, by which this crate encodes every text as sentencepiece does.
//!
//! One kind of text is an exception, as in `transformers`: rules for characters are looked up by grapheme, so
//! that marks after a character and its first mark can get lost where a rule replaces these two.

use serde_json::{Value, json};

use super::{Algorithm, PieceType, SentencePiece};
use crate::base64::base64;
use crate::merges::merges;
use crate::tokenizer::Roles;
use crate::{TextError, Tokenizer};

/// What stands for a space in pieces, U+2581.
pub(crate) const SPACE: &str = "\u{2581}";

impl Tokenizer {
    /// Reads the content of a sentencepiece model, a `tokenizer.model`: unigram or BPE, with or without byte
    /// fallback.
    ///
    /// BOS, EOS and padding are those that the model names; sequences begin with BOS, as they do where a
    /// `tokenizer_config.json` does not say otherwise.
    ///
    /// # Errors
    /// If it is damaged, or has a part that a `tokenizer.json` cannot express (the message names it): another
    /// algorithm, pieces of type unused, pieces of the user in a model that begins texts with a space.
    pub fn from_sentencepiece(bytes: &[u8]) -> Result<Self, TextError> {
        let model = SentencePiece::parse(bytes)?;
        let users = model.pieces.iter().find(|piece| piece.ty == PieceType::UserDefined);
        // A unigram model has such pieces in its sums.
        let spaces =
            model.algorithm == Algorithm::Bpe && (model.add_dummy_prefix || model.remove_extra_whitespaces);
        if let Some(piece) = users.filter(|_| spaces || !model.charsmap.is_empty()) {
            return Err(TextError::Unsupported {
                what: "sentencepiece vocabulary",
                found: format!("{:?}, of type user-defined, in a model that normalizes text", piece.text),
                supported: "such pieces in models without a charsmap and, if BPE, without add_dummy_prefix and \
                            remove_extra_whitespaces: a tokenizer.json cannot tell the beginning of a text from what \
                            follows such a piece"
                    .to_string(),
            });
        }
        model.build()
    }
}

fn replace(pattern: &Value, content: &str) -> Value {
    json!({"type": "Replace", "pattern": pattern, "content": content})
}

/// The normalizer that puts a space before a text, or does not, and marks all spaces.
pub(super) fn escape(prefix: bool) -> Value {
    let mut steps = Vec::new();
    if prefix {
        steps.push(json!({"type": "Prepend", "prepend": SPACE}));
    }
    steps.push(replace(&json!({"String": " "}), SPACE));
    json!({"type": "Sequence", "normalizers": steps})
}

impl SentencePiece {
    /// The tokenizer with the model's vocabulary and roles.
    pub(crate) fn build(&self) -> Result<Tokenizer, TextError> {
        let model = match self.algorithm {
            Algorithm::Bpe => self.bpe(),
            Algorithm::Unigram => self.unigram(),
        };
        let added = self.pieces.iter().enumerate().filter_map(|(id, piece)| {
            let special = match piece.ty {
                PieceType::Control | PieceType::Unknown => true,
                PieceType::UserDefined if self.algorithm == Algorithm::Bpe => false,
                _ => return None,
            };
            // Pieces of the user are found among marks for spaces, unless a mark before the text would become
            // part of them.
            let normalized = !special && !self.add_dummy_prefix;
            Some(json!({
                "id": id, "content": piece.text, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": normalized,
            }))
        });
        let json = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.collect::<Vec<Value>>(),
            "normalizer": self.normalizer(),
            "pre_tokenizer": null,
            "post_processor": null,
            "decoder": self.decoder(),
            "model": model,
        });
        let tokenizer = Tokenizer::from_json(json.to_string().as_bytes())?;
        let (bos, eos, pad) = (self.bos, self.eos, self.pad);
        Ok(tokenizer.with_roles(Roles { bos, eos, pad, add_bos: bos.is_some() }))
    }

    /// Every way to make a piece is a merge, those of the pieces with larger scores first.
    fn bpe(&self) -> Value {
        let mut normal: Vec<usize> =
            (0..self.pieces.len()).filter(|id| self.pieces[*id].ty == PieceType::Normal).collect();
        normal.sort_by(|a, b| self.pieces[*b].score.total_cmp(&self.pieces[*a].score));
        let texts: Vec<&[u8]> = normal.iter().map(|id| self.pieces[*id].text.as_bytes()).collect();
        let text = |place: usize| self.pieces[normal[place]].text.as_str();
        let merges: Vec<[&str; 2]> = merges(&texts).into_iter().map(|(l, r)| [text(l), text(r)]).collect();
        let used = self.pieces.iter().enumerate().filter(|(_, piece)| piece.ty != PieceType::Unused);
        let vocab: serde_json::Map<String, Value> =
            used.map(|(id, piece)| (piece.text.clone(), json!(id))).collect();
        json!({
            "type": "BPE", "dropout": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "unk_token": self.pieces[self.unk as usize].text, "fuse_unk": true,
            "byte_fallback": self.byte_fallback, "ignore_merges": false,
            "vocab": vocab, "merges": merges,
        })
    }

    fn unigram(&self) -> Value {
        // Pieces of the user have the score 0, better than that of any piece of text: a logarithm of a
        // probability.
        let vocab: Vec<Value> =
            self.pieces.iter().map(|piece| json!([piece.text, f64::from(piece.score)])).collect();
        json!({
            "type": "Unigram", "unk_id": self.unk, "byte_fallback": self.byte_fallback, "vocab": vocab,
        })
    }

    fn normalizer(&self) -> Value {
        let mut steps = Vec::new();
        if !self.charsmap.is_empty() {
            steps.push(json!({"type": "Precompiled", "precompiled_charsmap": base64(&self.charsmap)}));
        }
        if self.remove_extra_whitespaces {
            steps.push(replace(&json!({"Regex": r"\A +"}), ""));
            steps.push(replace(&json!({"Regex": " {2,}"}), " "));
        }
        let escape = escape(self.add_dummy_prefix);
        steps.extend(escape["normalizers"].as_array().into_iter().flatten().cloned());
        if self.remove_extra_whitespaces {
            // Whoever wrote the mark itself at the end of a text loses it too.
            steps.push(replace(&json!({"Regex": format!(r"{SPACE}+\z")}), ""));
        }
        json!({"type": "Sequence", "normalizers": steps})
    }

    fn decoder(&self) -> Value {
        let mut steps = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
        ];
        if self.add_dummy_prefix {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }
}
