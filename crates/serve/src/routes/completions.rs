//! `POST /v1/completions` and `POST /v1/chat/completions`, whole or streamed.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::mpsc::Receiver;
use tokio_stream::wrappers::ReceiverStream;

use super::{Service, parse};
use crate::answer::{Choice, Events, Header, Shape};
use crate::completion_jobs::{CompletionJobs, completion_jobs};
use crate::error::ApiError;
use crate::jobs::{Jobs, Update};
use crate::openapi::{Body, EVENTS, JSON, Operation, answers, requests, schema};
use crate::record::Record;
use crate::request::Endpoint;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::post(
        "/v1/chat/completions",
        "generation",
        "Answer a conversation.",
        Body::Schema(requests::chat),
        &[(JSON, schema!(answers::ChatCompletion)), (EVENTS, Body::Text)],
    ),
    Operation::post(
        "/v1/completions",
        "generation",
        "Continue texts.",
        Body::Schema(requests::completion),
        &[(JSON, schema!(answers::Completion)), (EVENTS, Body::Text)],
    ),
];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/v1/completions", post(completions)).route("/v1/chat/completions", post(chat))
}

async fn completions(
    State(service): State<Service>,
    Extension(record): Extension<Arc<Record>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request = completion_jobs(Endpoint::Completions, &parse(body)?, &service.jobs)?;
    respond(&service.jobs, request, Shape::Text, record).await
}

async fn chat(
    State(service): State<Service>,
    Extension(record): Extension<Arc<Record>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let request = completion_jobs(Endpoint::Chat, &parse(body)?, &service.jobs)?;
    respond(&service.jobs, request, Shape::Chat, record).await
}

async fn respond(
    jobs: &Jobs,
    request: CompletionJobs,
    shape: Shape,
    record: Arc<Record>,
) -> Result<Response, ApiError> {
    if !request.stream {
        return Ok(Json(answer(jobs, request, shape, record).await?).into_response());
    }
    check_filters(jobs, &request)?;
    let CompletionJobs { jobs: list, best_of, logprobs, calling, model, include_usage, .. } = request;
    // A stream has no more jobs than choices.
    let header = Header::new(&model, shape, best_of).calling(calling);
    let count = list.len();
    let mut updates = jobs.start(list, best_of, record).await?;
    // A request that fails before its first text gets an error's status, not a stream.
    match updates.recv().await.ok_or_else(stopped)? {
        Update::Done(Err(error)) => Err(error),
        first => Ok(stream_events(Events::new(header, count, include_usage, logprobs), first, updates)),
    }
}

/// Refuses log-probabilities where answers are filtered.
fn check_filters(jobs: &Jobs, request: &CompletionJobs) -> Result<(), ApiError> {
    if request.logprobs && jobs.filters().is_some_and(|filters| filters.has_answers()) {
        let message = "this service filters answers, and log-probabilities would show what is withheld";
        return Err(ApiError::Invalid { message: message.to_string(), param: Some("logprobs") });
    }
    Ok(())
}

/// The whole answer to a request.
pub(super) async fn answer(
    jobs: &Jobs,
    request: CompletionJobs,
    shape: Shape,
    record: Arc<Record>,
) -> Result<Value, ApiError> {
    check_filters(jobs, &request)?;
    let CompletionJobs { jobs: list, n, best_of, logprobs, calling, model, .. } = request;
    let header = Header::new(&model, shape, best_of).calling(calling);
    let count = list.len();
    let mut updates = jobs.start(list, best_of, record).await?;
    let mut choices: Vec<Choice> = Vec::new();
    let mut choice = Choice { logprobs, ..Choice::default() };
    while let Some(update) = updates.recv().await {
        match update {
            Update::Piece { text, tokens } => {
                choice.text.push_str(&text);
                choice.tokens.extend(tokens);
            }
            Update::Done(outcome) => {
                choice.outcome = Some(outcome?);
                choices.push(std::mem::replace(&mut choice, Choice { logprobs, ..Choice::default() }));
                if choices.len() == count {
                    return Ok(header.whole(choices, n));
                }
            }
        }
    }
    Err(stopped())
}

/// The sender is dropped without a `Done` only if the engine's thread panicked.
fn stopped() -> ApiError {
    ApiError::Internal("the engine stopped without an answer".to_string())
}

fn stream_events(mut events: Events, first: Update, rest: Receiver<Update>) -> Response {
    let updates = futures::stream::iter([first]).chain(ReceiverStream::new(rest));
    let events = updates.flat_map(move |update| {
        let events = events.of(update).into_iter();
        futures::stream::iter(events.map(|data| Ok::<_, Infallible>(Event::default().data(data))))
    });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
