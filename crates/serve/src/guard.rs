//! Who may ask: the request's Host, its Origin, its key and the limits of its client are looked at before anything else.
//!
//! A page of another site can make a browser send requests to this machine. Its `Origin` gives it away, and
//! for a page whose name was made to resolve to this machine (DNS rebinding) the `Host`.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use crate::ServeOptions;
use crate::error::ApiError;
use crate::keys::{self, Key, Keys, Role};
use crate::rate_limit::{Limiter, Limits};
use crate::record::{REQUEST_ID, Record};
use crate::routes::health::is_deep;
use crate::routes::page;

/// Who may ask.
#[derive(Debug)]
pub(crate) struct Guard {
    origins: Vec<String>,
    /// Names that the service answers to; any if it listens to other machines.
    hosts: Option<Vec<String>>,
    /// The one key of the service, which may do everything.
    key: Option<Key>,
    /// Those of a file.
    keys: Option<Arc<Keys>>,
    /// Limits of keys that have none of their own, and of addresses where there are no keys.
    limits: Limits,
    limiter: Arc<Limiter>,
    metrics: MetricsAccess,
}

/// Who may ask for a path, where there are keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Access {
    /// Everybody.
    Open,
    /// Whoever has a key.
    User,
    /// Whoever has the key of an admin.
    Admin,
}

/// Who may read the metrics, where there are keys.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Whoever has the key of an admin.
    #[default]
    Admin,
    /// Whoever has a key.
    User,
    /// Everybody.
    Public,
}

/// The address that a request came from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientAddress(pub(crate) IpAddr);

impl Guard {
    pub(crate) fn new(options: &ServeOptions) -> Arc<Self> {
        Arc::new(Self {
            origins: options.allow_origins.clone(),
            hosts: options.address.ip().is_loopback().then(|| options.allow_hosts.clone()),
            key: options.api_key.as_deref().map(Key::only),
            keys: options.keys.clone(),
            limits: options.rate_limit,
            limiter: Arc::new(Limiter::new()),
            metrics: options.metrics_access,
        })
    }

    fn allows_origin(&self, origin: &str) -> bool {
        let local = ["http://", "https://"]
            .iter()
            .find_map(|scheme| origin.strip_prefix(scheme))
            .is_some_and(|authority| is_local(host_of(authority)));
        local || self.origins.iter().any(|o| o == "*" || o.trim_end_matches('/').eq_ignore_ascii_case(origin))
    }

    fn check_page(&self, method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
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
                if !self.allows_origin(origin) && !is_own_address(origin, headers) {
                    let message = format!(
                        "the origin {origin:?} is not allowed: start the service with --allow-origin {origin}"
                    );
                    return Err(ApiError::Forbidden(message));
                }
            } else if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site") {
                return Err(ApiError::Forbidden("cross-site request without an Origin header".to_string()));
            }
        }
        Ok(())
    }

    /// Lets a request in by its key, its role and its limits, and takes note of whose it is.
    fn admit(&self, request: &Request) -> Result<(), ApiError> {
        let (method, uri, headers) = (request.method(), request.uri(), request.headers());
        self.check_page(method, headers)?;
        let record = request.extensions().get::<Arc<Record>>();
        let access = self.access(method, uri, record.map_or("other", |record| record.endpoint.as_str()));
        if access == Access::Open {
            return Ok(());
        }
        let file = self.keys.as_ref().map(|keys| keys.current());
        let keys = self.key.iter().chain(file.iter().flat_map(|keys| keys.iter()));
        let (client, limits) = if self.key.is_some() || file.is_some() {
            let key = keys::find(keys, bearer(headers)).ok_or(ApiError::Unauthorized)?;
            if let Some(record) = record {
                let _ = record.key.set(key.name.clone());
            }
            if access == Access::Admin && key.role != Role::Admin {
                let message = format!("{method} {} needs the key of an admin", uri.path());
                return Err(ApiError::Forbidden(message));
            }
            (Some(self.limiter.key(&key.name)), key.limits.or(self.limits))
        } else {
            let address = request.extensions().get::<ClientAddress>();
            (address.map(|address| self.limiter.address(address.0)), self.limits)
        };
        // What lists or shows something is not counted.
        let costs = method == Method::POST || is_deep(uri);
        if let (Some(client), true) = (client, costs && limits != Limits::default()) {
            self.limiter.admit(client, limits).map_err(ApiError::RateLimited)?;
            if let Some(record) = record {
                let _ = record.client.set((Arc::clone(&self.limiter), client));
            }
        }
        Ok(())
    }

    /// Who may ask for a path.
    fn access(&self, method: &Method, uri: &Uri, endpoint: &str) -> Access {
        match endpoint {
            "/ready" => Access::Open,
            // Its files are no secret; what it asks for needs a key.
            endpoint if page::PATHS.contains(&endpoint) => Access::Open,
            "/health" if !is_deep(uri) => Access::Open,
            "/metrics" | "/v1/stats" => match self.metrics {
                MetricsAccess::Public => Access::Open,
                MetricsAccess::User => Access::User,
                MetricsAccess::Admin => Access::Admin,
            },
            "/lora-adapters" | "/v1/load_lora_adapter" | "/v1/unload_lora_adapter"
                if method == Method::POST =>
            {
                Access::Admin
            }
            _ => Access::User,
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

/// The host of `host:port`, in which an IPv6 address has brackets.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !host.is_empty() => host,
        _ => authority,
    }
}

/// Whether a page came from this service itself, asked for by its IP address: unlike a name, that cannot be made to
/// resolve to another machine.
fn is_own_address(origin: &str, headers: &HeaderMap) -> bool {
    let own = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let host = host_of(own);
    let ip = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(host);
    let authority = ["http://", "https://"].iter().find_map(|scheme| origin.strip_prefix(scheme));
    ip.parse::<IpAddr>().is_ok() && authority == Some(own)
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
    match guard.admit(&request) {
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
    fn a_page_of_the_service_itself_is_known_by_an_address_alone() {
        for (origin, host, own) in [
            ("http://192.168.1.5:8080", "192.168.1.5:8080", true),
            ("https://192.168.1.5", "192.168.1.5", true),
            ("http://[fd00::1]:8080", "[fd00::1]:8080", true),
            // A name may be made to resolve to this machine.
            ("http://evil.example:8080", "evil.example:8080", false),
            ("http://192.168.1.5:8080", "192.168.1.5", false),
            ("http://192.168.1.6:8080", "192.168.1.5:8080", false),
            ("192.168.1.5:8080", "192.168.1.5:8080", false),
            ("null", "", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static(host));
            assert_eq!(is_own_address(origin, &headers), own, "{origin} {host}");
        }
        assert!(!is_own_address("http://192.168.1.5", &HeaderMap::new()));
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
