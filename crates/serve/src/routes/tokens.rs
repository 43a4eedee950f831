//! `POST /tokenize`, `/detokenize` and `/apply-template`: a text as the model sees it.
//!
//! The fields are those of llama.cpp's server and of vLLM, which differ in names; an answer has the fields of both.

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tritforge_text::{EncodeOptions, Message, TemplateInputs, TextError};

use super::{Service, parse};
use crate::engine::{JobError, chat_template};
use crate::error::ApiError;
use crate::openapi::{JSON, Operation, schema};
use crate::request::{self, Object, RequestError};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::post(
        "/tokenize",
        "tokens",
        "Show the tokens of a text or a conversation.",
        schema!(described::Tokenize),
        &[(JSON, schema!(described::Tokens))],
    ),
    Operation::post(
        "/detokenize",
        "tokens",
        "Show the text of tokens.",
        schema!(described::Detokenize),
        &[(JSON, schema!(described::Text))],
    ),
    Operation::post(
        "/apply-template",
        "tokens",
        "Show the prompt that a conversation becomes.",
        schema!(described::ApplyTemplate),
        &[(JSON, schema!(described::Prompt))],
    ),
];

pub(super) fn routes() -> Router<Service> {
    Router::new()
        .route("/tokenize", post(tokenize))
        .route("/detokenize", post(detokenize))
        .route("/apply-template", post(apply_template))
}

/// `POST /tokenize`: `content` (llama.cpp, without BOS unless `add_special`), `prompt` (vLLM, with what
/// `add_special_tokens` adds unless it is false) or `messages`.
async fn tokenize(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body: Object = parse(body)?;
    let names = [
        "content",
        "prompt",
        "messages",
        "model",
        "add_special",
        "add_special_tokens",
        "parse_special",
        "with_pieces",
        "return_token_strs",
        "chat_template_kwargs",
    ];
    check(&body, &names)?;
    of_model(&service, &body)?;
    let arguments = request::template_arguments(&body.0)?;
    let flag = |name: &'static str, default: bool| request::flag(&body.0, name, default);
    let sources: Vec<&str> = names[..3].iter().copied().filter(|name| given(&body, name).is_some()).collect();
    let [source] = sources[..] else {
        return Err(
            RequestError::new("content", "expected exactly one of content, prompt and messages").into()
        );
    };
    request::conversation_only(&body.0, source == "messages")?;
    let value = given(&body, source).cloned().unwrap_or_default();
    let adds = match source {
        "content" => flag("add_special", flag("add_special_tokens", false)?)?,
        _ => flag("add_special_tokens", flag("add_special", true)?)?,
    };
    let (parse_special, pieces) = (flag("parse_special", true)?, flag("with_pieces", false)?);
    let strings = flag("return_token_strs", false)?;
    let (model, limit) = service.jobs.text()?;
    blocking(move || {
        let tokenizer = model.tokenizer();
        let ids = if source == "messages" {
            let messages = request::messages(&value)?;
            limit.check_bytes(bytes_of(&messages)).map_err(|e| ApiError::of_job(e, "messages"))?;
            tokenizer
                .encode_chat_with(
                    &chat_template(tokenizer).map_err(|e| ApiError::of_job(e, "messages"))?,
                    &messages,
                    TemplateInputs { tools: &[], arguments: Some(&arguments) },
                )
                .map_err(wrong)?
        } else {
            let text = request::text(source, &value)?;
            limit.check_bytes(text.len()).map_err(|e| ApiError::of_job(e, source))?;
            let how = EncodeOptions { add_bos: adds && tokenizer.adds_bos(), parse_special };
            tokenizer.encode_with(&text, how).map_err(wrong)?
        };
        let mut answer = json!({ "count": ids.len(), "max_model_len": limit.served() });
        if strings {
            answer["token_strs"] = ids.iter().map(|id| tokenizer.token(*id)).collect();
        }
        answer["tokens"] = if pieces {
            let piece = |id: &u32| {
                let bytes = tokenizer.bytes(*id).map_err(wrong)?;
                // A part of a character is no text.
                let piece = String::from_utf8(bytes).map_or_else(|e| json!(e.into_bytes()), Value::from);
                Ok(json!({ "id": id, "piece": piece }))
            };
            ids.iter().map(piece).collect::<Result<_, ApiError>>()?
        } else {
            json!(ids)
        };
        Ok(answer)
    })
    .await
}

/// `POST /detokenize`.
async fn detokenize(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body: Object = parse(body)?;
    check(&body, &["tokens", "model"])?;
    of_model(&service, &body)?;
    let value = given(&body, "tokens")
        .ok_or_else(|| RequestError::new("tokens", "tokens is missing: it is required"))?;
    let ids = request::ids("tokens", value)?;
    let (model, _) = service.jobs.text()?;
    blocking(move || {
        let size = model.tokenizer().vocab_size();
        if let Some((i, id)) = ids.iter().enumerate().find(|(_, id)| **id as usize >= size) {
            let message = format!("tokens[{i}] = {id}: expected ids of the vocabulary, 0 to {}", size - 1);
            return Err(RequestError::new("tokens", message).into());
        }
        let text = model.tokenizer().decode(&ids).map_err(wrong)?;
        Ok(json!({ "content": text, "prompt": text }))
    })
    .await
}

