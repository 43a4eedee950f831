//! `GET /` and `GET /dashboard`: the page, whose files are in the binary (`page/` beside `src/`).
//!
//! The files are the same for everybody and need no key; what they ask of the service does. They load nothing from
//! elsewhere, and the policy that comes with them forbids it: no script but these files, no HTML from strings.

use std::sync::LazyLock;

use axum::Router;
use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

use super::Service;
use crate::error::ApiError;

/// The paths, as requests are matched with them.
pub(crate) const PATHS: [&str; 3] = ["/", "/dashboard", "/page/{file}"];

/// What the page may do (Content Security Policy 3, Trusted Types).
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file with its media type.
struct File {
    name: &'static str,
    media_type: &'static str,
    text: &'static str,
}

macro_rules! files {
    ($($name:literal: $media_type:expr),* $(,)?) => {
        &[$(File { name: $name, media_type: $media_type, text: include_str!(concat!("../../page/", $name)) }),*]
    };
}

/// All files. The first two are those of `/` and `/dashboard`.
static FILES: &[File] = files![
    "index.html": HTML,
    "dashboard.html": HTML,
    "style.css": CSS,
    "chat.css": CSS,
    "dashboard.css": CSS,
    "api.js": SCRIPT,
    "chart.js": SCRIPT,
    "chat.js": SCRIPT,
    "conversations.js": SCRIPT,
    "dashboard.js": SCRIPT,
    "inline.js": SCRIPT,
    "markdown.js": SCRIPT,
    "message.js": SCRIPT,
    "prometheus.js": SCRIPT,
    "settings.js": SCRIPT,
    "theme.js": SCRIPT,
    "icon.svg": "image/svg+xml",
];

/// The files' entity tags, in their order.
static TAGS: LazyLock<Vec<HeaderValue>> = LazyLock::new(|| {
    let tag = |file: &File| {
        let hash = Sha256::digest(file.text.as_bytes());
        let digits: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        HeaderValue::from_str(&format!("\"{digits}\"")).expect("hexadecimal digits in quotes")
    };
    FILES.iter().map(tag).collect()
});

/// The page's endpoints.
pub(crate) fn routes() -> Router<Service> {
    Router::new()
        .route(PATHS[0], get(async |headers: HeaderMap| answer(0, &headers)))
        .route(PATHS[1], get(async |headers: HeaderMap| answer(1, &headers)))
        .route(PATHS[2], get(file))
}

async fn file(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Result<Response, ApiError> {
    let found = name.ok().and_then(|Path(name)| FILES.iter().skip(2).position(|file| file.name == name));
    let message = || "the page has no such file".to_string();
    let at = found.ok_or_else(|| ApiError::NotFound {
        message: message(),
        param: None,
        code: Some("not_found"),
    })?;
    Ok(answer(at + 2, &headers))
}

/// A file, or that the client has it already.
fn answer(at: usize, headers: &HeaderMap) -> Response {
    let (file, tag) = (&FILES[at], &TAGS[at]);
    let fixed: [(HeaderName, HeaderValue); 7] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.media_type)),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, tag.clone()),
    ];
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let same = |value: &str| value.trim().trim_start_matches("W/").as_bytes() == tag.as_bytes();
    if known.flat_map(|list| list.split(',')).any(|value| value.trim() == "*" || same(value)) {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    (fixed, file.text).into_response()
}
