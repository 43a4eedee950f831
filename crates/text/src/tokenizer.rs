//! `Tokenizer`: text to ids and back.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use serde_json::Value;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, AddedVocabulary, Encoding, Model, ModelWrapper, NormalizedString, OffsetType,
    PostProcessorWrapper, PreTokenizer, Token,
};

use crate::pre::{Pre, was_given_up};
use crate::spelling::Spelling;
use crate::unigram::TextUnigram;
use crate::{DecodeStream, TemplateArguments, TextError, byte_level, validate};

/// A tokenizer: a vocabulary, the rule that cuts text into its tokens, and the tokens with a role.
///
/// Text is encoded by the `tokenizers` crate; nothing is ever truncated, padded or dropped. Decoding shows
/// special tokens by name.
pub struct Tokenizer {
    pub(crate) inner: tokenizers::Tokenizer,
    /// The added tokens, with those that are special taken for plain text.
    plain: AddedVocabulary,
    pub(crate) spelling: Spelling,
    coverage: Coverage,
    /// What encodes text of a sentencepiece unigram model.
    unigram: Option<TextUnigram>,
    vocab_size: usize,
    /// Ids of a GGUF file that stand for no text, such as those that round a vocabulary up.
    pub(crate) unused: BTreeMap<u32, String>,
    pub(crate) roles: Roles,
    /// Ids that the model's files declare as ends of a generation, ascending.
    pub(crate) declared_ends: Vec<u32>,
    /// Whether files beside its own added tokens to it.
    pub(crate) extended: bool,
    pub(crate) chat_template: Option<String>,
    pub(crate) template_arguments: TemplateArguments,
}

/// Ids with a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Roles {
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) pad: Option<u32>,
    pub(crate) add_bos: bool,
}

/// Which texts a vocabulary can spell.
enum Coverage {
    /// All, or the model has a token for what it cannot.
    Everything,
    /// Those of these bytes.
    Bytes(Box<[bool; 256]>),
    /// Those of these characters: a vocabulary of characters.
    Characters(HashSet<char>),
    /// Those whose characters the model has; it leaves out the others without a word.
    Model,
}

/// How a text is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodeOptions {
    /// Begin with the BOS token, if there is one and the text does not begin with it already.
    pub add_bos: bool,
    /// Read names of special tokens in the text as these tokens: right for rendered chat templates, wrong for
    /// text from strangers.
    pub parse_special: bool,
}

/// A byte-level BPE, before it is built.
pub(crate) struct Parts {
    /// Every token with its id.
    pub(crate) vocab: Vec<(String, u32)>,
    pub(crate) merges: Vec<(String, String)>,
    pub(crate) pre: Pre,
    /// Tokens found in text before it is split, and whether they are special.
    pub(crate) added: Vec<(String, bool)>,
}

impl Tokenizer {
    /// Puts a byte-level BPE together; `file` and `merges` name the source in errors.
    pub(crate) fn build(parts: Parts, file: &str, merges: &str) -> Result<Self, TextError> {
        validate::merges(&parts.vocab, &parts.merges, file, merges)?;
        let bpe = BPE::builder()
            .vocab_and_merges(parts.vocab.into_iter().collect::<Vocab>(), parts.merges)
            .ignore_merges(parts.pre.ignore_merges)
            .build()
            .map_err(|e| TextError::malformed(file, merges, e.to_string()))?;
        let failed = |e: tokenizers::Error| TextError::malformed(file, "tokenizer", e.to_string());
        let mut inner = tokenizers::Tokenizer::new(bpe);
        inner.with_normalizer(parts.pre.normalizer()).map_err(failed)?;
        inner.with_pre_tokenizer(Some(parts.pre.build()?));
        inner.with_decoder(Some(ByteLevel::new(false, true, true)));
        let added = parts.added.into_iter().map(|(content, special)| {
            // Added tokens are matched in the text as it came.
            AddedToken::from(content, special).normalized(false)
        });
        inner.add_tokens(added).map_err(failed)?;
        Ok(Self::assemble(inner))
    }

    /// A tokenizer around one of the `tokenizers` crate, without roles.
    pub(crate) fn assemble(inner: tokenizers::Tokenizer) -> Self {
        let mut plain = inner.get_added_vocabulary().clone();
        plain.set_encode_special_tokens(true);
        let pre = inner.get_pre_tokenizer().and_then(|pre| serde_json::to_value(pre).ok());
        let decoder = inner.get_decoder().and_then(|decoder| serde_json::to_value(decoder).ok());
        let spelling = Spelling::of(&pre.unwrap_or(Value::Null), &decoder.unwrap_or(Value::Null));
        let vocab_size = inner.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let coverage = Coverage::of(&inner, spelling == Spelling::ByteLevel);
        let unigram = match spelling {
            Spelling::SentencePiece { .. } => text_unigram(&inner),
            Spelling::ByteLevel | Spelling::Other => None,
        };
        Self {
            inner,
            plain,
            spelling,
            coverage,
            unigram,
            vocab_size,
            unused: BTreeMap::new(),
            roles: Roles::default(),
            declared_ends: Vec::new(),
            extended: false,
            chat_template: None,
            template_arguments: TemplateArguments::default(),
        }
    }

