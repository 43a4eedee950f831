//! Tokenizers as GGUF metadata: the keys under `tokenizer.`.
//!
//! A byte-level BPE is `tokenizer.ggml.model = "gpt2"` with tokens, merges and the name of its pre-tokenizer;
//! a BPE of sentencepiece is `"llama"` with tokens and scores. Written and read back, they give the same ids
//! for every text; what these keys cannot say is an error when writing.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value as Json;
use tokenizers::ModelWrapper;
use tritforge_gguf::{Metadata, Value, optional};
use tritforge_support::counted;

use crate::gguf_keys;
use crate::pre::{self, Pre};
use crate::sentencepiece;
use crate::spelling::Spelling;
use crate::tokenizer::{Parts, Roles};
use crate::validate::MAX_VOCAB;
use crate::{TemplateArguments, TextError, Tokenizer};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
/// The tokens of all ids.
pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
/// Their types.
pub(crate) const TOKEN_TYPE: &str = "tokenizer.ggml.token_type";
/// Scores of a sentencepiece model.
pub(crate) const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
const BOS: &str = "tokenizer.ggml.bos_token_id";
const EOS: &str = "tokenizer.ggml.eos_token_id";
const EOT: &str = "tokenizer.ggml.eot_token_id";
/// Other keys of tokens that end a generation: ends of messages, and what llama.cpp counts of
/// fill-in-the-middle.
const OTHER_ENDS: [&str; 4] = [
    "tokenizer.ggml.eom_token_id",
    "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id",
    "tokenizer.ggml.fim_sep_token_id",
];
/// All tokens that end a generation, as ollama writes and reads them.
const ENDS: &str = "tokenizer.ggml.eos_token_ids";
const PAD: &str = "tokenizer.ggml.padding_token_id";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
/// The BOS token of a sentencepiece model that does not name it (`special_bos_id` in `llama-vocab.cpp`).
const DEFAULT_BOS: u32 = 1;
/// Whether a text begins with a space that it does not have.
pub(crate) const ADD_SPACE_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
const UNK: &str = "tokenizer.ggml.unknown_token_id";
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";
/// A key of this project: the variables of the template, the text of a JSON object.
const TEMPLATE_ARGUMENTS: &str = "tokenizer.chat_template_kwargs";

/// Token types, as `llama.h` numbers them. Unknown and byte belong to sentencepiece models.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
const BYTE: i32 = 6;

/// What errors call the source.
pub(crate) const GGUF: &str = "GGUF metadata";

impl Tokenizer {
    /// The metadata that describes the tokenizer in a model with `vocab_size` ids. Ids that stand for no
    /// token are filled with `[PAD{id}]` of type unused.
    ///
    /// # Errors
    /// If `vocab_size` is too small, or GGUF cannot describe the tokenizer exactly; the message says what it
    /// cannot.
    pub fn to_gguf(&self, vocab_size: usize) -> Result<Vec<(String, Value)>, TextError> {
        if vocab_size < self.vocab_size() {
            return Err(TextError::VocabularyTooSmall {
                found: vocab_size,
                needed: self.vocab_size(),
                reason: "the tokenizer's ids",
            });
        }
        let (tokens, mut types) = self.tokens(vocab_size)?;
        let mut entries: Vec<(String, Value)> = Vec::new();
        let mut put = |key: &str, value: Value| entries.push((key.to_string(), value));
        if let Spelling::SentencePiece { prefix } = self.spelling {
            let described = sentencepiece::describe(self, prefix)?;
            for (token, ty) in tokens.iter().zip(&mut types) {
                if *token == described.unk {
                    *ty = UNKNOWN;
                } else if *ty == NORMAL && sentencepiece::byte_of(token).is_some() {
                    *ty = BYTE;
                }
            }
            // Characters, which nothing is merged into, come after all merges.
            let last = -(described.scores.len() as f32);
            let score = |(token, ty): (&String, &i32)| match *ty {
                NORMAL => described.scores.get(token).copied().unwrap_or(last),
                _ => 0.0,
            };
            let scores: Vec<f32> = tokens.iter().zip(&types).map(score).collect();
            // Runtimes look for tokens of the user in the text as it came, before spaces are marked.
            let raw = |(token, ty): (String, &i32)| match *ty {
                USER_DEFINED => token.replace(sentencepiece::SPACE, " "),
                _ => token,
            };
            let tokens: Vec<String> = tokens.into_iter().zip(&types).map(raw).collect();
            put(MODEL, "llama".into());
            put(TOKENS, tokens.into());
            put(SCORES, scores.into());
            put(TOKEN_TYPE, types.into());
            put(ADD_SPACE_PREFIX, described.add_space_prefix.into());
            if let Some(unk) = self.id(&described.unk) {
                put(UNK, unk.into());
            }
        } else {
            let (pre, merges) = self.describe()?;
            put(MODEL, "gpt2".into());
            put(PRE, pre.name.into());
            put(TOKENS, tokens.into());
            put(TOKEN_TYPE, types.into());
            put(MERGES, merges.into());
        }
        for (key, id) in [(BOS, self.roles.bos), (EOS, self.roles.eos), (PAD, self.roles.pad)] {
            if let Some(id) = id {
                put(key, id.into());
            }
        }
        let ends = self.end_ids();
        for (key, id) in [EOT, OTHER_ENDS[0]].into_iter().zip(self.further_ends()) {
            if let Some(id) = id {
                put(key, id.into());
            }
        }
        if ends.iter().any(|id| self.roles.eos != Some(*id)) {
            put(ENDS, ends.into());
        }
        put(ADD_BOS, self.roles.add_bos.into());
        if let Some(template) = &self.chat_template {
            put(CHAT_TEMPLATE, template.as_str().into());
        }
        if !self.template_arguments.is_empty() {
            put(TEMPLATE_ARGUMENTS, self.template_arguments.to_json().into());
        }
        Ok(entries)
    }

