//! sentencepiece models (`tokenizer.model`): what the file says.
//!
//! The format is `ModelProto` of `sentencepiece_model.proto`: pieces with a score and a type, how the model
//! was trained, and how text is normalized. Read by a small protobuf reader of our own; the conversion is in
//! `convert`.

mod charsmap;
mod convert;
mod gguf;
mod proto;

use std::collections::HashMap;

pub(crate) use self::charsmap::check as check_charsmap;
pub(crate) use self::convert::SPACE;
pub(crate) use self::gguf::{describe, from_gguf};
use self::proto::Fields;
use tritforge_support::counted;

use crate::TextError;
use crate::merges::MAX_TOKEN;
use crate::validate::MAX_VOCAB;

/// The name of a model whose path is not known.
const FILE: &str = "tokenizer.model";

/// What a piece is, as the format and GGUF's token types number it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceType {
    /// Text.
    Normal,
    /// What stands for text that has no piece.
    Unknown,
    /// Never found in text: `<s>`.
    Control,
    /// Found in text before anything else.
    UserDefined,
    /// Stands for nothing.
    Unused,
    /// One byte, `<0x0A>`.
    Byte,
}

impl PieceType {
    /// The type of a number; 1 is the default.
    pub(crate) fn from_number(number: i64) -> Option<Self> {
        use PieceType::*;
        usize::try_from(number - 1)
            .ok()
            .and_then(|i| [Normal, Unknown, Control, UserDefined, Unused, Byte].get(i).copied())
    }
}

/// One entry of the vocabulary; its id is its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    /// Its text, with [`SPACE`] for spaces.
    pub(crate) text: String,
    /// Larger is better: the order of merges of a BPE, a logarithm of a probability of a unigram model.
    pub(crate) score: f32,
    pub(crate) ty: PieceType,
}

/// How the pieces of a text are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// The segmentation with the largest sum of scores.
    Unigram,
    /// Merging the neighbours that make the piece with the largest score.
    Bpe,
}

/// A sentencepiece model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SentencePiece {
    pub(crate) pieces: Vec<Piece>,
    pub(crate) algorithm: Algorithm,
    /// Whether characters without a piece are spelled in bytes.
    pub(crate) byte_fallback: bool,
    /// Whether a text begins with a space that it does not have.
    pub(crate) add_dummy_prefix: bool,
    /// Whether spaces at the ends go and several in a row are one.
    pub(crate) remove_extra_whitespaces: bool,
    /// Darts-clone trie of replacements and their texts; empty for none.
    pub(crate) charsmap: Vec<u8>,
    pub(crate) unk: u32,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
}

