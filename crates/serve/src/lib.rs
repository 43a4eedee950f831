//! The HTTP service: a model behind OpenAI's completions and chat endpoints.
//!
//! * `POST /v1/completions`, `POST /v1/chat/completions`: whole or streamed (server-sent events), with usage.
//! * `POST /v1/generate/batch`: several of these in one request; `POST /v1/embeddings`: vectors of texts.
//! * `GET /openapi.json`: all of it described for programs.
//! * `GET /v1/models`, `GET /v1/models/{name}`; `GET /health`, `GET /ready`, `GET /metrics`, `GET /v1/stats`.
//! * `POST /tokenize`, `/detokenize`, `/apply-template`, as in llama.cpp's server and vLLM.
//! * `GET /`, `GET /dashboard`: a page to chat with the model, and one with charts of the metrics; both are in the binary.
//! * Low-rank adapters, several at once, on each request its own ([`Adapters`]): `"model": "NAME"` and, where
//!   [`ServeOptions::runtime_lora`] allows it, `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`, as
//!   in vLLM; `GET` and `POST /lora-adapters` and a request's `"lora": [{"id": 0, "scale": 0.5}]`, as in
//!   llama.cpp's server.
//!
//! A bounded number of generations run at once and a bounded number wait; beyond that a request is told to
//! come back (429). Each has a time limit, and one whose client is gone stops at its next token. Those that
//! run share each pass over the weights ([`tritforge_infer::Scheduler`]), and a prompt that begins like one
//! before goes on from its keys and values. The engine stands behind one function ([`Engine`]), so that the
//! service can be tested without a model.
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

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod access_log;
mod adapters;
mod alerts;
mod answer;
mod body;
mod completion_jobs;
mod connection;
mod engine;
mod error;
mod filters;
mod guard;
mod history;
mod jobs;
mod keys;
mod listen;
mod metrics;
mod openapi;
mod prompt_limit;
mod rate_limit;
mod record;
mod reload;
pub mod request;
mod response_cache;
mod routes;
mod tls;
mod tool_calls;
mod webhook;
mod worker;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tritforge_infer::Pooling;

pub use access_log::AccessLog;
pub use adapters::{AdapterError, Adapters, NamedAdapter};
pub use alerts::Alerts;
pub use engine::{Engine, Job, JobError, OnText, Outcome, Piece, Prompt, TokenLogprob};
pub use error::ServeError;
pub use filters::Filters;
pub use guard::MetricsAccess;
pub use history::{History, HistoryError};
pub use keys::{Keys, Role, key_entry};
pub use listen::serve;
pub use rate_limit::Limits;
pub use reload::FileError;
pub use routes::router;
pub use tls::{Tls, TlsError};
pub use webhook::Webhook;
pub use worker::KvOptions;

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
    /// Bytes of bodies that are held at once, over all connections; [`Self::max_body`] if that is more.
    pub body_memory: usize,
    /// Connections that may be open; fewer if the process may not open so many files.
    pub max_connections: usize,
    /// Time that a request's head may take, and an idle connection between two requests.
    pub header_timeout: Duration,
    /// Time that a request's body may take.
    pub body_timeout: Duration,
    /// Time that an answer may wait for its client to read.
    pub write_timeout: Duration,
    /// Time that running requests have once the service is told to end.
    pub shutdown_timeout: Duration,
    /// Time after it is told to end for which the service goes on accepting connections while `/ready` says
    /// that it drains.
    pub drain_delay: Duration,
    /// Whether the model runs once before `/ready` says that it is ready, so that the first request does not wait for its
    /// weights to be read.
    pub warm_up: bool,
    /// Whether the service has been told to end.
    pub draining: Arc<AtomicBool>,
    /// Origins whose pages may use the service beside those of this machine, as `https://app.example`; `*`
    /// for any.
    pub allow_origins: Vec<String>,
    /// Names that a service on a loopback address answers to beside those of this machine; `*` for any.
    pub allow_hosts: Vec<String>,
    /// The key that every request but `/health` and `/ready` must have, if any; it is an admin's.
    pub api_key: Option<String>,
    /// Keys of which every such request must have one, each with its role and limits.
    pub keys: Option<Arc<Keys>>,
    /// Limits of keys without limits of their own and, where there are no keys, of each client's address.
    pub rate_limit: Limits,
    /// Who may read the metrics, where there are keys.
    pub metrics_access: MetricsAccess,
    /// Bytes of answers that are kept for requests that must get the same ones; 0 for none.
    pub response_cache: usize,
    /// What connections are encrypted with; plain HTTP without.
    pub tls: Option<Arc<Tls>>,
    /// Snapshots of the last day, with alerts. With one, [`router`] needs a runtime around it.
    pub history: Option<Arc<History>>,
    /// Filters of prompts and answers.
    pub filters: Option<Arc<Filters>>,
    /// Whether there is a page to chat with the model (`/`) and a dashboard (`/dashboard`).
    pub page: bool,
    /// Where requests are written down that are over.
    pub access_log: Option<Arc<AccessLog>>,
    /// Tokens at most that are proposed at once from what a text has said before; 0 for none. Answers do not depend on
    /// it.
    pub prompt_lookup: usize,
    /// How `/v1/embeddings` makes one vector of a text's tokens.
    pub pooling: Pooling,
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
            body_memory: 32 << 20,
            max_connections: 512,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            shutdown_timeout: Duration::from_secs(5),
            drain_delay: Duration::ZERO,
            warm_up: false,
            draining: Arc::new(AtomicBool::new(false)),
            allow_origins: Vec::new(),
            allow_hosts: Vec::new(),
            api_key: None,
            keys: None,
            rate_limit: Limits::default(),
            metrics_access: MetricsAccess::default(),
            response_cache: 0,
            tls: None,
            history: None,
            filters: None,
            page: true,
            access_log: None,
            prompt_lookup: 0,
            pooling: Pooling::default(),
            runtime_lora: None,
        }
    }
}

/// Resolves at Ctrl-C or SIGTERM. Without a handler either ends the process at once, which is all that is
/// left to do.
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

/// Serves until Ctrl-C or SIGTERM; then running requests have [`ServeOptions::shutdown_timeout`] to end. A
/// second signal ends that time at once. `ready` hears the address once connections are accepted.
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
    let served = runtime.block_on(async {
        let bind = |source| ServeError::Bind { address: options.address, source };
        let listener = tokio::net::TcpListener::bind(options.address).await.map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let (stop, mut stopped) = tokio::sync::watch::channel(false);
        let second = tokio::spawn(async move {
            stop_signal().await;
            let _ = stop.send(true);
            stop_signal().await;
        });
        if let Some(keys) = &options.keys {
            tokio::spawn(Arc::clone(keys).watch());
        }
        if let Some(tls) = &options.tls {
            tokio::spawn(Arc::clone(tls).watch());
        }
        if let Some(filters) = &options.filters {
            tokio::spawn(Arc::clone(filters).watch());
        }
        ready(address);
        let first = async move {
            let _ = stopped.wait_for(|stopped| *stopped).await;
        };
        tokio::select! {
            () = serve(listener, router(engine, options), options, first) => {}
            _ = second => {}
        }
        Ok(())
    });
    if let Some(history) = &options.history {
        history.end();
    }
    // Generations that outlive the deadline end with the process; they are not waited for.
    runtime.shutdown_background();
    served
}
