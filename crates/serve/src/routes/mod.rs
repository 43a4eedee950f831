//! The endpoints: one file for each group of paths, which says in `routes` what it answers to and in `OPERATIONS` how
//! `/openapi.json` describes that.

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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::BytesRejection;
use axum::{Router, middleware};
use serde::de::DeserializeOwned;
use tritforge_infer::{LogitsRequest, Pooling, SequenceInput, Session, step};

use crate::ServeOptions;
use crate::body::{self, BodyBudget};
use crate::engine::Engine;
use crate::error::ApiError;
use crate::guard::{self, Guard};
use crate::history::History;
use crate::jobs::Jobs;
use crate::openapi::Operation;
use crate::record::{self, Recorder};

/// The endpoints of a file.
struct Endpoints {
    routes: fn() -> Router<Service>,
    /// The same paths as `/openapi.json` describes them.
    operations: &'static [Operation],
}

macro_rules! endpoints {
    ($($(#[$attribute:meta])* $file:ident,)*) => {
        &[$($(#[$attribute])* Endpoints { routes: $file::routes, operations: $file::OPERATIONS },)*]
    };
}

/// All endpoints, in the order in which they are described.
static ENDPOINTS: &[Endpoints] = endpoints![
    completions,
    batch,
    embeddings,
    models,
    tokens,
    lora,
    health,
    stats,
    metrics,
    openapi,
    #[cfg(test)]
    echo,
];

/// All endpoints as they are described.
fn operations() -> impl Iterator<Item = &'static Operation> {
    ENDPOINTS.iter().flat_map(|endpoints| endpoints.operations)
}

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
    /// Whether the model has been warmed up, where it is to be.
    warm: Arc<AtomicBool>,
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
    let routes = ENDPOINTS.iter().map(|endpoints| &endpoints.routes).chain(&page);
    let endpoints = routes.fold(Router::new(), |router, routes| router.merge(routes()));
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
            history: options.history.clone(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            warm: warm_up(&jobs, options.warm_up),
            draining: Arc::clone(&options.draining),
            jobs,
            pooling: options.pooling,
            may_change: options.api_key.is_some() || options.keys.is_some() || options.runtime_lora.is_some(),
            lora_dir: options.runtime_lora.as_deref().map(Arc::from),
        })
}

/// Runs a model once on a thread of its own; true when that is over.
fn warm_up(jobs: &Jobs, wanted: bool) -> Arc<AtomicBool> {
    let Some((model, _)) = jobs.text().ok().filter(|_| wanted) else {
        return Arc::new(AtomicBool::new(true));
    };
    let warm = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&warm);
    let run = move || {
        // Every weight, for one token.
        let ran = catch_unwind(AssertUnwindSafe(|| {
            let mut session = Session::new(Arc::clone(&model), 1)?;
            let request = LogitsRequest::Last;
            step(&mut [SequenceInput { session: &mut session, ids: &[0], request }])
        }));
        match ran {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => log::warn!("the model cannot be warmed up: {error}"),
            Err(_) => log::warn!("the model cannot be warmed up: it panicked"),
        }
        done.store(true, Ordering::Relaxed);
    };
    // Without a thread for it there is no warm-up.
    if std::thread::Builder::new().name("tritforge-warm-up".to_string()).spawn(run).is_err() {
        warm.store(true, Ordering::Relaxed);
    }
    warm
}

/// A body's JSON.
pub(crate) fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, ApiError> {
    let invalid = |message: String| ApiError::Invalid { message, param: None };
    let body = body.map_err(|e| invalid(e.body_text()))?;
    serde_json::from_slice(&body).map_err(|e| invalid(format!("the body is not a valid request: {e}")))
}
