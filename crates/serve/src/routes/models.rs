//! `GET /v1/models` and `GET /v1/models/{name}`.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};

use super::Service;
use crate::error::ApiError;
use crate::openapi::{JSON, Operation, schema};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::get(
        "/v1/models",
        "models",
        "List the model and its adapters.",
        &[(JSON, schema!(described::Models))],
    ),
    Operation::get("/v1/models/{name}", "models", "Show one of them.", &[(JSON, schema!(described::Model))]),
];

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

/// The answers as OpenAPI describes them.
#[allow(dead_code, reason = "only their schemas are used")]
mod described {
    use schemars::JsonSchema;

    /// The models that there are.
    #[derive(JsonSchema)]
    pub(super) struct Models {
        /// `list`.
        object: String,
        data: Vec<Model>,
    }

    /// The model, or an adapter.
    #[derive(JsonSchema)]
    pub(super) struct Model {
        id: String,
        /// `model`.
        object: String,
        /// Unix time in seconds.
        created: u64,
        owned_by: String,
        root: String,
        /// Of an adapter: the model.
        parent: Option<String>,
    }
}
