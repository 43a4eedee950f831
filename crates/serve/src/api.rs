//! The JSON of requests, in the shape of OpenAI's API, and what becomes of it.

use serde::Deserialize;
use tritforge_infer::{Finish, GenerateOptions, Sampling};
use tritforge_text::Message;

use crate::adapters::Adapters;
use crate::engine::{Job, Prompt};
use crate::error::ApiError;

/// A body of `/v1/completions`.
#[derive(Debug, Deserialize)]
pub(crate) struct CompletionRequest {
    prompt: String,
    #[serde(flatten)]
    common: Common,
}

/// A body of `/v1/chat/completions`.
#[derive(Debug, Deserialize)]
pub(crate) struct ChatRequest {
    messages: Vec<ChatMessage>,
    /// The newer name of `max_tokens`.
    max_completion_tokens: Option<usize>,
    #[serde(flatten)]
    common: Common,
}

#[derive(Debug, Deserialize)]
struct ChatMessage {
    role: String,
    content: String,
}

/// What both have.
#[derive(Debug, Deserialize)]
pub(crate) struct Common {
    /// The model, or an adapter of it; the model as it stands if not given.
    model: Option<String>,
    /// The adapters, in place of those that are on.
    lora: Option<Vec<LoraScale>>,
    max_tokens: Option<usize>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<usize>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    seed: Option<u64>,
    stop: Option<Stop>,
    n: Option<usize>,
    #[serde(default)]
    stream: bool,
}

/// An adapter by its number, and how much of it.
#[derive(Debug, Deserialize)]
pub(crate) struct LoraScale {
    id: usize,
    scale: f32,
}

/// The pairs of a list in which no number stands twice.
pub(crate) fn scales(list: &[LoraScale]) -> Result<Vec<(usize, f32)>, ApiError> {
    for (i, LoraScale { id, scale }) in list.iter().enumerate() {
        if !scale.is_finite() {
            return Err(invalid(
                "lora",
                format!("lora: the scale of adapter {id} is no number that f32 holds"),
            ));
        }
        if list[..i].iter().any(|earlier| earlier.id == *id) {
            return Err(invalid("lora", format!("lora: adapter {id} is named twice")));
        }
    }
    Ok(list.iter().map(|LoraScale { id, scale }| (*id, *scale)).collect())
}

/// A request that is understood.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) job: Job,
    /// The model's name that the answer gives.
    pub(crate) model: String,
    pub(crate) stream: bool,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// Tokens that a request without `max_tokens` gets at most.
const DEFAULT_MAX_TOKENS: usize = 128;

impl Common {
    fn asked(self, prompt: Prompt, adapters: &Adapters) -> Result<Asked, ApiError> {
        let stream = self.stream;
        let lora = self.lora.as_deref().map(scales).transpose()?;
        let (model, adapters) = adapters.of_request(self.model.as_deref(), lora.as_deref())?;
        Ok(Asked { job: Job { prompt, options: self.options()?, adapters }, model, stream })
    }

    fn options(self) -> Result<GenerateOptions, ApiError> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(invalid("n", "n: this service makes one choice a request".to_string()));
        }
        let max_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        if max_tokens == 0 {
            return Err(invalid("max_tokens", "max_tokens = 0: expected at least 1".to_string()));
        }
        let default = Sampling::default();
        let sampling = Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(default.top_p),
            top_k: self.top_k.unwrap_or(default.top_k),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
            seed: self.seed.unwrap_or_else(seed_of_now),
            ..default
        };
        sampling.validate().map_err(|e| ApiError::Invalid { message: e.to_string(), param: None })?;
        let stop = match self.stop {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop],
            Some(Stop::Many(stops)) => stops,
        };
        Ok(GenerateOptions { max_tokens, sampling, stop, ..GenerateOptions::default() })
    }
}

/// A request without a seed wants another text each time.
fn seed_of_now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos() as u64)
}

fn invalid(param: &'static str, message: String) -> ApiError {
    ApiError::Invalid { message, param: Some(param) }
}

impl CompletionRequest {
    /// What is asked, with the adapters that it names.
    pub(crate) fn asked(self, adapters: &Adapters) -> Result<Asked, ApiError> {
        self.common.asked(Prompt::Text(self.prompt), adapters)
    }
}

impl ChatRequest {
    /// What is asked, with the adapters that it names.
    pub(crate) fn asked(mut self, adapters: &Adapters) -> Result<Asked, ApiError> {
        if self.messages.is_empty() {
            return Err(invalid("messages", "messages is empty: give at least one".to_string()));
        }
        self.common.max_tokens = self.max_completion_tokens.or(self.common.max_tokens);
        let messages = self.messages.into_iter().map(|m| Message::new(m.role, m.content)).collect();
        self.common.asked(Prompt::Chat(messages), adapters)
    }
}

/// OpenAI's word for the end of a text.
pub(crate) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos | Finish::Stop => "stop",
        Finish::Length | Finish::ContextFull | Finish::Cancelled => "length",
    }
}
