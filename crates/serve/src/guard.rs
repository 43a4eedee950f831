//! Who may ask: the request's Host, its Origin and its key are looked at before anything else.
//!
//! A page of another site can make a browser send requests to this machine. Its `Origin` gives it away, and
//! for a page whose name was made to resolve to this machine (DNS rebinding) the `Host`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::ServeOptions;
use crate::error::ApiError;
use crate::record::REQUEST_ID;
use crate::routes::health::is_deep;

/// Who may ask.
#[derive(Debug)]
pub(crate) struct Guard {
    origins: Vec<String>,
    /// Names that the service answers to; any if it listens to other machines.
    hosts: Option<Vec<String>>,
    key: Option<String>,
}

impl Guard {
    pub(crate) fn new(options: &ServeOptions) -> Arc<Self> {
        Arc::new(Self {
            origins: options.allow_origins.clone(),
            hosts: options.address.ip().is_loopback().then(|| options.allow_hosts.clone()),
            key: options.api_key.clone(),
        })
    }

    fn allows_origin(&self, origin: &str) -> bool {
        let local = ["http://", "https://"]
            .iter()
            .find_map(|scheme| origin.strip_prefix(scheme))
            .is_some_and(|authority| is_local(host_of(authority)));
        local || self.origins.iter().any(|o| o == "*" || o.trim_end_matches('/').eq_ignore_ascii_case(origin))
    }

    fn check(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let path = uri.path();
        if let (Some(allowed), Some(host)) = (&self.hosts, headers.get(header::HOST)) {
            let host = host_of(host.to_str().unwrap_or_default());
            if !is_local(host) && !allowed.iter().any(|name| name == "*" || name.eq_ignore_ascii_case(host)) {
                let message =
                    format!("the host {host:?} is not allowed: start the service with --allow-host {host}");
                return Err(ApiError::Forbidden(message));
            }
        }
        if !matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
            // A browser names the page's origin; a program that is no browser sends none.
            if let Some(origin) = headers.get(header::ORIGIN) {
                let origin = origin.to_str().unwrap_or_default();
                if !self.allows_origin(origin) {
                    let message = format!(
                        "the origin {origin:?} is not allowed: start the service with --allow-origin {origin}"
                    );
                    return Err(ApiError::Forbidden(message));
                }
            } else if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
                return Err(ApiError::Forbidden("cross-site request without an Origin header".to_string()));
            }
        }
        let open = path == "/ready" || path == "/health" && !is_deep(uri);
        match &self.key {
            Some(key) if !open && !same(bearer(headers), key) => Err(ApiError::Unauthorized),
            _ => Ok(()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match value.split_once(' ') {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => key.trim(),
        _ => "",
    }
}

/// Whether two keys are equal, in a time that does not tell where they differ.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// The host of `host:port`, in which an IPv6 address has brackets.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

/// Whether a name always means this machine.
fn is_local(host: &str) -> bool {
    let name = host.to_ascii_lowercase();
    let loopback = |ip: &str| ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    name == "localhost"
        || name.strip_suffix(".localhost").is_some_and(|sub| !sub.contains(['/', '@']))
        || loopback(name.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(&name))
}

/// Lets a request through, or refuses it.
pub(crate) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    match guard.check(request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// What the Fetch standard lets pages of allowed origins ask (CORS). Headers are named one by one, since `*`
/// does not stand for `authorization`.
pub(crate) fn cors(guard: &Arc<Guard>) -> CorsLayer {
    let guard = Arc::clone(guard);
    let allowed = move |origin: &HeaderValue, _: &axum::http::request::Parts| {
        origin.to_str().is_ok_and(|origin| guard.allows_origin(origin))
    };
    CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(allowed))
        .allow_methods([Method::GET, Method::POST, Method::OPTIONS])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([REQUEST_ID, header::RETRY_AFTER])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["localhost", "LOCALHOST", "app.localhost", "127.0.0.1", "127.1.2.3", "[::1]"] {
            assert!(is_local(host), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "0.0.0.0",
            "null",
        ] {
            assert!(!is_local(host), "{host}");
        }
        assert_eq!(
            (host_of("a:80"), host_of("[::1]:80"), host_of("[::1]"), host_of("a")),
            ("a", "[::1]", "[::1]", "a")
        );
    }

    #[test]
    fn origins_are_compared_whole() {
        let allow_origins = vec!["https://app.example".to_string()];
        let guard = Guard::new(&ServeOptions { allow_origins, ..ServeOptions::default() });
        for origin in ["https://app.example", "http://localhost:3000", "http://[::1]:80"] {
            assert!(guard.allows_origin(origin), "{origin}");
        }
        for origin in [
            "null",
            "",
            "http://app.example",
            "https://app.example.evil",
            "https://app.example:444",
            "file://localhost",
            "http://evil@localhost",
            "http://localhost@evil.example",
        ] {
            assert!(!guard.allows_origin(origin), "{origin}");
        }
    }
}
