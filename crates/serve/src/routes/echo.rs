//! An endpoint that only tests have. This file and its line in [`super::ENDPOINTS`] are all that it takes.

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{Request, StatusCode, header};
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Service, parse};
use crate::error::ApiError;
use crate::openapi::{Body as Described, JSON, Operation};
use crate::{Engine, JobError, ServeOptions, router};

pub(super) const OPERATIONS: &[Operation] =
    &[Operation::post("/v1/echo", "tests", "Say it again.", Described::Any, &[(JSON, Described::Any)])];

pub(super) fn routes() -> Router<Service> {
    Router::new().route("/v1/echo", post(echo))
}

async fn echo(
    State(service): State<Service>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let body: Value = parse(body)?;
    Ok(Json(json!({ "model": service.jobs.model(), "body": body })))
}

async fn json(response: Response) -> Value {
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn one_file_and_one_line_make_an_endpoint() {
    let engine = Engine::new("nothing", |_, _| Err(JobError::Failed("not asked".to_string())));
    let options = ServeOptions { api_key: Some("key".to_string()), ..ServeOptions::default() };
    let app = router(engine, &options);
    // Key, media type and length of a body are looked at before it, as before every endpoint.
    for (key, media, text, status) in [
        ("key", "application/json", r#"{"a": 1}"#, StatusCode::OK),
        ("other", "application/json", r#"{"a": 1}"#, StatusCode::UNAUTHORIZED),
        ("key", "text/plain", r#"{"a": 1}"#, StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("key", "application/json", "{", StatusCode::BAD_REQUEST),
    ] {
        let request = Request::post("/v1/echo")
            .header(header::AUTHORIZATION, format!("Bearer {key}"))
            .header(header::CONTENT_TYPE, media)
            .body(Body::from(text));
        let response = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(response.status(), status, "{key} {media} {text}");
        if status == StatusCode::OK {
            assert_eq!(json(response).await, json!({ "model": "nothing", "body": { "a": 1 } }));
        }
    }
    let request = Request::get("/openapi.json").header(header::AUTHORIZATION, "Bearer key");
    let described = json(app.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await;
    assert_eq!(described["paths"]["/v1/echo"]["post"]["summary"], "Say it again.");
}