impl SentencePiece {
    /// Reads a `ModelProto`.
    ///
    /// # Errors
    /// If it is damaged, contradicts itself, or has parts that are not supported; the message names them.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let fault = |place: &str, problem: String| TextError::malformed(FILE, place.to_string(), problem);
        let no_message = |place: &str, offset: usize| {
            fault(
                place,
                format!("byte {offset} begins no field: this is no sentencepiece model, or a damaged one"),
            )
        };
        let mut pieces = Vec::new();
        let (mut trainer, mut normalizer): (&[u8], &[u8]) = (&[], &[]);
        for field in Fields::of(bytes) {
            match field.map_err(|offset| no_message("model", offset))? {
                (1, piece) if pieces.len() < MAX_VOCAB => {
                    let place = format!("pieces[{}]", pieces.len());
                    let bytes = piece.bytes().ok_or_else(|| fault(&place, "no message".to_string()))?;
                    pieces.push(parse_piece(bytes, &place)?);
                }
                (1, _) => return Err(fault("pieces", "more than 2^24".to_string())),
                (2, message) => trainer = message.bytes().unwrap_or_default(),
                (3, message) => normalizer = message.bytes().unwrap_or_default(),
                _ => {}
            }
        }
        let mut model = Self {
            pieces,
            algorithm: Algorithm::Unigram,
            byte_fallback: false,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            charsmap: Vec::new(),
            unk: 0,
            bos: None,
            eos: None,
            pad: None,
        };
        let mut names = ["<s>", "</s>", "<pad>"];
        for field in Fields::of(trainer) {
            match field.map_err(|offset| no_message("trainer_spec", offset))? {
                (3, value) => {
                    model.algorithm = match value.int() {
                        Some(1) => Algorithm::Unigram,
                        Some(2) => Algorithm::Bpe,
                        other => return Err(unsupported("model_type", other, "1 (unigram) and 2 (BPE)")),
                    }
                }
                (24, value) if value.bool() => {
                    let found = "treat_whitespace_as_suffix = true";
                    return Err(unsupported("trainer_spec", found, "false"));
                }
                (35, value) => model.byte_fallback = value.bool(),
                (number @ 46..=48, value) => {
                    names[number as usize - 46] = value.text().unwrap_or_default();
                }
                _ => {}
            }
        }
        for field in Fields::of(normalizer) {
            match field.map_err(|offset| no_message("normalizer_spec", offset))? {
                (2, value) => model.charsmap = value.bytes().unwrap_or_default().to_vec(),
                (3, value) => model.add_dummy_prefix = value.bool(),
                (4, value) => model.remove_extra_whitespaces = value.bool(),
                (5, value) if !value.bool() => {
                    return Err(unsupported("normalizer_spec", "escape_whitespaces = false", "true"));
                }
                _ => {}
            }
        }
        charsmap::check(&model.charsmap)
            .map_err(|problem| fault("normalizer_spec.precompiled_charsmap", problem))?;
        [model.bos, model.eos, model.pad] = names.map(|name| model.control(name));
        if let Some(piece) = model.pieces.iter().find(|piece| piece.ty == PieceType::Unused) {
            let found = format!("{:?}, of type unused", piece.text);
            return Err(unsupported("sentencepiece vocabulary", found, "pieces that are used"));
        }
        model.checked(FILE)
    }

    /// The id of a control piece.
    fn control(&self, name: &str) -> Option<u32> {
        let found = self.pieces.iter().position(|p| p.ty == PieceType::Control && p.text == name)?;
        u32::try_from(found).ok()
    }

    /// Checks what the parts of a model must have in common, and finds the piece for unknown text.
    ///
    /// # Errors
    /// If a piece is empty, too long or there twice, a score is no number, there is not exactly one piece for
    /// unknown text, or bytes are missing that byte fallback needs.
    pub(crate) fn checked(mut self, file: &str) -> Result<Self, TextError> {
        let mut seen: HashMap<&str, usize> = HashMap::with_capacity(self.pieces.len());
        let mut unknown = None;
        let mut bytes = 0;
        for (id, piece) in self.pieces.iter().enumerate() {
            let fault = |problem: String| Err(TextError::malformed(file, format!("pieces[{id}]"), problem));
            if piece.text.is_empty() || piece.text.len() > MAX_TOKEN {
                return fault(format!(
                    "a piece of {}; expected 1 to {MAX_TOKEN}",
                    counted(piece.text.len(), "byte")
                ));
            }
            if !piece.score.is_finite() {
                return fault(format!("the score of {:?} is {}", piece.text, piece.score));
            }
            if let Some(first) = seen.insert(&piece.text, id) {
                return fault(format!("{:?} is also piece {first}", piece.text));
            }
            match piece.ty {
                PieceType::Unknown if unknown.is_some() => {
                    return fault(format!("{:?} is a second piece for unknown text", piece.text));
                }
                PieceType::Unknown => unknown = u32::try_from(id).ok(),
                PieceType::Byte if byte_of(&piece.text).is_none() => {
                    return fault(format!(
                        "{:?} stands for no byte; expected \"<0x00>\" to \"<0xFF>\"",
                        piece.text
                    ));
                }
                PieceType::Byte => bytes += 1,
                PieceType::Normal | PieceType::Control | PieceType::UserDefined | PieceType::Unused => {}
            }
        }
        let Some(unk) = unknown else {
            return Err(TextError::malformed(file, "pieces", "none of type unknown; expected one, as <unk>"));
        };
        if self.byte_fallback && bytes != 256 {
            let problem = format!("{bytes} pieces for single bytes; byte fallback needs all 256");
            return Err(TextError::malformed(file, "pieces", problem));
        }
        self.unk = unk;
        Ok(self)
    }
}

fn parse_piece(bytes: &[u8], place: &str) -> Result<Piece, TextError> {
    let fault = |problem: String| TextError::malformed(FILE, place, problem);
    let mut piece = Piece { text: String::new(), score: 0.0, ty: PieceType::Normal };
    for field in Fields::of(bytes) {
        match field.map_err(|offset| fault(format!("byte {offset} begins no field")))? {
            (1, value) => {
                let text = value.text().ok_or_else(|| fault("its text is no UTF-8".to_string()))?;
                piece.text = text.to_string();
            }
            (2, value) => {
                piece.score = value.float().ok_or_else(|| fault("its score is no float".to_string()))?;
            }
            (3, value) => {
                let number = value.int().map_or(0, i64::from);
                piece.ty = PieceType::from_number(number)
                    .ok_or_else(|| fault(format!("type {number}; expected 1 to 6")))?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

/// The byte that a piece such as `<0x0A>` stands for.
pub(crate) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    // `from_str_radix` takes a sign, the format does not.
    (digits.len() == 2 && !digits.starts_with('+')).then(|| u8::from_str_radix(digits, 16).ok())?
}

fn unsupported(what: &'static str, found: impl std::fmt::Debug, supported: &str) -> TextError {
    TextError::Unsupported { what, found: format!("{found:?}"), supported: supported.to_string() }
}
