//! One request from its arrival to the last byte of its answer: its id, and what is counted when it is over.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use crate::metrics::Metrics;

/// The header that names a request.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Bytes of a client's request id at most.
const LONGEST_ID: usize = 128;

/// What every request is recorded to.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) metrics: Arc<Metrics>,
    /// Distinguishes requests of the same nanosecond.
    next: AtomicU64,
}

impl Recorder {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { metrics, next: AtomicU64::new(0) })
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
    endpoint: String,
    /// 0 as long as there is none.
    status: AtomicU16,
    /// Whether the client got the whole answer.
    complete: AtomicBool,
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
        endpoint,
        status: AtomicU16::new(0),
        complete: AtomicBool::new(false),
    });
    request.extensions_mut().insert(Arc::clone(&record));
    let mut response = next.run(request).await;
    record.status.store(response.status().as_u16(), Ordering::Relaxed);
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
