//! Bodies of requests: read whole before a handler sees them, within a time, a length, and a sum over all
//! connections.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures::StreamExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ServeOptions;
use crate::error::ApiError;

/// Bounds on bodies.
#[derive(Debug)]
pub(crate) struct BodyBudget {
    longest: usize,
    timeout: Duration,
    /// One permit for each [`UNIT`] that bodies take.
    room: Arc<Semaphore>,
}

/// Bytes a permit.
const UNIT: usize = 1024;

impl BodyBudget {
    pub(crate) fn new(options: &ServeOptions) -> Arc<Self> {
        let units = options.body_memory.max(options.max_body).div_ceil(UNIT).clamp(1, Semaphore::MAX_PERMITS);
        Arc::new(Self {
            longest: options.max_body,
            timeout: options.body_timeout,
            room: Arc::new(Semaphore::new(units)),
        })
    }

    /// Room for so many more bytes.
    fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, ApiError> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).map_err(|_| ApiError::TooLarge(self.longest))?;
        Arc::clone(&self.room).try_acquire_many_owned(units).map_err(|_| ApiError::Unavailable)
    }

    /// A body whole. What it holds is paid for as it arrives: a length that is only promised takes no room
    /// from others.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), ApiError> {
        let promised =
            headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if promised.is_some_and(|length: u64| length > self.longest as u64) {
            return Err(ApiError::TooLarge(self.longest));
        }
        let mut paid = self.reserve(0)?;
        let mut whole = Vec::new();
        let mut frames = body.into_data_stream();
        while let Some(frame) = frames.next().await {
            let frame = frame.map_err(|e| {
                let message = format!("the body cannot be read: {e}");
                ApiError::Invalid { message, param: None }
            })?;
            let needed = whole.len() + frame.len();
            if needed > self.longest {
                return Err(ApiError::TooLarge(self.longest));
            }
            if needed > whole.capacity() {
                let capacity = needed.max(2 * whole.capacity()).min(self.longest);
                paid.merge(self.reserve(capacity - whole.capacity())?);
                whole.reserve_exact(capacity - whole.len());
            }
            whole.extend_from_slice(&frame);
        }
        Ok((whole.into(), paid))
    }
}

/// Whether a POST says that it is JSON. One that says nothing is refused as well, as by vLLM: a page may send
/// it anywhere without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

/// Reads the body of a request and hands it on; its room is given back when the answer begins.
pub(crate) async fn read(State(bodies): State<Arc<BodyBudget>>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if parts.method == Method::POST && !is_json(&parts.headers) {
        return closing(&ApiError::MediaType);
    }
    let read = tokio::time::timeout(bodies.timeout, bodies.read(&parts.headers, body));
    let (bytes, _paid) = match read.await {
        Ok(Ok(read)) => read,
        Ok(Err(error)) => return closing(&error),
        Err(_) => return closing(&ApiError::SlowBody),
    };
    next.run(Request::from_parts(parts, Body::from(bytes))).await
}

/// An answer to a request whose body is not read to its end: the connection cannot go on.
fn closing(error: &ApiError) -> Response {
    let mut response = error.clone().into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