/// `POST /apply-template`: the prompt that a conversation becomes.
async fn apply_template(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body: Object = parse(body)?;
    check(&body, &["messages", "tools", "chat_template_kwargs", "model"])?;
    of_model(&service, &body)?;
    let (tools, arguments) = (request::tools(&body.0)?, request::template_arguments(&body.0)?);
    let missing = || RequestError::new("messages", "messages is missing: it is required");
    let messages = request::messages(given(&body, "messages").ok_or_else(missing)?)?;
    let (model, limit) = service.jobs.text()?;
    blocking(move || {
        limit.check_bytes(bytes_of(&messages)).map_err(|e| ApiError::of_job(e, "messages"))?;
        let tokenizer = model.tokenizer();
        let prompt = tokenizer
            .render_chat(
                &chat_template(tokenizer).map_err(|e| ApiError::of_job(e, "messages"))?,
                &messages,
                TemplateInputs { tools: &tools, arguments: Some(&arguments) },
            )
            .map_err(wrong)?;
        Ok(json!({ "prompt": prompt }))
    })
    .await
}

/// An error of a text is the request's.
fn wrong(error: TextError) -> ApiError {
    ApiError::of_job(JobError::from(error), "content")
}

fn bytes_of(messages: &[Message]) -> usize {
    messages.iter().map(|message| message.role.len() + message.content.len()).sum()
}

fn given<'a>(body: &'a Object, name: &str) -> Option<&'a Value> {
    body.0.get(name).filter(|value| !value.is_null())
}

fn check(body: &Object, known: &[&str]) -> Result<(), RequestError> {
    match body.0.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(RequestError::new(key, format!("Unrecognized request argument supplied: {key}"))),
        None => Ok(()),
    }
}

/// Whether the model that the request names, if it does, is one of the service. Adapters have the tokenizer of
/// their base.
fn of_model(service: &Service, body: &Object) -> Result<(), ApiError> {
    if let Some(value) = given(body, "model") {
        service.jobs.adapters().of_request(Some(&request::text("model", value)?), None)?;
    }
    Ok(())
}

/// On a thread that may take its time.
async fn blocking(
    run: impl FnOnce() -> Result<Value, ApiError> + Send + 'static,
) -> Result<Json<Value>, ApiError> {
    let ran = tokio::task::spawn_blocking(run).await;
    ran.map_err(|_| ApiError::Internal("the tokenizer stopped without an answer".to_string()))?.map(Json)
}

/// Requests and answers as OpenAPI describes them.
#[allow(dead_code, reason = "only their schemas are used")]
mod described {
    use schemars::JsonSchema;
    use serde_json::{Map, Value};

    use crate::openapi::requests::{Message, Tool};

    /// One of `content`, `prompt` and `messages`.
    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(rename = "TokenizeRequest")]
    pub(super) struct Tokenize {
        content: Option<String>,
        prompt: Option<String>,
        messages: Option<Vec<Message>>,
        model: Option<String>,
        add_special: Option<bool>,
        add_special_tokens: Option<bool>,
        parse_special: Option<bool>,
        with_pieces: Option<bool>,
        return_token_strs: Option<bool>,
        /// Variables of the chat template by name.
        chat_template_kwargs: Option<Map<String, Value>>,
    }

    /// Tokens.
    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(rename = "DetokenizeRequest")]
    pub(super) struct Detokenize {
        tokens: Vec<u32>,
        model: Option<String>,
    }

    /// A conversation.
    #[derive(JsonSchema)]
    #[serde(deny_unknown_fields)]
    #[schemars(rename = "ApplyTemplateRequest")]
    pub(super) struct ApplyTemplate {
        messages: Vec<Message>,
        tools: Option<Vec<Tool>>,
        /// Variables of the chat template by name.
        chat_template_kwargs: Option<Map<String, Value>>,
        model: Option<String>,
    }

    /// Tokens of a text.
    #[derive(JsonSchema)]
    pub(super) struct Tokens {
        count: usize,
        /// The context's length.
        max_model_len: usize,
        /// Ids; with `with_pieces`, objects with `id` and `piece`.
        tokens: Vec<Value>,
        #[serde(default)]
        token_strs: Vec<Option<String>>,
    }

    /// The text of tokens, under two names.
    #[derive(JsonSchema)]
    pub(super) struct Text {
        content: String,
        prompt: String,
    }

    /// What the model reads.
    #[derive(JsonSchema)]
    pub(super) struct Prompt {
        prompt: String,
    }
}
