//! The lines of a batch file: read, checked and turned into tokens before anything is generated. They have
//! the fields of the service's requests.

use serde_json::Value;
use tritforge_data::JsonLine;
use tritforge_infer::{GenerateOptions, InferError, Model};
use tritforge_serve::request::{Endpoint, NamedGrammar, Object, Request as Fields, TextOrIds};
use tritforge_text::{ChatTemplate, EncodeOptions, TemplateInputs};

use crate::commands::sampling_args::no_template;

/// A prompt, ready to run.
pub(super) struct Request {
    /// Its tokens.
    pub(super) ids: Vec<u32>,
    /// How to go on.
    pub(super) options: GenerateOptions,
}

/// A line of the file, with what is wrong with it in place of its request.
pub(super) struct Entry {
    /// The line's number, from 1.
    pub(super) line: usize,
    /// The name that the line gives itself.
    pub(super) id: Option<Value>,
    /// What it asks for.
    pub(super) request: Result<Request, String>,
}

/// Everything that a line is read against.
pub(super) struct Defaults<'a> {
    /// The model.
    pub(super) model: &'a Model,
    /// The template for `messages`.
    pub(super) template: Option<&'a ChatTemplate>,
    /// What a line does not say.
    pub(super) options: &'a GenerateOptions,
    /// Most tokens of a prompt and its continuation.
    pub(super) context: usize,
}

/// The entries of the lines of a JSONL file.
pub(super) fn entries(lines: &[JsonLine], defaults: &Defaults<'_>) -> Vec<Entry> {
    lines.iter().map(|(line, text)| entry(*line, text, defaults)).collect()
}

fn entry(line: usize, text: &str, defaults: &Defaults<'_>) -> Entry {
    match serde_json::from_str::<Object>(text) {
        Ok(object) => {
            let id = object.0.get("id").filter(|id| !id.is_null()).cloned();
            Entry { line, id, request: request(&object, defaults) }
        }
        Err(error) => {
            // The id may still be there to name the failure.
            let id = serde_json::from_str::<Value>(text).ok().and_then(|v| v.get("id").cloned());
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            Entry { line, id, request: Err(format!("column {}: {text}", error.column())) }
        }
    }
}

fn request(object: &Object, defaults: &Defaults<'_>) -> Result<Request, String> {
    let Defaults { model, template, options, context } = defaults;
    let tokenizer = model.tokenizer();
    let fields =
        Fields::read(Endpoint::Batch, object, GenerateOptions::clone(options)).map_err(|e| e.message)?;
    let Fields { mut prompts, messages, mut options, grammar, template_arguments, .. } = fields;
    if let Some(NamedGrammar { param, grammar }) = grammar {
        options.constraint = Some(model.constraint(&grammar).map_err(|e| format!("{param}: {e}"))?);
    }
    let ids = match (prompts.pop(), messages.as_slice()) {
        (Some(_), _) if !prompts.is_empty() => {
            return Err("`prompt` has several prompts: expected one per line".to_string());
        }
        (Some(_), [_, ..]) => {
            return Err("found both `prompt` and `messages`: expected one of them".to_string());
        }
        (None, []) => return Err("found neither `prompt` nor `messages`: expected one of them".to_string()),
        (Some(TextOrIds::Text(prompt)), []) if prompt.is_empty() => {
            return Err("`prompt` is empty".to_string());
        }
        (Some(TextOrIds::Text(prompt)), []) => {
            let how = EncodeOptions { add_bos: tokenizer.adds_bos(), parse_special: true };
            tokenizer.encode_with(&prompt, how).map_err(|e| e.to_string())?
        }
        (Some(TextOrIds::Ids(ids)), []) => ids,
        (None, messages) => {
            let template = template.ok_or_else(|| no_template(model))?;
            options.end_turn(tokenizer.turn_end(template));
            let inputs = TemplateInputs { tools: &[], arguments: Some(&template_arguments) };
            tokenizer.encode_chat_with(template, messages, inputs).map_err(|e| e.to_string())?
        }
    };
    if ids.is_empty() {
        return Err(InferError::EmptyPrompt.to_string());
    }
    if ids.len() > *context {
        return Err(InferError::ContextFull { used: 0, asked: ids.len(), context: *context }.to_string());
    }
    let vocab_size = model.config().vocab_size;
    if let Some(id) = ids.iter().find(|id| **id as usize >= vocab_size) {
        return Err(InferError::Token { id: *id, vocab_size }.to_string());
    }
    options.check(model).map_err(|e| e.to_string())?;
    Ok(Request { ids, options })
}
