//! A unigram model as sentencepiece runs it.
//!
//! Of all ways to cut a text into pieces the one with the largest sum of scores is taken (Kudo, arXiv
//! 1804.10959; Viterbi, as in `EncodeOptimized` of sentencepiece's `unigram_model.cc`). Sums are f32, made
//! and compared in the same order as there: where ways are equally good, roundings decide. Only pieces of
//! text are found in text; the `tokenizers` crate finds any token, so that `<s>` in a text would become the
//! token of that name.

use std::collections::{HashMap, HashSet};

use tokenizers::models::unigram::Unigram;
use tokenizers::{Model, Token};

use crate::sentencepiece::byte_of;

/// What a character without a piece costs more than the worst piece (`kUnkPenalty`).
const UNKNOWN_PENALTY: f32 = 10.0;

/// The pieces of text of a unigram model.
pub(crate) struct TextUnigram {
    /// From a node and the next byte to the next node; 0 is the root.
    children: HashMap<(u32, u8), u32>,
    /// Id and score of the piece that ends at a node.
    pieces: Vec<Option<(u32, f32)>>,
    unk: u32,
    unk_score: f32,
    /// The tokens of the bytes, where unknown text is spelled in them.
    bytes: Option<Vec<u32>>,
}

/// The best way to cut the text up to a place.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    /// Where its last piece begins, and that piece.
    last: Option<(usize, u32)>,
}

impl TextUnigram {
    /// The model without the tokens in `others` and those of bytes.
    pub(crate) fn of(model: &Unigram, unk: u32, others: &HashSet<u32>) -> Self {
        let is_byte = |token: &str| model.byte_fallback() && byte_of(token).is_some();
        let bytes = (0..=255u8).map(|byte| model.token_to_id(&format!("<0x{byte:02X}>")));
        let bytes: Option<Vec<u32>> = bytes.collect();
        let mut this = Self {
            children: HashMap::new(),
            pieces: vec![None],
            unk,
            unk_score: 0.0,
            bytes: bytes.filter(|_| model.byte_fallback()),
        };
        let mut lowest = f32::MAX;
        for ((token, score), id) in model.iter().zip(0..) {
            if id != unk && !others.contains(&id) && !is_byte(token) {
                this.insert(token, id, *score as f32);
                lowest = lowest.min(*score as f32);
            }
        }
        this.unk_score = if lowest == f32::MAX { 0.0 } else { lowest - UNKNOWN_PENALTY };
        this
    }

    fn insert(&mut self, token: &str, id: u32, score: f32) {
        let mut node = 0;
        for byte in token.bytes() {
            node = *self.children.entry((node, byte)).or_insert_with(|| {
                self.pieces.push(None);
                (self.pieces.len() - 1) as u32
            });
        }
        self.pieces[node as usize] = Some((id, score));
    }

    /// The tokens of a piece of text.
    pub(crate) fn tokenize(&self, text: &str) -> Vec<Token> {
        let best = self.best(text);
        let mut cuts = Vec::new();
        let mut end = text.len();
        while let Some((start, id)) = best[end].last {
            cuts.push((start, end, id));
            end = start;
        }
        let mut tokens: Vec<Token> = Vec::with_capacity(cuts.len());
        for (start, end, id) in cuts.into_iter().rev() {
            let piece = &text[start..end];
            match &self.bytes {
                Some(bytes) if id == self.unk => tokens.extend(piece.bytes().map(|byte| {
                    Token::new(bytes[usize::from(byte)], format!("<0x{byte:02X}>"), (start, end))
                })),
                // Unknown characters in a row are one token.
                _ => match tokens.last_mut().filter(|last| id == self.unk && last.id == id) {
                    Some(last) => {
                        last.value.push_str(piece);
                        last.offsets.1 = end;
                    }
                    None => tokens.push(Token::new(id, piece.to_string(), (start, end))),
                },
            }
        }
        tokens
    }

    /// The best way to each place of a text that is the end of a character.
    fn best(&self, text: &str) -> Vec<Best> {
        let bytes = text.as_bytes();
        let mut best = vec![Best { score: 0.0, last: None }; bytes.len() + 1];
        let offer = |target: &mut Best, score: f32, start: usize, id: u32| {
            if target.last.is_none() || score > target.score {
                *target = Best { score, last: Some((start, id)) };
            }
        };
        for (start, character) in text.char_indices() {
            let so_far = best[start].score;
            let (mut node, mut single) = (0, false);
            for end in start + 1..=bytes.len() {
                match self.children.get(&(node, bytes[end - 1])) {
                    Some(next) => node = *next,
                    None => break,
                }
                if let Some((id, score)) = self.pieces[node as usize] {
                    offer(&mut best[end], score + so_far, start, id);
                    single |= end - start == character.len_utf8();
                }
            }
            if !single {
                let score = self.unk_score + so_far;
                offer(&mut best[start + character.len_utf8()], score, start, self.unk);
            }
        }
        best
    }
}
