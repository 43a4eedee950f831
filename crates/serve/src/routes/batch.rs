//! `POST /v1/generate/batch`: several requests in one, each with its own status.

use std::collections::HashSet;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::routing::post;
use axum::{Extension, Json, Router};
use futures::StreamExt as _;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tritforge_support::counted;

use super::completions::answer;
use super::{Service, parse};
use crate::answer::Shape;
use crate::completion_jobs::completion_jobs;
use crate::error::ApiError;
use crate::openapi::{JSON, Operation, schema};
use crate::record::Record;
use crate::request::{Endpoint, Object, RequestError};

pub(super) const OPERATIONS: &[Operation] = &[Operation::post(
    "/v1/generate/batch",
    "generation",
    "Answer several requests at once, each with its own status.",
    schema!(Batch),
    &[(JSON, schema!(described::Batch))],
)];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/v1/generate/batch", post(batch))
}

/// Several requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BatchRequest")]
struct Batch {
    /// Bodies of completions and, with messages, of chats, each with an id of its own if it has one.
    #[schemars(with = "Vec<Value>")]
    requests: Vec<Object>,
}

/// Runs as many requests at once as the service does, each with a place in its queue; results come in the order of
/// the requests.
async fn batch(
    State(service): State<Service>,
    Extension(record): Extension<Arc<Record>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let Batch { requests } = parse(body)?;
    let most = service.jobs.admits();
    if requests.is_empty() || requests.len() > most {
        let message = format!(
            "requests: {found}, expected 1 to {most}, as many as may run and wait (serve --concurrency and --queue)",
            found = counted(requests.len(), "request")
        );
        return Err(RequestError::new("requests", message).into());
    }
    let mut ids = HashSet::new();
    for (i, request) in requests.iter().enumerate() {
        let Some(id) = request.0.get("id").filter(|id| !id.is_null()) else { continue };
        if !id.is_string() && !id.is_number() || !ids.insert(id.to_string()) {
            let message =
                format!("requests[{i}].id = {id}: expected a string or a number that no other request has");
            return Err(RequestError::new(format!("requests[{i}].id"), message).into());
        }
    }
    let run = |request| one(&service, request, &record);
    let results: Vec<Value> =
        futures::stream::iter(requests).map(run).buffered(service.jobs.concurrency()).collect().await;
    Ok(Json(json!({ "object": "list", "results": results })))
}

/// A request of a batch with what became of it.
async fn one(service: &Service, mut request: Object, record: &Arc<Record>) -> Value {
    let id = request.0.shift_remove("id").unwrap_or_default();
    match run(service, &request, record).await {
        Ok(response) => json!({ "id": id, "status": 200, "response": response }),
        Err(error) => {
            json!({ "id": id, "status": error.status().as_u16(), "error": error.body()["error"] })
        }
    }
}

async fn run(service: &Service, request: &Object, record: &Arc<Record>) -> Result<Value, ApiError> {
    let (endpoint, shape) = match request.0.contains_key("messages") {
        true => (Endpoint::Chat, Shape::Chat),
        false => (Endpoint::Completions, Shape::Text),
    };
    let jobs = completion_jobs(endpoint, request, &service.jobs)?;
    if jobs.stream {
        let message = "stream = true: not available in a batch, whose results come together";
        return Err(RequestError::new("stream", message).into());
    }
    answer(&service.jobs, jobs, shape, Arc::clone(record)).await
}

/// The answer as OpenAPI describes it.
#[allow(dead_code, reason = "only their schemas are used")]
mod described {
    use schemars::JsonSchema;
    use serde_json::Value;

    use crate::openapi::answers::ErrorBody;

    /// What became of several requests.
    #[derive(JsonSchema)]
    pub(super) struct Batch {
        /// `list`.
        object: String,
        /// In the order of the requests.
        results: Vec<BatchResult>,
    }

    /// What became of one.
    #[derive(JsonSchema)]
    struct BatchResult {
        /// As the request gave it.
        id: Value,
        /// The status that it would have alone.
        status: u16,
        /// The answer, with status 200.
        response: Option<Value>,
        /// What is wrong, with any other.
        error: Option<ErrorBody>,
    }
}