    /// The tokenizer that metadata describes.
    ///
    /// # Errors
    /// If a key is missing or has another type, the vocabulary or the pre-tokenizer is of a kind that is not
    /// supported (the message names it and what is), or the lists contradict each other.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self, TextError> {
        let (tokenizer, unused, default_add_bos) = match metadata.get_str(MODEL)? {
            "gpt2" => byte_level(metadata)?,
            // Where the key is missing, runtimes begin with BOS.
            "llama" => {
                let (tokenizer, unused) = sentencepiece::from_gguf(metadata)?;
                (tokenizer, unused, true)
            }
            other => {
                return Err(TextError::Unsupported {
                    what: "vocabulary (tokenizer.ggml.model)",
                    found: format!("{other:?}"),
                    supported: "gpt2 (byte-level BPE), llama (sentencepiece BPE)".to_string(),
                });
            }
        };
        let count = metadata.get_str_array(TOKENS)?.len();
        gguf_keys::check(metadata)?;
        let role = |key: &str| gguf_keys::token_id(metadata, key, count);
        let (bos, eos, pad) = (role(BOS)?, role(EOS)?, role(PAD)?);
        let add_bos = optional(metadata.get_bool(ADD_BOS))?.unwrap_or(default_add_bos);
        // Without the key runtimes begin with sentencepiece's own BOS.
        let own = || {
            let own = Some(DEFAULT_BOS).filter(|id| add_bos && tokenizer.is_special(*id));
            own.filter(|_| tokenizer.spelling != Spelling::ByteLevel)
        };
        let bos = bos.or_else(own);
        let add_bos = add_bos && bos.is_some();
        let chat_template = optional(metadata.get_str(CHAT_TEMPLATE))?.map(str::to_string);

        let mut tokenizer = tokenizer.with_roles(Roles { bos, eos, pad, add_bos });
        tokenizer.unused = unused;
        tokenizer.chat_template = chat_template;
        if let Some(text) = optional(metadata.get_str(TEMPLATE_ARGUMENTS))? {
            let problem = |e: TextError| TextError::malformed("GGUF", TEMPLATE_ARGUMENTS, e.to_string());
            tokenizer.template_arguments = TemplateArguments::from_json(text).map_err(problem)?;
        }
        tokenizer.declare_ends(declared_ends(metadata)?);
        Ok(tokenizer)
    }

    /// The pre-tokenizer's name and the merges, of a byte-level BPE that these say everything about.
    fn describe(&self) -> Result<(Pre, Vec<String>), TextError> {
        let unsupported = |what, found: String, supported: &str| {
            Err(TextError::Unsupported { what, found, supported: supported.to_string() })
        };
        let json = |part: Result<Json, serde_json::Error>| {
            part.map_err(|e| TextError::Tokenize(format!("cannot describe the tokenizer: {e}")))
        };
        let ModelWrapper::BPE(bpe) = self.inner.get_model() else {
            let kind = match self.inner.get_model() {
                ModelWrapper::WordPiece(_) => "WordPiece",
                ModelWrapper::WordLevel(_) => "WordLevel",
                ModelWrapper::Unigram(_) => "Unigram (sentencepiece)",
                ModelWrapper::BPE(_) => "BPE",
            };
            return unsupported("vocabulary for GGUF", kind.to_string(), "byte-level BPE");
        };
        let affix = [&bpe.continuing_subword_prefix, &bpe.end_of_word_suffix];
        if bpe.byte_fallback || affix.into_iter().flatten().any(|affix| !affix.is_empty()) {
            return unsupported(
                "vocabulary for GGUF",
                "BPE with byte_fallback or with marks at word boundaries (sentencepiece)".to_string(),
                "byte-level BPE",
            );
        }
        let pre = Pre::recognize(
            &json(serde_json::to_value(self.inner.get_normalizer()))?,
            &json(serde_json::to_value(self.inner.get_pre_tokenizer()))?,
            bpe.ignore_merges,
        )?;
        let mut described = json(serde_json::to_value(bpe))?;
        let mut merges = Vec::new();
        if let Json::Array(list) = described["merges"].take() {
            for merge in list {
                match (merge[0].as_str(), merge[1].as_str()) {
                    (Some(left), Some(right)) if !left.contains(' ') && !right.contains(' ') => {
                        merges.push(format!("{left} {right}"));
                    }
                    _ => return unsupported("merge for GGUF", merge.to_string(), "tokens without spaces"),
                }
            }
        }
        Ok((pre, merges))
    }

    /// Tokens and types of all ids.
    fn tokens(&self, vocab_size: usize) -> Result<(Vec<String>, Vec<i32>), TextError> {
        let added = self.inner.get_added_vocabulary().get_added_tokens_decoder();
        let (mut tokens, mut types) = (Vec::with_capacity(vocab_size), Vec::with_capacity(vocab_size));
        for id in 0..u32::try_from(vocab_size).unwrap_or(u32::MAX) {
            let ty = match added.get(&id) {
                Some(token) if token.lstrip || token.rstrip || token.single_word => {
                    return Err(TextError::Unsupported {
                        what: "added token for GGUF",
                        found: format!("{:?} with lstrip, rstrip or single_word", token.content),
                        supported: "added tokens without these flags".to_string(),
                    });
                }
                Some(token) if token.special => CONTROL,
                Some(_) => USER_DEFINED,
                None if self.unused.contains_key(&id) => UNUSED,
                None => NORMAL,
            };
            match self.token(id) {
                Some(token) => {
                    tokens.push(token);
                    types.push(ty);
                }
                None => {
                    tokens.push(format!("[PAD{id}]"));
                    types.push(UNUSED);
                }
            }
        }
        Ok((tokens, types))
    }
}

