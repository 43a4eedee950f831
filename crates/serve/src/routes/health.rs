//! `GET /health`, which needs no key.

use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use super::Service;

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/health", get(|| async { Json(json!({ "status": "ok" })) }))
}
