//! The endpoints: one file for each group of paths, which says in `routes` what it answers to.

mod batch;
mod completions;
#[cfg(test)]
mod echo;
mod embeddings;
pub(crate) mod health;
mod lora;
mod metrics;
mod models;
mod openapi;
pub(crate) mod page;
mod stats;
mod tokens;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::BytesRejection;
use axum::{Router, middleware};
use serde::de::DeserializeOwned;
use tritforge_infer::Pooling;

use crate::ServeOptions;
use crate::body::{self, BodyBudget};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::guard::{self, Guard};
use crate::history::History;
use crate::jobs::Jobs;
use crate::record::{self, Recorder};

/// All endpoints.
static ROUTES: &[fn() -> Router<Service>] = &[
    completions::routes,
    batch::routes,
    embeddings::routes,
    models::routes,
    tokens::routes,
    lora::routes,
    health::routes,
    metrics::routes,
    openapi::routes,
    stats::routes,
    #[cfg(test)]
    echo::routes,
];

/// What every endpoint sees.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) jobs: Jobs,
    /// Whether clients may change what other clients get: the operator gave a key to some, or allowed it to
    /// all.
    pub(crate) may_change: bool,
    /// When the service began, in seconds of Unix time.
    created: u64,
    pub(crate) history: Option<Arc<History>>,
    /// Whether the service has been told to end.
    draining: Arc<AtomicBool>,
    /// How the states of a text become its vector.
    pub(crate) pooling: Pooling,
    /// Where adapters may be read from at run time.
    pub(crate) lora_dir: Option<Arc<std::path::Path>>,
}

/// The service as a router, to be served or nested.
pub fn router(engine: Engine, options: &ServeOptions) -> Router {
    let guard = Guard::new(options);
    let recorder = Recorder::new(Arc::clone(engine.metrics()), options.access_log.clone());
    let jobs = Jobs::new(engine, options);
    if let Some(history) = &options.history {
        tokio::spawn(Arc::clone(history).follow(jobs.clone()));
    }
    let page = options.page.then_some(page::routes as fn() -> Router<Service>);
    let endpoints = ROUTES.iter().chain(&page).fold(Router::new(), |router, routes| router.merge(routes()));
    endpoints
        .route_layer(middleware::from_fn_with_state(BodyBudget::new(options), body::read))
        .layer(DefaultBodyLimit::disable())
        .fallback(|| async {
            let message = "unknown path: see GET /v1/models and POST /v1/chat/completions".to_string();
            ApiError::NotFound { message, param: None, code: Some("not_found") }
        })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(middleware::from_fn_with_state(Arc::clone(&guard), guard::check))
        .layer(guard::cors(&guard))
        .layer(middleware::from_fn_with_state(recorder, record::follow))
        .with_state(Service {
            jobs,
            history: options.history.clone(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            draining: Arc::clone(&options.draining),
            pooling: options.pooling,
            may_change: options.api_key.is_some() || options.keys.is_some() || options.runtime_lora.is_some(),
            lora_dir: options.runtime_lora.as_deref().map(Arc::from),
        })
}

/// A body's JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    let body = body.map_err(|e| invalid(e.body_text()))?;
    serde_json::from_slice(&body).map_err(|e| invalid(format!("the body is not a valid request: {e}")))
}