    /// Sets the roles, and the post-processor by which Hugging Face files say that a sequence begins with
    /// BOS.
    pub(crate) fn with_roles(mut self, roles: Roles) -> Self {
        self.roles = roles;
        if let Some((bos, id)) =
            roles.bos.filter(|_| roles.add_bos).and_then(|id| Some((self.token(id)?, id)))
        {
            let begin = serde_json::json!({"SpecialToken": {"id": bos, "type_id": 0}});
            let sequence = |name, type_id| serde_json::json!({"Sequence": {"id": name, "type_id": type_id}});
            let mut special = serde_json::Map::new();
            special.insert(bos.clone(), serde_json::json!({"id": bos, "ids": [id], "tokens": [bos]}));
            let template = serde_json::json!({
                "type": "TemplateProcessing",
                "single": [begin, sequence("A", 0)],
                "pair": [begin, sequence("A", 0), sequence("B", 1)],
                "special_tokens": special,
            });
            self.inner.with_post_processor(serde_json::from_value::<PostProcessorWrapper>(template).ok());
        }
        self
    }

    /// The ids of a text, read as plain text: a special token's name in it is not that token.
    ///
    /// With `add_bos` the ids begin with the BOS token, if there is one.
    ///
    /// # Errors
    /// If the vocabulary lacks a character of the text, or a run of spaces is hundreds of thousands long.
    pub fn encode(&self, text: &str, add_bos: bool) -> Result<Vec<u32>, TextError> {
        self.encode_with(text, EncodeOptions { add_bos, parse_special: false })
    }

    /// The ids of a text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_with(&self, text: &str, options: EncodeOptions) -> Result<Vec<u32>, TextError> {
        let encoding = self.encoding(text, options, OffsetType::None)?;
        let bos = self.roles.bos.filter(|bos| options.add_bos && encoding.get_ids().first() != Some(bos));
        Ok(bos.into_iter().chain(encoding.get_ids().iter().copied()).collect())
    }

    /// The ids of a text without a BOS token before them, with their places in it where `offsets` asks for
    /// these.
    pub(crate) fn encoding(
        &self,
        text: &str,
        options: EncodeOptions,
        offsets: OffsetType,
    ) -> Result<Encoding, TextError> {
        let failed = |e: tokenizers::Error| match e.downcast::<TextError>() {
            Ok(error) => *error,
            Err(other) => TextError::Tokenize(other.to_string()),
        };
        let added = if options.parse_special { self.inner.get_added_vocabulary() } else { &self.plain };
        let mut pieces = added.extract_and_normalize(self.inner.get_normalizer(), text);
        if let Some(pre) = self.inner.get_pre_tokenizer() {
            pre.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.inner.get_model();
        pieces
            .tokenize(|piece| {
                if self.spelling == Spelling::ByteLevel && was_given_up(piece.get_original()) {
                    return Err(TextError::RunOfSpaces { offset: piece.offsets_original().0 }.into());
                }
                let tokens = match &self.unigram {
                    Some(unigram) => unigram.tokenize(piece.get()),
                    None => model.tokenize(piece.get())?,
                };
                match self.coverage.first_unknown(model, piece, &tokens) {
                    Some((character, offset)) => {
                        Err(TextError::UnknownCharacter { character, offset }.into())
                    }
                    None => Ok(tokens),
                }
            })
            .map_err(failed)?;
        pieces.into_encoding(None, 0, offsets).map_err(failed)
    }

    /// The text of ids. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// If an id is outside the vocabulary.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        if !self.spelling.is_bytes() {
            for id in ids {
                self.bytes(*id)?;
            }
            return self.inner.decode(ids, false).map_err(|e| TextError::Tokenize(e.to_string()));
        }
        let mut bytes = Vec::new();
        for id in ids {
            bytes.extend_from_slice(&self.bytes(*id)?);
        }
        // The space before a text that has none.
        if self.spelling == (Spelling::SentencePiece { prefix: true }) && bytes.first() == Some(&b' ') {
            bytes.remove(0);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Decodes ids one by one.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream::new(self)
    }

    /// The number of ids: the largest id and one. A model's vocabulary may be larger, never smaller.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token of an id as the vocabulary spells it: `Ġ` for a space in byte-level vocabularies.
    pub fn token(&self, id: u32) -> Option<String> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        match added.get(&id) {
            Some(token) => Some(token.content.clone()),
            None => self.inner.get_model().id_to_token(id).or_else(|| self.unused.get(&id).cloned()),
        }
    }

    /// The id of a token as the vocabulary spells it.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The bytes that an id adds to a text; not always whole characters.
    ///
    /// # Errors
    /// If the id is outside the vocabulary.
    pub fn bytes(&self, id: u32) -> Result<Vec<u8>, TextError> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        if let Some(token) = added.get(&id) {
            return Ok(match self.spelling {
                // Pieces of the user are text.
                Spelling::SentencePiece { .. } if !token.special => {
                    self.spelling.bytes(token.content.clone())
                }
                _ => token.content.as_bytes().to_vec(),
            });
        }
        match self.inner.get_model().id_to_token(id) {
            Some(token) => Ok(self.spelling.bytes(token)),
            None => match self.unused.get(&id) {
                Some(token) => Ok(token.as_bytes().to_vec()),
                None => Err(TextError::UnknownId { id, vocab_size: self.vocab_size }),
            },
        }
    }

    /// The id that begins a sequence.
    pub fn bos(&self) -> Option<u32> {
        self.roles.bos
    }

    /// The id that ends a sequence, and that separates documents. [`Tokenizer::end_ids`] has all that end a
    /// generation.
    pub fn eos(&self) -> Option<u32> {
        self.roles.eos
    }

    /// The id that fills batches.
    pub fn pad(&self) -> Option<u32> {
        self.roles.pad
    }

    /// Whether it has tokens that its own file lacks: those that other files of its directory add.
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Whether sequences begin with BOS where the user does not say.
    pub fn adds_bos(&self) -> bool {
        self.roles.add_bos
    }

    /// Whether an id is a special token.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("vocab_size", &self.vocab_size)
            .field("spelling", &self.spelling)
            .field("roles", &self.roles)
            .field("chat_template", &self.chat_template.is_some())
            .finish_non_exhaustive()
    }
}

