//! `GET /metrics`: counters, gauges and histograms in Prometheus' text format.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

use super::Service;
use crate::error::ApiError;
use crate::metrics::MEDIA_TYPE;
use crate::openapi::{Body, Operation};

pub(super) const OPERATIONS: &[Operation] = &[Operation::get(
    "/metrics",
    "operation",
    "Metrics in Prometheus' text format.",
    &[("text/plain", Body::Text)],
)];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/metrics", get(metrics))
}

async fn metrics(State(service): State<Service>) -> Result<Response, ApiError> {
    let metrics = service.jobs.measure();
    let text =
        metrics.text().map_err(|e| ApiError::Internal(format!("the metrics cannot be written: {e}")))?;
    Ok(([(header::CONTENT_TYPE, MEDIA_TYPE)], text).into_response())
}
