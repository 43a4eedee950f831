//! Answers of generations, and errors, as OpenAPI describes them. They are written by hand where they are made; a test
//! compares.
#![allow(dead_code, reason = "only their schemas are used")]

use std::collections::BTreeMap;

use schemars::JsonSchema;

/// An error.
#[derive(JsonSchema)]
pub(crate) struct ErrorAnswer {
    error: ErrorBody,
}

/// What is wrong.
#[derive(JsonSchema)]
pub(crate) struct ErrorBody {
    /// What was found, what was expected, and what to do.
    message: String,
    /// The kind of error.
    r#type: String,
    /// The field of the request that is wrong.
    param: Option<String>,
    /// A word for programs.
    code: Option<String>,
}

/// An answer to a conversation.
#[derive(JsonSchema)]
pub(crate) struct ChatCompletion {
    id: String,
    /// `chat.completion`.
    object: String,
    /// Unix time in seconds.
    created: u64,
    model: String,
    choices: Vec<ChatChoice>,
    usage: Usage,
}

/// One answer of several.
#[derive(JsonSchema)]
pub(crate) struct ChatChoice {
    index: usize,
    message: AssistantMessage,
    logprobs: Option<ChatLogprobs>,
    finish_reason: FinishReason,
}

/// What the model says.
#[derive(JsonSchema)]
pub(crate) struct AssistantMessage {
    /// `assistant`.
    role: String,
    /// Null if there are only calls.
    content: Option<String>,
    /// Always null.
    refusal: Option<String>,
    #[serde(default)]
    tool_calls: Vec<ToolCall>,
}

/// A call of a tool.
#[derive(JsonSchema)]
pub(crate) struct ToolCall {
    id: String,
    /// `function`.
    r#type: String,
    function: CalledFunction,
}

/// What is called.
#[derive(JsonSchema)]
pub(crate) struct CalledFunction {
    name: String,
    /// The text of a JSON object.
    arguments: String,
}

/// Why an answer ended.
#[derive(JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FinishReason {
    /// The model ended it, a stop string came, or the constraint wants no more.
    Stop,
    /// `max_tokens` or the end of the context.
    Length,
    /// It has calls of tools.
    ToolCalls,
}

/// Log-probabilities of a chat's tokens.
#[derive(JsonSchema)]
pub(crate) struct ChatLogprobs {
    content: Vec<TokenLogprobs>,
    /// Always null.
    refusal: Option<String>,
}

/// A token with the most probable ones in its place.
#[derive(JsonSchema)]
pub(crate) struct TokenLogprobs {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
    top_logprobs: Vec<TopLogprob>,
}

/// A token that might have come.
#[derive(JsonSchema)]
pub(crate) struct TopLogprob {
    token: String,
    logprob: f64,
    bytes: Vec<u8>,
}

/// Continuations of texts.
#[derive(JsonSchema)]
pub(crate) struct Completion {
    id: String,
    /// `text_completion`.
    object: String,
    /// Unix time in seconds.
    created: u64,
    model: String,
    choices: Vec<CompletionChoice>,
    usage: Usage,
}

/// One continuation.
#[derive(JsonSchema)]
pub(crate) struct CompletionChoice {
    index: usize,
    text: String,
    logprobs: Option<CompletionLogprobs>,
    finish_reason: FinishReason,
}

/// Log-probabilities of a continuation's tokens.
#[derive(JsonSchema)]
pub(crate) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f64>>,
    top_logprobs: Vec<Option<BTreeMap<String, f64>>>,
    /// Where each token begins, in characters.
    text_offset: Vec<usize>,
}

/// Tokens of a request.
#[derive(JsonSchema)]
pub(crate) struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    total_tokens: usize,
}