/// The pieces of text of a unigram model, without its added tokens.
fn text_unigram(inner: &tokenizers::Tokenizer) -> Option<TextUnigram> {
    let ModelWrapper::Unigram(model) = inner.get_model() else { return None };
    let unk = serde_json::to_value(model).ok()?["unk_id"].as_u64()?;
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    Some(TextUnigram::of(model, u32::try_from(unk).ok()?, &added.keys().copied().collect()))
}

impl Coverage {
    fn of(inner: &tokenizers::Tokenizer, byte_level: bool) -> Self {
        let ModelWrapper::BPE(bpe) = inner.get_model() else { return Coverage::Everything };
        if !byte_level {
            return if bpe.unk_token.is_some() { Coverage::Everything } else { Coverage::Model };
        }
        let mut bytes = Box::new([false; 256]);
        for (byte, known) in (0..=255u8).zip(bytes.iter_mut()) {
            *known = bpe.token_to_id(byte_level::byte_to_char(byte).encode_utf8(&mut [0; 4])).is_some();
        }
        if bytes.iter().all(|known| *known) {
            return Coverage::Everything;
        }
        // A vocabulary of characters has no token longer than one, special ones apart.
        let added = inner.get_added_vocabulary().get_vocab();
        let mut characters = HashSet::new();
        for token in bpe.get_vocab().into_keys().filter(|token| !added.contains_key(token)) {
            let spelled = byte_level::unspell(&token);
            match std::str::from_utf8(&spelled) {
                Ok(text) if text.chars().count() == 1 => characters.extend(text.chars()),
                // A part of a character.
                Err(_) if spelled.len() < 4 && spelled.iter().all(|byte| *byte >= 0x80) => {}
                _ => return Coverage::Bytes(bytes),
            }
        }
        Coverage::Characters(characters)
    }

    /// The first character of a piece that its tokens do not hold, and its offset in the text.
    fn first_unknown(
        &self,
        model: &ModelWrapper,
        piece: &NormalizedString,
        tokens: &[Token],
    ) -> Option<(char, usize)> {
        let known = |c: char| match self {
            Coverage::Everything => true,
            Coverage::Bytes(bytes) => c.encode_utf8(&mut [0; 4]).bytes().all(|b| bytes[usize::from(b)]),
            Coverage::Characters(characters) => characters.contains(&c),
            Coverage::Model => model.token_to_id(c.encode_utf8(&mut [0; 4])).is_some(),
        };
        let text = match self {
            Coverage::Everything => return None,
            // The lengths of the tokens add up to that of the piece unless something was left out.
            Coverage::Model if tokens.last().map_or(0, |token| token.offsets.1) == piece.get().len() => {
                return None;
            }
            Coverage::Model => piece.get(),
            _ => piece.get_original(),
        };
        let start = piece.offsets_original().0;
        text.char_indices().find(|(_, c)| !known(*c)).map(|(at, c)| (c, start + at))
    }
}
