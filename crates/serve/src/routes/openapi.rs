//! `GET /openapi.json`: the service described for programs.

use std::sync::LazyLock;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::{Service, operations};
use crate::openapi::{Body, JSON, Operation, document};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| document(operations()));

pub(super) const OPERATIONS: &[Operation] =
    &[Operation::get("/openapi.json", "operation", "This document.", &[(JSON, Body::Any)])];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/openapi.json", get(openapi))
}

async fn openapi() -> Json<&'static Value> {
    Json(&DOCUMENT)
}
