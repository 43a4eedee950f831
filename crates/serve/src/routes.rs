//! The endpoints.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{DefaultBodyLimit, Path, State};
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
use crate::answer::{Choice, Events, Header, Shape};
use crate::body::{self, BodyBudget};
use crate::completion_jobs::{CompletionJobs, completion_jobs};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::guard::{self, Guard};
use crate::jobs::{Jobs, Update};
use crate::lora_routes;
use crate::request::Endpoint;

/// What every endpoint sees.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) jobs: Jobs,
    /// Whether clients may change what other clients get: the operator gave a key to some, or allowed it to
    /// all.
    pub(crate) may_change: bool,
    /// When the service began, in seconds of Unix time.
    created: u64,
    /// Where adapters may be read from at run time.
    pub(crate) lora_dir: Option<Arc<std::path::Path>>,
}

/// The service as a router, to be served or nested.
pub fn router(engine: Engine, options: &ServeOptions) -> Router {
    let guard = Guard::new(options);
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(models))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/load_lora_adapter", post(lora_routes::load))
        .route("/v1/unload_lora_adapter", post(lora_routes::unload))
        .route("/lora-adapters", get(lora_routes::list).post(lora_routes::set))
        .route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
        .route_layer(middleware::from_fn_with_state(BodyBudget::new(options), body::read))
        .layer(DefaultBodyLimit::disable())
        .fallback(|| async {
            let message = "unknown path: see GET /v1/models and POST /v1/chat/completions".to_string();
            ApiError::NotFound { message, param: None, code: Some("not_found") }
        })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(middleware::from_fn_with_state(Arc::clone(&guard), guard::check))
        .layer(guard::cors(&guard))
        .with_state(Service {
            jobs: Jobs::new(engine, options.concurrency, options.queue, options.timeout),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            may_change: options.api_key.is_some() || options.runtime_lora.is_some(),
            lora_dir: options.runtime_lora.as_deref().map(Arc::from),
        })
}

/// A model as `/v1/models` shows it.
fn model_body(service: &Service, name: &str, parent: Option<&str>) -> Value {
    json!({
        "id": name, "object": "model", "created": service.created, "owned_by": "tritforge", "root": name, "parent": parent,
    })
}

/// The model, and every adapter as a model of its own whose parent it is.
async fn models(State(service): State<Service>) -> Json<Value> {
    let base = service.jobs.model();
    let mut data = vec![model_body(&service, base, None)];
    let adapters = service.jobs.adapters().list();
    data.extend(adapters.iter().map(|adapter| model_body(&service, &adapter.name, Some(base))));
    Json(json!({ "object": "list", "data": data }))
}

/// One of them.
async fn model(
    State(service): State<Service>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(name) = name.map_err(|e| ApiError::Invalid { message: e.body_text(), param: Some("model") })?;
    let base = service.jobs.model();
    // Names the models that there are, if this is none of them.
    service.jobs.adapters().of_request(Some(&name), None)?;
    let parent = (name != base).then_some(base);
    Ok(Json(model_body(&service, &name, parent)))
}

async fn completions(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request = completion_jobs(Endpoint::Completions, &parse(body)?, service.jobs.adapters())?;
    respond(&service.jobs, request, Shape::Text).await
}

async fn chat(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request = completion_jobs(Endpoint::Chat, &parse(body)?, service.jobs.adapters())?;
    respond(&service.jobs, request, Shape::Chat).await
}

/// A body's JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    let body = body.map_err(|e| invalid(e.body_text()))?;
    serde_json::from_slice(&body).map_err(|e| invalid(format!("the body is not a valid request: {e}")))
}

async fn respond(jobs: &Jobs, request: CompletionJobs, shape: Shape) -> Result<Response, ApiError> {
    let CompletionJobs { jobs: list, n, model, stream, include_usage } = request;
    let header = Header::new(&model, shape, n);
    let count = list.len();
    let logprobs = list.iter().any(|job| job.options.logprobs.is_some());
    let mut updates = jobs.start(list).await?;
    // The sender is dropped without a `Done` only if the engine's thread panicked.
    let stopped = || ApiError::Internal("the engine stopped without an answer".to_string());
    let first = updates.recv().await.ok_or_else(stopped)?;
    if stream {
        // A request that fails before its first text gets an error's status, not a stream.
        return match first {
            Update::Done(Err(error)) => Err(error),
            first => Ok(stream_events(Events::new(header, count, include_usage, logprobs), first, updates)),
        };
    }
    let mut choices: Vec<Choice> = Vec::new();
    let mut choice = Choice { logprobs, ..Choice::default() };
    let mut next = Some(first);
    while let Some(update) = next {
        match update {
            Update::Piece { text, tokens } => {
                choice.text.push_str(&text);
                choice.tokens.extend(tokens);
            }
            Update::Done(outcome) => {
                choice.outcome = Some(outcome?);
                choices.push(std::mem::replace(&mut choice, Choice { logprobs, ..Choice::default() }));
                if choices.len() == count {
                    return Ok(Json(header.whole(&choices)).into_response());
                }
            }
        }
        next = updates.recv().await;
    }
    Err(stopped())
}

fn stream_events(mut events: Events, first: Update, rest: Receiver<Update>) -> Response {
    let updates = futures::stream::iter([first]).chain(ReceiverStream::new(rest));
    let events = updates.flat_map(move |update| {
        let events = events.of(update).into_iter();
        futures::stream::iter(events.map(|data| Ok::<_, Infallible>(Event::default().data(data))))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
