//! The HTTP service: a model behind OpenAI's completions and chat endpoints.
//!
//! * `POST /v1/completions`, `POST /v1/chat/completions`: whole or streamed (server-sent events), with usage.
//! * `GET /v1/models`, `GET /health`.
//! * Low-rank adapters, several at once, on each request its own ([`Adapters`]): `"model": "NAME"` and, where
//!   [`ServeOptions::runtime_lora`] allows it, `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`, as in vLLM;
//!   `GET` and `POST /lora-adapters` and a request's `"lora": [{"id": 0, "scale": 0.5}]`, as in llama.cpp's server.
//!
//! A bounded number of generations run at once and a bounded number wait; beyond that a request is told to come back (429).
//! Each has a time limit, and one whose client is gone stops at its next token. The engine stands behind one function
//! ([`Engine`]), so that the service can be tested without a model.
//!
//! ```no_run
//! use std::sync::Arc;
//! use tritforge_infer::Model;
//! use tritforge_serve::{Engine, ServeOptions, run_blocking};
//!
//! let model = Arc::new(Model::open("model.gguf".as_ref())?);
//! run_blocking(Engine::of(&model)?, &ServeOptions::default(), |address| println!("http://{address}"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod adapters;
mod api;
mod engine;
mod error;
mod jobs;
mod lora_routes;
mod routes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use adapters::{AdapterError, Adapters, NamedAdapter};
pub use engine::{Engine, Job, JobError, OnText, Outcome, Prompt};
pub use error::ServeError;
pub use routes::router;

/// How to serve.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Generations that run at once.
    pub concurrency: usize,
    /// Requests that may wait for their turn.
    pub queue: usize,
    /// Time that a request may take, waiting included.
    pub timeout: Duration,
    /// Bytes of a request's body at most.
    pub max_body: usize,
    /// The directory whose adapters may be loaded while the service runs; none if that is not allowed.
    pub runtime_lora: Option<PathBuf>,
}

impl Default for ServeOptions {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            concurrency: 2,
            queue: 32,
            timeout: Duration::from_secs(120),
            max_body: 1 << 20,
            runtime_lora: None,
        }
    }
}

/// Resolves at Ctrl-C or SIGTERM. Without a handler either ends the process at once, which is all that is left to do.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Serves until Ctrl-C or SIGTERM; then running requests are finished. `ready` hears the address once connections are accepted.
///
/// # Errors
/// If the address cannot be bound or the runtime cannot start.
pub fn run_blocking(
    engine: Engine,
    options: &ServeOptions,
    ready: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        let bind = |source| ServeError::Bind { address: options.address, source };
        let listener = tokio::net::TcpListener::bind(options.address).await.map_err(bind)?;
        ready(listener.local_addr().map_err(bind)?);
        axum::serve(listener, router(engine, options))
            .with_graceful_shutdown(stop_signal())
            .await
            .map_err(ServeError::Runtime)
    })
}
