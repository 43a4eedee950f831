//! Hugging Face files: `tokenizer.json` (vocabulary and rules) and `tokenizer_config.json` (roles and chat
//! template), or a `tokenizer.model` where there is no `tokenizer.json`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenizers::AddedToken;
use tritforge_support::caught;

use crate::added::added_tokens;
use crate::directory;
use crate::end_of_generation::ids_of_json;
use crate::special::{KNOWN_BOS, KNOWN_EOS, KNOWN_PAD};
use crate::template_arguments;
use crate::tiktoken::is_tiktoken;
use crate::tokenizer::Roles;
use crate::validate::{self, MAX_VOCAB, TOKENIZER_JSON};
use crate::{TemplateArguments, TextError, Tokenizer};

const CONFIG: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";
/// In `tokenizer_config.json`: the ids that a model's files declare as ends of a generation. `transformers`
/// passes over it and has them in `generation_config.json`, which a checkpoint of this program does not have.
const ENDS: &str = "eos_token_ids";
const ADDED: &str = "added_tokens.json";
const TEMPLATE: &str = "chat_template.jinja";

impl Tokenizer {
    /// Reads a tokenizer's file, with the `tokenizer_config.json` and `chat_template.jinja` beside it if they
    /// are there. `path` is the file or its directory: a `tokenizer.json`, or without one a sentencepiece
    /// model or a tiktoken file (`tokenizer.model`, `*.tiktoken`), whose added tokens are those of
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// If a file cannot be read, a directory has none, or as [`Tokenizer::from_json`],
    /// [`Tokenizer::from_sentencepiece`], [`Tokenizer::from_tiktoken`] and [`Tokenizer::with_config`].
    pub fn from_file(path: &Path) -> Result<Self, TextError> {
        let path = if path.is_dir() {
            Self::file_in(path).unwrap_or(path.join(TOKENIZER_JSON))
        } else {
            path.to_path_buf()
        };
        let named = |error| match error {
            TextError::Malformed { place, problem, .. } => {
                TextError::Malformed { file: path.display().to_string(), place, problem }
            }
            other => other,
        };
        let beside = |name: &str| {
            let file = path.with_file_name(name);
            if file.is_file() { read(&file).map(Some) } else { Ok(None) }
        };
        let (bytes, config) = (read(&path)?, beside(CONFIG)?);
        let config = directory::with_special_tokens(config, beside(directory::SPECIAL_TOKENS)?)?;
        // A damaged configuration is an error below; here it adds nothing.
        let json = |bytes: Option<Vec<u8>>| -> Value {
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
        };
        let described = json(config.clone());
        let added = added_tokens(&described, &json(beside(ADDED)?))?;
        let is_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{');
        let mut tokenizer = if is_json || path.extension().is_some_and(|e| e == "json") {
            let tokenizer = Self::from_json(&bytes).map_err(named)?;
            directory::with_missing(tokenizer, &added, &described, &path.display().to_string())?
        } else {
            Self::from_model_file(&bytes, &path, &added).map_err(named)?
        };
        if let Some(config) = config {
            tokenizer = tokenizer.with_config(&config)?;
        }
        tokenizer.declare_ends(declared_ends(beside(GENERATION)?, beside(MODEL_CONFIG)?)?);
        if let Some(template) = beside(TEMPLATE)? {
            let fault = |e: std::string::FromUtf8Error| TextError::malformed(TEMPLATE, "text", e.to_string());
            tokenizer.chat_template = Some(String::from_utf8(template).map_err(fault)?);
        }
        directory::warn_of_keys(&described);
        if let Some(directory) = path.parent() {
            directory::warn_of_templates(directory, tokenizer.chat_template.is_some());
        }
        Ok(tokenizer)
    }

    /// The tokenizer's file in a directory, if it has one: `tokenizer.json`, `tokenizer.model`, or the only
    /// `*.tiktoken`.
    pub fn file_in(directory: &Path) -> Option<PathBuf> {
        let named = [TOKENIZER_JSON, "tokenizer.model"].map(|name| directory.join(name));
        if let Some(file) = named.into_iter().find(|file| file.is_file()) {
            return Some(file);
        }
        let entries = std::fs::read_dir(directory).ok()?;
        let mut found = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            (path.is_file() && path.extension()? == "tiktoken").then_some(path)
        });
        let first = found.next()?;
        found.next().is_none().then_some(first)
    }

    /// A sentencepiece model or a tiktoken file, whichever the bytes are.
    fn from_model_file(
        bytes: &[u8],
        path: &Path,
        added: &BTreeMap<u32, AddedToken>,
    ) -> Result<Self, TextError> {
        let file = path.display().to_string();
        if !is_tiktoken(bytes) {
            return Self::from_sentencepiece(bytes)?.with_added(added, &file);
        }
        let tokens: Vec<(u32, String)> = added.iter().map(|(id, t)| (*id, t.content.clone())).collect();
        let tokens = (!tokens.is_empty()).then_some(&tokens[..]);
        Self::from_known_tiktoken(bytes, &file, tokens)
    }

    /// Reads the content of a `tokenizer.json`.
    ///
    /// The file does not say which tokens have a role. BOS is the special token that its post-processor puts
    /// first, or, like EOS and padding, a special token with a well-known name (`<|endoftext|>`, `</s>`, …);
    /// [`Tokenizer::with_config`] tells for certain.
    ///
    /// # Errors
    /// If it is damaged, contradicts itself, or has parts that the `tokenizers` crate does not know.
    pub fn from_json(bytes: &[u8]) -> Result<Self, TextError> {
        let fault =
            |place: &str, problem: String| TextError::malformed(TOKENIZER_JSON, place.to_string(), problem);
        let json: Value = serde_json::from_slice(bytes).map_err(|e| fault("JSON", e.to_string()))?;
        validate::tokenizer_json(&json)?;
        // The checks above cover what is known to panic for BPE; the other models are as their authors left
        // them.
        let inner = caught(|| tokenizers::Tokenizer::from_bytes(bytes))
            .ok_or_else(|| fault("model", "the vocabulary is inconsistent".to_string()))?
            .map_err(|e| fault("tokenizer", e.to_string()))?;
        // The crate gives added tokens the ids that it likes and only warns.
        for (i, token) in json["added_tokens"].as_array().into_iter().flatten().enumerate() {
            let (content, id) = (token["content"].as_str().unwrap_or_default(), token["id"].as_u64());
            let found = inner.token_to_id(content).map(u64::from);
            if !content.is_empty() && (found != id || id.is_none_or(|id| id >= MAX_VOCAB as u64)) {
                let problem = format!(
                    "{content:?} is declared with id {}, but the vocabulary assigns it {}",
                    token["id"],
                    found.map_or("none".to_string(), |id| id.to_string())
                );
                return Err(fault(&format!("added_tokens[{i}]"), problem));
            }
        }
        let mut tokenizer = Self::assemble(inner);
        tokenizer.roles = tokenizer.known_roles(&json["post_processor"]);
        Ok(tokenizer)
    }

    /// Takes the roles and the chat template with its variables from the content of a `tokenizer_config.json`. Keys that it
    /// lacks change nothing.
    ///
    /// # Errors
    /// If it is no JSON object, or has a role that is no token. A token that the vocabulary lacks cannot
    /// occur: it is told, and has no role.
    pub fn with_config(mut self, bytes: &[u8]) -> Result<Self, TextError> {
        let fault = |place: &str, problem: String| TextError::malformed(CONFIG, place.to_string(), problem);
        let json: Value = serde_json::from_slice(bytes).map_err(|e| fault("JSON", e.to_string()))?;
        if !json.is_object() {
            return Err(fault("JSON", "expected an object".to_string()));
        }
        let mut roles = self.roles;
        let places =
            [("bos_token", &mut roles.bos), ("eos_token", &mut roles.eos), ("pad_token", &mut roles.pad)];
        for (key, place) in places {
            // A string, or an object that describes an added token.
            let name = match &json[key] {
                Value::Null if json.get(key).is_none() => continue,
                Value::Null => None,
                Value::String(name) => Some(name.as_str()),
                token => match token["content"].as_str() {
                    Some(name) => Some(name),
                    None => return Err(fault(key, format!("{token}: expected a token or null"))),
                },
            };
            *place = name.and_then(|name| self.id(name));
            if let (Some(name), None) = (name, &place) {
                log::warn!("{CONFIG}: {key} = {name:?} is not in the vocabulary: ignored");
            }
        }
        roles.add_bos = json["add_bos_token"].as_bool().unwrap_or(roles.add_bos) && roles.bos.is_some();
        self.roles = roles;
        self.declare_ends(ids_of_json(&json[ENDS]).map_err(|problem| fault(ENDS, problem))?);
        match &json["chat_template"] {
            Value::Null => {}
            Value::String(template) => self.chat_template = Some(template.clone()),
            Value::Array(templates) => {
                let default = templates.iter().find(|template| template["name"] == "default");
                match default.and_then(|template| template["template"].as_str()) {
                    Some(template) => self.chat_template = Some(template.to_string()),
                    None => log::warn!("{CONFIG}: none of the chat templates is named default: ignored"),
                }
            }
            other => return Err(fault("chat_template", format!("{other}: expected a string"))),
        }
        match &json[template_arguments::NAME] {
            Value::Null => {}
            Value::Object(entries) => {
                let problem = |e: TextError| fault(template_arguments::NAME, e.to_string());
                self.template_arguments = TemplateArguments::new(entries.clone()).map_err(problem)?;
            }
            other => return Err(fault(template_arguments::NAME, format!("{other}: expected an object"))),
        }
        Ok(self)
    }

    /// The content of a `tokenizer.json`, for [`Tokenizer::from_json`] and for the `tokenizers` and
    /// `transformers` libraries.
    ///
    /// # Errors
    /// If a part of the tokenizer cannot be written, which the library does not expect of any.
    pub fn to_json(&self) -> Result<String, TextError> {
        self.inner.to_string(true).map_err(|e| TextError::Tokenize(e.to_string()))
    }

    /// The content of a `tokenizer_config.json`, for [`Tokenizer::with_config`] and `transformers`: roles and
    /// chat template.
    pub fn to_config_json(&self) -> String {
        let name = |id: Option<u32>| id.and_then(|id| self.token(id));
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            "add_bos_token": self.roles.add_bos,
            "bos_token": name(self.roles.bos),
            "eos_token": name(self.roles.eos),
            "pad_token": name(self.roles.pad),
        });
        if !self.declared_ends.is_empty() {
            config[ENDS] = json!(self.declared_ends);
        }
        if let Some(template) = &self.chat_template {
            config["chat_template"] = json!(template);
        }
        if !self.template_arguments.is_empty() {
            config[template_arguments::NAME] = json!(self.template_arguments.entries());
        }
        format!("{config:#}\n")
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` into a directory that exists.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<(), TextError> {
        for (name, content) in [(TOKENIZER_JSON, self.to_json()?), (CONFIG, self.to_config_json())] {
            let path = directory.join(name);
            std::fs::write(&path, content).map_err(|source| TextError::Io {
                action: "write",
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Roles by post-processor and by well-known names of special tokens.
    pub(crate) fn known_roles(&self, post_processor: &Value) -> Roles {
        let special = |name: &str| self.id(name).filter(|id| self.is_special(*id));
        let known = |names: &[&str]| names.iter().find_map(|name| special(name));
        let processors = match post_processor["processors"].as_array() {
            Some(inner) => inner.iter().collect(),
            None => vec![post_processor],
        };
        let first = processors
            .iter()
            .find_map(|processor| processor["single"][0]["SpecialToken"]["id"].as_str())
            .and_then(special);
        let eos = known(&KNOWN_EOS);
        // GPT-2 and its kin begin with the token that ends.
        let same = || eos.filter(|id| self.token(*id).as_deref() == Some(KNOWN_EOS[0]));
        Roles {
            bos: first.or_else(|| known(&KNOWN_BOS)).or_else(same),
            eos,
            pad: known(&KNOWN_PAD),
            add_bos: first.is_some(),
        }
    }
}

/// The ids under `eos_token_id` of `generation_config.json` or, where it is missing or does not say, of
/// `config.json`.
fn declared_ends(generation: Option<Vec<u8>>, config: Option<Vec<u8>>) -> Result<Vec<u32>, TextError> {
    for (file, bytes) in [(GENERATION, generation), (MODEL_CONFIG, config)] {
        let Some(bytes) = bytes else { continue };
        let fault = |place: &str, problem: String| TextError::malformed(file, place, problem);
        let json: Value = serde_json::from_slice(&bytes).map_err(|e| fault("JSON", e.to_string()))?;
        if !json.is_object() {
            return Err(fault("JSON", "expected an object".to_string()));
        }
        if !json["eos_token_id"].is_null() {
            return ids_of_json(&json["eos_token_id"]).map_err(|problem| fault("eos_token_id", problem));
        }
    }
    Ok(Vec::new())
}

fn read(path: &Path) -> Result<Vec<u8>, TextError> {
    std::fs::read(path).map_err(|source| TextError::Io { action: "read", path: path.to_path_buf(), source })
}
