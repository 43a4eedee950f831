//! What can keep the service from running, and what a request is told in OpenAI's shape.

use std::net::SocketAddr;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tritforge_support::counted;

use crate::engine::JobError;
use crate::rate_limit::Exceeded;
use crate::request::RequestError;

/// The service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("{address}: cannot listen: {source}; choose another address with --host and --port")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The runtime failed.
    #[error("the HTTP runtime failed: {0}")]
    Runtime(std::io::Error),
}

/// A request cannot be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ApiError {
    /// The request is wrong; `param` names the field.
    Invalid { message: String, param: Option<&'static str> },
    /// A field is wrong.
    Field(RequestError),
    /// What the request names does not exist.
    NotFound { message: String, param: Option<&'static str>, code: Option<&'static str> },
    /// The operator has not allowed it.
    Forbidden(String),
    /// The prompt does not fit the context; `param` is the field that it came in.
    ContextLength { message: String, param: &'static str },
    /// A content filter blocks the prompt, which came in this field.
    ContentFiltered(&'static str),
    /// The service has a key, and the request has another or none.
    Unauthorized,
    /// The client has reached a limit on requests or tokens.
    RateLimited(Exceeded),
    /// The body is longer than so many bytes.
    TooLarge(usize),
    /// The body is not declared to be JSON.
    MediaType,
    /// The body did not come in time.
    SlowBody,
    /// The path has no such method.
    Method,
    /// Bodies of other requests take all the room that there is.
    Unavailable,
    /// Too many requests are waiting.
    Busy,
    /// The time limit has passed.
    Timeout,
    /// The engine failed.
    Internal(String),
}

impl ApiError {
    /// The body, in the shape of OpenAI's errors.
    pub(crate) fn body(&self) -> serde_json::Value {
        let mut code = None;
        let (kind, message, param): (_, _, Option<&str>) = match self {
            ApiError::Field(error) => {
                ("invalid_request_error", error.message.clone(), error.param.as_deref())
            }
            ApiError::Invalid { message, param } => ("invalid_request_error", message.clone(), *param),
            ApiError::NotFound { message, param, code: which } => {
                code = *which;
                ("invalid_request_error", message.clone(), *param)
            }
            ApiError::ContextLength { message, param } => {
                code = Some("context_length_exceeded");
                ("invalid_request_error", message.clone(), Some(*param))
            }
            ApiError::ContentFiltered(param) => {
                code = Some("CONTENT_FILTERED");
                (
                    "invalid_request_error",
                    "a content filter of this service refuses the prompt".to_string(),
                    Some(*param),
                )
            }
            ApiError::Unauthorized => {
                code = Some("invalid_api_key");
                (
                    "authentication_error",
                    "missing or wrong API key: expected the header Authorization: Bearer KEY".to_string(),
                    None,
                )
            }
            ApiError::RateLimited(Exceeded { what, limit, retry_after }) => {
                code = Some("RATE_LIMIT_EXCEEDED");
                (
                    "rate_limit_error",
                    format!("the limit of {limit} {what} a minute is reached: try again in {retry_after} s"),
                    None,
                )
            }
            ApiError::TooLarge(longest) => {
                code = Some("request_too_large");
                (
                    "invalid_request_error",
                    format!("the body is longer than {} (serve --max-body)", counted(*longest, "byte")),
                    None,
                )
            }
            ApiError::MediaType => {
                code = Some("unsupported_media_type");
                ("invalid_request_error", "expected Content-Type: application/json".to_string(), None)
            }
            ApiError::SlowBody => {
                code = Some("request_timeout");
                ("timeout_error", "the body did not arrive in time".to_string(), None)
            }
            ApiError::Method => {
                code = Some("method_not_allowed");
                (
                    "invalid_request_error",
                    "method not allowed for this path; see the Allow header".to_string(),
                    None,
                )
            }
            ApiError::Unavailable => {
                ("server_error", "too many bodies are being read: try again".to_string(), None)
            }
            ApiError::Forbidden(message) => ("permission_error", message.clone(), None),
            ApiError::Busy => {
                ("rate_limit_error", "too many requests are waiting: try again".to_string(), None)
            }
            ApiError::Timeout => {
                ("timeout_error", "the request took longer than the time limit".to_string(), None)
            }
            ApiError::Internal(message) => ("server_error", message.clone(), None),
        };
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl ApiError {
    /// The status of an answer that is this error.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            ApiError::Invalid { .. } | ApiError::Field(_) => StatusCode::BAD_REQUEST,
            ApiError::ContextLength { .. } | ApiError::ContentFiltered(_) => StatusCode::BAD_REQUEST,
            ApiError::Unauthorized => StatusCode::UNAUTHORIZED,
            ApiError::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            ApiError::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            ApiError::SlowBody => StatusCode::REQUEST_TIMEOUT,
            ApiError::Method => StatusCode::METHOD_NOT_ALLOWED,
            ApiError::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ApiError::NotFound { .. } => StatusCode::NOT_FOUND,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Busy => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// The error of a job whose prompt came in the field `param`.
    pub(crate) fn of_job(error: JobError, param: &'static str) -> Self {
        match error {
            JobError::Invalid(message) => Self::Invalid { message, param: None },
            JobError::Field { param, message } => Self::Field(RequestError::new(param, message)),
            JobError::ContextLength(message) => Self::ContextLength { message, param },
            JobError::Failed(message) => Self::Internal(message),
        }
    }
}

impl From<RequestError> for ApiError {
    fn from(error: RequestError) -> Self {
        ApiError::Field(error)
    }
}

/// The code of an error, beside its answer, for the access log.
#[derive(Debug, Clone)]
pub(crate) struct ErrorCode(pub(crate) String);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = self.body();
        let code = body["error"]["code"].as_str().map(|code| ErrorCode(code.to_string()));
        let mut response = (self.status(), Json(body)).into_response();
        if let Some(code) = code {
            response.extensions_mut().insert(code);
        }
        if matches!(self, ApiError::Busy | ApiError::Unavailable) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if let ApiError::RateLimited(Exceeded { retry_after, .. }) = self {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after));
        }
        if self == ApiError::Unauthorized {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
