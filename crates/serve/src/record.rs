//! One request from its arrival to the last byte of its answer: its id, and what is counted when it is over.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::access_log::{AccessLog, Line};
use crate::error::ErrorCode;
use crate::metrics::Metrics;
use crate::rate_limit::{ClientId, Limiter};

/// The header that names a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a client's request id at most.
const LONGEST_ID: usize = 128;

/// What every request is recorded to.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) metrics: Arc<Metrics>,
    log: Option<Arc<AccessLog>>,
    /// Distinguishes requests of the same nanosecond.
    next: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(metrics: Arc<Metrics>, log: Option<Arc<AccessLog>>) -> Arc<Self> {
        Arc::new(Self { metrics, log, next: AtomicU64::new(0) })
    }

    /// The client's id if it is one that can be written anywhere, or a new one.
    fn id(&self, headers: &HeaderMap) -> String {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:/+=".contains(&b);
        let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
        match given {
            Some(id) if (1..=LONGEST_ID).contains(&id.len()) && id.bytes().all(plain) => id.to_string(),
            _ => {
                let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos() as u64;
                format!("req-{now:016x}{:04x}", self.next.fetch_add(1, Ordering::Relaxed) & 0xffff)
            }
        }
    }
}

/// One request. It is over when nobody holds this any more: neither its answer nor its generation.
#[derive(Debug)]
pub(crate) struct Record {
    recorder: Arc<Recorder>,
    pub(crate) arrived: Instant,
    id: String,
    method: Method,
    pub(crate) endpoint: String,
    /// The name of the client's key.
    pub(crate) key: OnceLock<String>,
    /// Whose limits its tokens count towards.
    pub(crate) client: OnceLock<(Arc<Limiter>, ClientId)>,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    /// Whether the answer is one that was kept.
    pub(crate) cached: AtomicBool,
    /// Seconds in the queue.
    queued: OnceLock<f64>,
    /// Seconds from the arrival to the first text.
    first_text: OnceLock<f64>,
    /// The code of the error, or of the filter that ended an answer.
    code: OnceLock<String>,
    /// 0 as long as there is none.
    status: AtomicU16,
    /// Whether the client got the whole answer.
    complete: AtomicBool,
}

impl Record {
    /// Takes note that the request has its turn, after so many seconds.
    pub(crate) fn queued(&self, seconds: f64) {
        let _ = self.queued.set(seconds);
    }

    /// Takes note of the first text.
    pub(crate) fn text(&self) {
        self.first_text.get_or_init(|| self.arrived.elapsed().as_secs_f64());
    }

    /// Takes note of what an error, or a filter, calls itself.
    pub(crate) fn code(&self, code: &str) {
        let _ = self.code.set(code.to_string());
    }

    /// Counts tokens.
    pub(crate) fn tokens(&self, prompt: usize, completion: usize) {
        self.prompt_tokens.fetch_add(prompt as u64, Ordering::Relaxed);
        self.completion_tokens.fetch_add(completion as u64, Ordering::Relaxed);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let status = self.status.load(Ordering::Relaxed);
        // A client that left before there was an answer: nginx's code for it.
        let status = if status == 0 { 499 } else { status };
        self.recorder
            .metrics
            .http_requests
            .with_label_values(&[self.endpoint.as_str(), status.to_string().as_str()])
            .inc();
        let tokens = [&self.prompt_tokens, &self.completion_tokens].map(|n| n.load(Ordering::Relaxed));
        if let Some((limiter, client)) = self.client.get()
            && tokens != [0, 0]
        {
            limiter.charge(*client, tokens[0] + tokens[1]);
        }
        if let Some(log) = &self.recorder.log {
            log.write(&Line {
                time: std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64(),
                request_id: &self.id,
                method: self.method.as_str(),
                endpoint: &self.endpoint,
                status,
                code: self.code.get().map(String::as_str),
                complete: self.complete.load(Ordering::Relaxed),
                key: self.key.get().map(String::as_str),
                prompt_tokens: tokens[0],
                completion_tokens: tokens[1],
                cached: self.cached.load(Ordering::Relaxed),
                queue_seconds: self.queued.get().copied(),
                first_text_seconds: self.first_text.get().copied(),
                seconds: self.arrived.elapsed().as_secs_f64(),
            });
        }
    }
}

/// Follows a request; the outermost layer.
pub(crate) async fn follow(
    State(recorder): State<Arc<Recorder>>,
    mut request: Request,
    next: Next,
) -> Response {
    // Paths that nobody serves share a label: there are as many as clients can think of.
    let endpoint = request.extensions().get::<MatchedPath>().map_or("other", MatchedPath::as_str).to_string();
    let id = recorder.id(request.headers());
    let header = HeaderValue::from_str(&id);
    let record = Arc::new(Record {
        recorder,
        arrived: Instant::now(),
        id,
        method: request.method().clone(),
        endpoint,
        key: OnceLock::new(),
        client: OnceLock::new(),
        prompt_tokens: AtomicU64::new(0),
        completion_tokens: AtomicU64::new(0),
        cached: AtomicBool::new(false),
        queued: OnceLock::new(),
        first_text: OnceLock::new(),
        code: OnceLock::new(),
        status: AtomicU16::new(0),
        complete: AtomicBool::new(false),
    });
    request.extensions_mut().insert(Arc::clone(&record));
    let mut response = next.run(request).await;
    record.status.store(response.status().as_u16(), Ordering::Relaxed);
    if let Some(ErrorCode(code)) = response.extensions().get() {
        record.code(code);
    }
    if let Ok(id) = header {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.map(|inner| Body::new(Followed { inner, record }))
}

/// A body that knows whether it was read to its end.
struct Followed {
    inner: Body,
    record: Arc<Record>,
}

impl HttpBody for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(cx);
        if matches!(polled, Poll::Ready(None)) || self.inner.is_end_stream() {
            self.record.complete.store(true, Ordering::Relaxed);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
