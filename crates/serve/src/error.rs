//! What can keep the service from running, and what a request is told in OpenAI's shape.

use std::net::SocketAddr;

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// The service cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be bound.
    #[error("{address}: cannot listen: {source}; choose another with --host and --port")]
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
    /// What the request names does not exist.
    NotFound { message: String, param: Option<&'static str>, code: Option<&'static str> },
    /// The operator has not allowed it.
    Forbidden(String),
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
        let (kind, message, param) = match self {
            ApiError::Invalid { message, param } => ("invalid_request_error", message.clone(), *param),
            ApiError::NotFound { message, param, code: which } => {
                code = *which;
                ("invalid_request_error", message.clone(), *param)
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

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = match &self {
            ApiError::Invalid { .. } => StatusCode::BAD_REQUEST,
            ApiError::NotFound { .. } => StatusCode::NOT_FOUND,
            ApiError::Forbidden(_) => StatusCode::FORBIDDEN,
            ApiError::Busy => StatusCode::TOO_MANY_REQUESTS,
            ApiError::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ApiError::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (status, Json(self.body())).into_response();
        if self == ApiError::Busy {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
