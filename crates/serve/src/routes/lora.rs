//! The endpoints of adapters: llama.cpp's `/lora-adapters`, vLLM's `/v1/load_lora_adapter` and
//! `/v1/unload_lora_adapter`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::routing::{get, post};
use axum::{Json, Router};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tritforge_config::{ADAPTER_CONFIG, ADAPTER_MODEL};

use super::{Service, parse};
use crate::adapters::{AdapterError, NamedAdapter};
use crate::error::ApiError;
use crate::openapi::requests::Scale;
use crate::openapi::{Body, JSON, Operation, schema};
use crate::request;

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::get(
        "/lora-adapters",
        "adapters",
        "List the adapters.",
        &[(JSON, schema!(Vec<described::Adapter>))],
    ),
    Operation::post(
        "/lora-adapters",
        "adapters",
        "Set the scales of adapters for requests that name none.",
        schema!(Vec<Scale>),
        &[(JSON, Body::Any)],
    ),
    Operation::post(
        "/v1/load_lora_adapter",
        "adapters",
        "Load an adapter from the directory of adapters.",
        schema!(Load),
        &[(JSON, Body::Any)],
    ),
    Operation::post(
        "/v1/unload_lora_adapter",
        "adapters",
        "Unload an adapter.",
        schema!(Unload),
        &[(JSON, Body::Any)],
    ),
];

pub(super) fn routes() -> Router<Service> {
    Router::new()
        .route("/v1/load_lora_adapter", post(load))
        .route("/v1/unload_lora_adapter", post(unload))
        .route("/lora-adapters", get(list).post(set))
}

/// `GET /lora-adapters`: every adapter with the scale that requests have it with which ask for nothing.
async fn list(State(service): State<Service>) -> Json<Value> {
    let all = service.jobs.adapters().list();
    // Of the path only the file's name: where it lies on this machine is nobody's business.
    let file = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let one = |a: &NamedAdapter| json!({ "id": a.id, "name": a.name, "path": file(&a.path), "scale": a.default_scale });
    Json(all.iter().map(one).collect())
}

/// `POST /lora-adapters`: sets those scales, by number; an adapter that is not named is off.
async fn set(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    if !service.may_change {
        let message = "changing the default adapters is disabled: start the service with --api-key or \
                       --allow-runtime-lora DIR, or set \"lora\" in the request";
        return Err(ApiError::Forbidden(message.to_string()));
    }
    let scales = request::lora(&parse(body)?)?;
    service.jobs.adapters().set_defaults(&scales)?;
    Ok(Json(json!({ "success": true })))
}

/// An adapter of the directory.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "LoadAdapterRequest")]
struct Load {
    lora_name: String,
    lora_path: PathBuf,
}

/// An adapter by its name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "UnloadAdapterRequest")]
struct Unload {
    lora_name: String,
}

/// `POST /v1/load_lora_adapter`: reads an adapter of the directory that the operator has allowed.
async fn load(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let dir = allowed(&service)?;
    let Load { lora_name, lora_path } = parse(body)?;
    let adapters = Arc::clone(service.jobs.adapters());
    let name = lora_name.clone();
    let loaded = tokio::task::spawn_blocking(move || {
        let path = within(&dir, &lora_path)?;
        Ok::<_, ApiError>(adapters.load(&name, &path, 1.0)?)
    });
    let id = loaded.await.map_err(|_| ApiError::Internal("reading the adapter failed".to_string()))??;
    Ok(Json(json!({ "success": true, "id": id, "name": lora_name })))
}

/// `POST /v1/unload_lora_adapter`.
async fn unload(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    allowed(&service)?;
    let Unload { lora_name } = parse(body)?;
    service.jobs.adapters().unload(&lora_name)?;
    Ok(Json(json!({ "success": true, "name": lora_name })))
}

fn allowed(service: &Service) -> Result<PathBuf, ApiError> {
    service.lora_dir.as_deref().map(Path::to_path_buf).ok_or_else(|| {
        let message = "loading adapters at run time is disabled, since it reads files on the server: start \
                       it with --allow-runtime-lora DIR";
        ApiError::Forbidden(message.to_string())
    })
}

/// The adapter, if it is one of the directory's, links followed: a file, or a directory as peft writes it,
/// whose files are the directory's too. One outside is as unknown as one that does not exist: what else is on
/// the machine is not told.
fn within(dir: &Path, path: &Path) -> Result<PathBuf, ApiError> {
    let unknown = || {
        let (path, dir) = (path.display(), dir.display());
        let message = format!("no file {path} in {dir}, the directory of adapters");
        ApiError::NotFound { message, param: Some("lora_path"), code: Some("adapter_not_found") }
    };
    let dir = dir.canonicalize().map_err(|_| unknown())?;
    let inside = |path: &Path| path.canonicalize().ok().filter(|found| found.starts_with(&dir));
    let found = inside(&dir.join(path)).ok_or_else(unknown)?;
    let whole = [ADAPTER_CONFIG, ADAPTER_MODEL].iter().all(|name| inside(&found.join(name)).is_some());
    if found.is_file() || whole { Ok(found) } else { Err(unknown()) }
}

impl From<AdapterError> for ApiError {
    fn from(error: AdapterError) -> Self {
        let message = error.to_string();
        match error {
            AdapterError::Unknown(_) => {
                ApiError::NotFound { message, param: None, code: Some("adapter_not_found") }
            }
            AdapterError::Name { .. } => ApiError::Invalid { message, param: Some("lora_name") },
            AdapterError::File(_) => ApiError::Invalid { message, param: Some("lora_path") },
            AdapterError::Full => ApiError::Invalid { message, param: None },
        }
    }
}

/// The answer of `GET /lora-adapters` as OpenAPI describes it.
#[allow(dead_code, reason = "only its schema is used")]
mod described {
    use schemars::JsonSchema;

    /// An adapter.
    #[derive(JsonSchema)]
    pub(super) struct Adapter {
        id: usize,
        name: String,
        /// The file's name.
        path: Option<String>,
        /// The scale that requests have it with which name none.
        scale: f32,
    }
}
