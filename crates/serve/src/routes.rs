//! The endpoints.

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;

use crate::ServeOptions;
use crate::api::{Asked, ChatRequest, CompletionRequest, finish_reason};
use crate::body::{self, Bodies};
use crate::engine::{Engine, Outcome};
use crate::error::ApiError;
use crate::guard::{self, Guard};
use crate::jobs::{Jobs, Update};
use crate::lora_routes;

/// What every endpoint sees.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) jobs: Jobs,
    /// Whether clients may change what other clients get: the operator gave a key to some, or allowed it to all.
    pub(crate) may_change: bool,
    /// Where adapters may be read from at run time.
    pub(crate) lora_dir: Option<Arc<Path>>,
}

/// The service as a router, to be served or nested.
pub fn router(engine: Engine, options: &ServeOptions) -> Router {
    let guard = Guard::new(options);
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/load_lora_adapter", post(lora_routes::load))
        .route("/v1/unload_lora_adapter", post(lora_routes::unload))
        .route("/lora-adapters", get(lora_routes::list).post(lora_routes::set))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route_layer(middleware::from_fn_with_state(Bodies::new(options), body::read))
        .layer(DefaultBodyLimit::disable())
        .fallback(|| async {
            let message =
                "there is no such path: see GET /v1/models and POST /v1/chat/completions".to_string();
            ApiError::NotFound { message, param: None, code: Some("not_found") }
        })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(middleware::from_fn_with_state(Arc::clone(&guard), guard::check))
        .layer(guard::cors(&guard))
        .with_state(Service {
            jobs: Jobs::new(engine, options.concurrency, options.queue, options.timeout),
            may_change: options.api_key.is_some() || options.runtime_lora.is_some(),
            lora_dir: options.runtime_lora.as_deref().map(Arc::from),
        })
}

/// The model, and every adapter as a model of its own whose parent it is.
async fn models(State(service): State<Service>) -> Json<Value> {
    let base = service.jobs.model();
    let mut data = vec![json!({ "id": base, "object": "model", "owned_by": "tritforge", "parent": null })];
    data.extend(service.jobs.adapters().list().iter().map(|adapter| {
        json!({
            "id": adapter.name, "object": "model", "owned_by": "tritforge", "root": adapter.name, "parent": base,
        })
    }));
    Json(json!({ "object": "list", "data": data }))
}

async fn completions(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = parse::<CompletionRequest>(body)?.asked(service.jobs.adapters())?;
    respond(&service.jobs, asked, Shape::Text).await
}

async fn chat(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let asked = parse::<ChatRequest>(body)?.asked(service.jobs.adapters())?;
    respond(&service.jobs, asked, Shape::Chat).await
}

/// A body's JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    let body = body.map_err(|e| invalid(e.body_text()))?;
    serde_json::from_slice(&body).map_err(|e| invalid(format!("the body is not a valid request: {e}")))
}

/// Which of the two APIs speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Text,
    Chat,
}

/// What all parts of an answer share.
#[derive(Debug, Clone)]
struct Header {
    id: String,
    created: u64,
    model: String,
    shape: Shape,
}

impl Header {
    fn new(model: &str, shape: Shape) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let prefix = if shape == Shape::Chat { "chatcmpl" } else { "cmpl" };
        Self {
            id: format!("{prefix}-{:x}", now.as_nanos()),
            created: now.as_secs(),
            model: model.to_string(),
            shape,
        }
    }

    fn body(&self, object: &str, choice: &Value) -> Value {
        json!({
            "id": self.id, "object": object, "created": self.created, "model": self.model, "choices": [choice],
        })
    }

    /// The whole answer.
    fn whole(&self, text: &str, outcome: Outcome) -> Value {
        let reason = finish_reason(outcome.finish);
        let (object, choice) = match self.shape {
            Shape::Text => (
                "text_completion",
                json!({ "index": 0, "text": text, "logprobs": null, "finish_reason": reason }),
            ),
            Shape::Chat => {
                let message = json!({ "role": "assistant", "content": text });
                ("chat.completion", json!({ "index": 0, "message": message, "finish_reason": reason }))
            }
        };
        let mut body = self.body(object, &choice);
        body["usage"] = json!({
            "prompt_tokens": outcome.prompt_tokens,
            "completion_tokens": outcome.completion_tokens,
            "total_tokens": outcome.prompt_tokens + outcome.completion_tokens,
        });
        body
    }

    /// One event of a stream.
    fn chunk(&self, text: Option<&str>, reason: Option<&str>) -> Value {
        match self.shape {
            Shape::Text => self.body(
                "text_completion",
                &json!({ "index": 0, "text": text.unwrap_or_default(), "finish_reason": reason }),
            ),
            Shape::Chat => {
                let delta =
                    text.map_or_else(|| json!({}), |text| json!({ "role": "assistant", "content": text }));
                let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
                self.body("chat.completion.chunk", &choice)
            }
        }
    }
}

async fn respond(jobs: &Jobs, asked: Asked, shape: Shape) -> Result<Response, ApiError> {
    let Asked { job, model, stream } = asked;
    let header = Header::new(&model, shape);
    let mut updates = jobs.start(job).await?;
    // The sender is dropped without a `Done` only if the engine's thread panicked.
    let stopped = || ApiError::Internal("the engine stopped without an answer".to_string());
    let first = updates.recv().await.ok_or_else(stopped)?;
    if stream {
        // A request that fails before its first text gets an error's status, not a stream.
        return match first {
            Update::Done(Err(error)) => Err(error),
            first => Ok(stream_events(header, first, updates)),
        };
    }
    let mut text = String::new();
    let mut next = Some(first);
    while let Some(update) = next {
        match update {
            Update::Text(piece) => text.push_str(&piece),
            Update::Done(outcome) => return Ok(Json(header.whole(&text, outcome?)).into_response()),
        }
        next = updates.recv().await;
    }
    Err(stopped())
}

fn stream_events(header: Header, first: Update, rest: Receiver<Update>) -> Response {
    let updates = futures::stream::iter([first]).chain(ReceiverStream::new(rest));
    let events = updates.flat_map(move |update| {
        let bodies = match update {
            Update::Text(piece) => vec![header.chunk(Some(&piece), None).to_string()],
            Update::Done(Ok(outcome)) => {
                vec![
                    header.chunk(None, Some(finish_reason(outcome.finish))).to_string(),
                    "[DONE]".to_string(),
                ]
            }
            Update::Done(Err(error)) => vec![error.body().to_string(), "[DONE]".to_string()],
        };
        futures::stream::iter(bodies.into_iter().map(|body| Ok::<_, Infallible>(Event::default().data(body))))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
