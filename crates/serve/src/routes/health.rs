//! `GET /health` and `GET /ready`, which need no key, and `GET /health?deep=1`, which generates a token.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Extension, Json, Router};
use serde_json::{Value, json};
use tritforge_infer::GenerateOptions;

use super::Service;
use crate::engine::{Job, Prompt};
use crate::error::ApiError;
use crate::jobs::{Jobs, Update};
use crate::openapi::{Body, JSON, Operation};
use crate::record::Record;

/// Time that a deep check may take, waiting for its turn included.
const DEEP_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::get(
        "/health",
        "operation",
        "Whether the process answers; with deep=1, whether it generates.",
        &[(JSON, Body::Any)],
    )
    .public(),
    Operation::get("/ready", "operation", "Whether requests should be sent here.", &[(JSON, Body::Any)])
        .public(),
];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/health", get(health)).route("/ready", get(ready))
}

/// Whether a check is to generate.
pub(crate) fn is_deep(uri: &Uri) -> bool {
    let query = uri.query().unwrap_or_default();
    query.split('&').any(|part| matches!(part, "deep" | "deep=1" | "deep=true"))
}

/// The process answers; if asked for, so does the engine.
async fn health(
    State(service): State<Service>,
    Extension(record): Extension<Arc<Record>>,
    uri: Uri,
) -> Response {
    if !is_deep(&uri) {
        return Json(json!({ "status": "ok" })).into_response();
    }
    let begin = Instant::now();
    let message = match tokio::time::timeout(DEEP_TIMEOUT, generate(&service.jobs, record)).await {
        Ok(Ok(())) => {
            let seconds = begin.elapsed().as_secs_f64();
            return Json(json!({ "status": "ok", "seconds": seconds })).into_response();
        }
        Ok(Err(error)) => error.body()["error"]["message"].clone(),
        Err(_) => Value::String(format!("no token within {} seconds", DEEP_TIMEOUT.as_secs())),
    };
    let body = Json(json!({ "status": "error", "message": message }));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

/// Generates one token like any other request, with a place in the queue.
async fn generate(jobs: &Jobs, record: Arc<Record>) -> Result<(), ApiError> {
    let options = GenerateOptions { max_tokens: 1, ignore_eos: true, ..GenerateOptions::default() };
    let job = Job::new(Prompt::Ids(vec![0]), options);
    let mut updates = jobs.start(vec![job], 1, record).await?;
    while let Some(update) = updates.recv().await {
        if let Update::Done(outcome) = update {
            return outcome.map(|_| ());
        }
    }
    Err(ApiError::Internal("the engine stopped without an answer".to_string()))
}

/// Whether requests should be sent here: the model is loaded, which it is before anything is answered, and has been
/// warmed up, and nobody has told the service to end.
async fn ready(State(service): State<Service>) -> Response {
    let warming = !service.warm.load(Ordering::Relaxed);
    let state = if service.draining.load(Ordering::Relaxed) {
        Some("draining")
    } else {
        warming.then_some("warming")
    };
    if let Some(state) = state {
        let body = Json(json!({ "status": state }));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    Json(json!({ "status": "ready", "model": service.jobs.model() })).into_response()
}
