//! `GET /v1/models` and `GET /v1/models/{name}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Service;
use crate::error::ApiError;

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/v1/models", get(models)).route("/v1/models/{*name}", get(model))
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