/// The ids that metadata declares as ends of a generation beside EOS. Where a file has no such token,
/// converters write -1 or the largest number instead of leaving the key out.
fn declared_ends(metadata: &Metadata) -> Result<Vec<u32>, TextError> {
    let mut ids = optional(metadata.get_i64_array(ENDS))?.unwrap_or_default();
    for key in [EOT].into_iter().chain(OTHER_ENDS) {
        ids.extend(optional(metadata.get_i64(key))?);
    }
    let known = |id: i64| {
        let known = u32::try_from(id).ok();
        if known.is_none() {
            log::warn!("end-of-generation token id {id} is outside the vocabulary: ignored");
        }
        known
    };
    Ok(ids.into_iter().filter_map(known).collect())
}

/// A byte-level BPE without roles, the ids that stand for no text, and whether sequences begin with BOS where
/// nothing says so.
fn byte_level(metadata: &Metadata) -> Result<(Tokenizer, BTreeMap<u32, String>, bool), TextError> {
    let fault = |place: String, problem: String| TextError::malformed(GGUF, place, problem);
    let name = optional(metadata.get_str(PRE))?.ok_or_else(|| TextError::Unsupported {
        what: "pre-tokenizer (tokenizer.ggml.pre)",
        found: "no such key, and guessing could encode text differently than in training".to_string(),
        supported: format!(
            "{}; set the one that the model was trained with: --override-kv {PRE}=str:NAME",
            pre::names()
        ),
    })?;
    let pre = Pre::by_name(name)?;
    let tokens = metadata.get_str_array(TOKENS)?;
    if tokens.is_empty() || tokens.len() > MAX_VOCAB {
        return Err(fault(
            TOKENS.to_string(),
            format!("{}; expected 1 to 2^24", counted(tokens.len(), "token")),
        ));
    }
    let types = match optional(metadata.get_i64_array(TOKEN_TYPE))? {
        Some(types) if types.len() == tokens.len() => types,
        Some(types) => {
            let problem = format!("{} for {}", counted(types.len(), "type"), counted(tokens.len(), "token"));
            return Err(fault(TOKEN_TYPE.to_string(), problem));
        }
        None => vec![i64::from(NORMAL); tokens.len()],
    };

    let mut ids: HashMap<&str, usize> = HashMap::new();
    let (mut vocab, mut added, mut unused) = (Vec::new(), Vec::new(), BTreeMap::new());
    for (id, (token, ty)) in tokens.iter().zip(types).enumerate() {
        match ty {
            1 | 6 => {}
            2 | 3 => added.push((token.clone(), true)),
            4 => added.push((token.clone(), false)),
            5 => {
                unused.insert(id as u32, token.clone());
                continue;
            }
            _ => {
                let problem = format!("{ty} for {token:?}: expected 1 to 6");
                return Err(fault(format!("{TOKEN_TYPE}[{id}]"), problem));
            }
        }
        if let Some(first) = ids.insert(token, id) {
            return Err(fault(format!("{TOKENS}[{id}]"), format!("{token:?} already has the id {first}")));
        }
        vocab.push((token.clone(), id as u32));
    }
    let mut merges = Vec::new();
    for (i, merge) in metadata.get_str_array(MERGES)?.iter().enumerate() {
        match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                merges.push((left.to_string(), right.to_string()));
            }
            _ => {
                let problem = format!("{merge:?}: expected two tokens with a space between them");
                return Err(fault(format!("{MERGES}[{i}]"), problem));
            }
        }
    }
    // Where the key is missing, runtimes go by the name of the pre-tokenizer.
    let add_bos = pre.name == "llama-bpe";
    Ok((Tokenizer::build(Parts { vocab, merges, pre, added }, GGUF, MERGES)?, unused, add_bos))
}
