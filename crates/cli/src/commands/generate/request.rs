//! The lines of a batch file: read, checked and turned into tokens before anything is generated.

use serde::Deserialize;
use serde_json::Value;
use tritforge_data::JsonLine;
use tritforge_infer::{GenerateOptions, InferError, Model};
use tritforge_text::{ChatTemplate, Message};

use crate::commands::sampling_args::no_template;

/// What a line may say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<Value>,
    prompt: Option<String>,
    messages: Option<Vec<Message>>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stop>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected `stop` to be a string or a list of strings")]
enum Stop {
    One(String),
    Many(Vec<String>),
}

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
    match serde_json::from_str::<Line>(text) {
        Ok(mut parsed) => Entry { line, id: parsed.id.take(), request: request(parsed, defaults) },
        Err(error) => {
            // The id may still be there to name the failure.
            let id = serde_json::from_str::<Value>(text).ok().and_then(|v| v.get("id").cloned());
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or(&text);
            Entry { line, id, request: Err(format!("column {}: {text}", error.column())) }
        }
    }
}

fn request(line: Line, defaults: &Defaults<'_>) -> Result<Request, String> {
    let Defaults { model, template, options, context } = defaults;
    let tokenizer = model.tokenizer();
    let mut turn_end = None;
    let ids = match (line.prompt, line.messages) {
        (Some(prompt), None) if prompt.is_empty() => return Err("`prompt` is empty".to_string()),
        (None, Some(messages)) if messages.is_empty() => return Err("`messages` is empty".to_string()),
        (Some(prompt), None) => tokenizer.encode(&prompt, tokenizer.adds_bos()),
        (None, Some(messages)) => {
            let template = template.ok_or_else(|| no_template(model))?;
            turn_end = Some(tokenizer.turn_end(template));
            tokenizer.encode_chat(template, &messages)
        }
        (Some(_), Some(_)) => {
            return Err("found both `prompt` and `messages`: expected one of them".to_string());
        }
        (None, None) => return Err("found neither `prompt` nor `messages`: expected one of them".to_string()),
    };
    let ids = ids.map_err(|e| e.to_string())?;
    if ids.is_empty() {
        return Err(InferError::EmptyPrompt.to_string());
    }
    if ids.len() > *context {
        return Err(InferError::ContextFull { used: 0, asked: ids.len(), context: *context }.to_string());
    }
    let mut options = GenerateOptions::clone(options);
    let sampling = &mut options.sampling;
    set(&mut sampling.temperature, line.temperature);
    set(&mut sampling.top_k, line.top_k);
    set(&mut sampling.top_p, line.top_p);
    set(&mut sampling.min_p, line.min_p);
    set(&mut sampling.repetition_penalty, line.repetition_penalty);
    set(&mut sampling.seed, line.seed);
    sampling.validate().map_err(|e| e.to_string())?;
    set(&mut options.max_tokens, line.max_tokens);
    match line.stop {
        Some(Stop::One(stop)) => options.stop = vec![stop],
        Some(Stop::Many(stops)) => options.stop = stops,
        None => {}
    }
    turn_end.into_iter().for_each(|end| options.end_turn(end));
    Ok(Request { ids, options })
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}
