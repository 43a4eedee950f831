//! Every path and method that the service answers to, with what goes in and comes out.

use schemars::{Schema, SchemaGenerator};

use super::{answers, requests};

/// A path with a method.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Operation {
    /// In small letters.
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) tag: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) request: Option<Body>,
    /// Media types of the answer.
    pub(crate) answer: &'static [(&'static str, Body)],
    /// Whether no key is asked for.
    pub(crate) public: bool,
}

/// What a body is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Body {
    /// Text.
    Text,
    /// JSON that is described elsewhere.
    Any,
    /// JSON of this schema.
    Schema(fn(&mut SchemaGenerator) -> Schema),
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";

const fn post(
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    request: Body,
    answer: &'static [(&'static str, Body)],
) -> Operation {
    Operation { method: "post", path, tag, summary, request: Some(request), answer, public: false }
}

const fn get(
    path: &'static str,
    tag: &'static str,
    summary: &'static str,
    answer: &'static [(&'static str, Body)],
    public: bool,
) -> Operation {
    Operation { method: "get", path, tag, summary, request: None, answer, public }
}

macro_rules! schema {
    ($type:ty) => {
        Body::Schema(|generator| generator.subschema_for::<$type>())
    };
}

/// All of them.
pub(crate) static OPERATIONS: &[Operation] = &[
    post(
        "/v1/chat/completions",
        "generation",
        "Answer a conversation.",
        Body::Schema(requests::chat),
        &[(JSON, schema!(answers::ChatCompletion)), (EVENTS, Body::Text)],
    ),
    post(
        "/v1/completions",
        "generation",
        "Continue texts.",
        Body::Schema(requests::completion),
        &[(JSON, schema!(answers::Completion)), (EVENTS, Body::Text)],
    ),
    post(
        "/v1/generate/batch",
        "generation",
        "Answer several requests at once, each with its own status.",
        schema!(requests::Batch),
        &[(JSON, schema!(answers::Batch))],
    ),
    post(
        "/v1/embeddings",
        "embeddings",
        "Make vectors of texts.",
        schema!(requests::Embeddings),
        &[(JSON, schema!(answers::Embeddings))],
    ),
    get(
        "/v1/models",
        "models",
        "List the model and its adapters.",
        &[(JSON, schema!(answers::Models))],
        false,
    ),
    get("/v1/models/{name}", "models", "Show one of them.", &[(JSON, schema!(answers::Model))], false),
    post(
        "/tokenize",
        "tokens",
        "Show the tokens of a text or a conversation.",
        schema!(requests::Tokenize),
        &[(JSON, schema!(answers::Tokens))],
    ),
    post(
        "/detokenize",
        "tokens",
        "Show the text of tokens.",
        schema!(requests::Detokenize),
        &[(JSON, schema!(answers::Text))],
    ),
    post(
        "/apply-template",
        "tokens",
        "Show the prompt that a conversation becomes.",
        schema!(requests::ApplyTemplate),
        &[(JSON, schema!(answers::Prompt))],
    ),
    get("/lora-adapters", "adapters", "List the adapters.", &[(JSON, schema!(Vec<answers::Adapter>))], false),
    post(
        "/lora-adapters",
        "adapters",
        "Set the scales of adapters for requests that name none.",
        schema!(Vec<requests::Scale>),
        &[(JSON, Body::Any)],
    ),
    post(
        "/v1/load_lora_adapter",
        "adapters",
        "Load an adapter from the directory of adapters.",
        schema!(requests::LoadAdapter),
        &[(JSON, Body::Any)],
    ),
    post(
        "/v1/unload_lora_adapter",
        "adapters",
        "Unload an adapter.",
        schema!(requests::UnloadAdapter),
        &[(JSON, Body::Any)],
    ),
    get(
        "/health",
        "operation",
        "Whether the process answers; with deep=1, whether it generates.",
        &[(JSON, Body::Any)],
        true,
    ),
    get("/ready", "operation", "Whether requests should be sent here.", &[(JSON, Body::Any)], true),
    get(
        "/v1/stats",
        "operation",
        "Snapshots of the last hours, and the alerts that are on.",
        &[(JSON, Body::Any), ("text/csv", Body::Text)],
        false,
    ),
    get("/metrics", "operation", "Metrics in Prometheus' text format.", &[("text/plain", Body::Text)], false),
    get(
        "/v1/stats",
        "operation",
        "Snapshots of the last hours (hours, 0 to 24; format, json or csv).",
        &[(JSON, Body::Any), ("text/csv", Body::Text)],
        false,
    ),
    get("/openapi.json", "operation", "This document.", &[(JSON, Body::Any)], false),
];
