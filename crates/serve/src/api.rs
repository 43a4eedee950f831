//! The JSON of requests, in the shape of OpenAI's API, and what becomes of it.

use serde::Deserialize;
use tritforge_infer::{Finish, GenerateOptions, Sampling};
use tritforge_text::Message;

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

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Stop {
    One(String),
    Many(Vec<String>),
}

/// Tokens that a request without `max_tokens` gets at most.
const DEFAULT_MAX_TOKENS: usize = 128;

impl Common {
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
        Ok(GenerateOptions { max_tokens, sampling, stop, ignore_eos: false })
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
    /// The job, and whether to stream.
    pub(crate) fn job(self) -> Result<(Job, bool), ApiError> {
        let stream = self.common.stream;
        Ok((Job { prompt: Prompt::Text(self.prompt), options: self.common.options()? }, stream))
    }
}

impl ChatRequest {
    /// The job, and whether to stream.
    pub(crate) fn job(mut self) -> Result<(Job, bool), ApiError> {
        if self.messages.is_empty() {
            return Err(invalid("messages", "messages is empty: give at least one".to_string()));
        }
        let stream = self.common.stream;
        self.common.max_tokens = self.max_completion_tokens.or(self.common.max_tokens);
        let messages = self.messages.into_iter().map(|m| Message::new(m.role, m.content)).collect();
        Ok((Job { prompt: Prompt::Chat(messages), options: self.common.options()? }, stream))
    }
}

/// OpenAI's word for the end of a text.
pub(crate) fn finish_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Eos | Finish::Stop => "stop",
        Finish::Length | Finish::ContextFull | Finish::Cancelled => "length",
    }
}
