//! The page's files: their headers, who gets them, and that nothing else can be had by their path.

mod common;

use std::collections::BTreeSet;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use tower::ServiceExt as _;
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Outcome, ServeOptions, router};

fn app(options: &ServeOptions) -> Router {
    let engine = Engine::new("page", |_, _| {
        Ok(Outcome { finish: Finish::Eos, prompt_tokens: 1, completion_tokens: 0 })
    });
    router(engine, options)
}

async fn ask(app: &Router, method: Method, path: &str, tag: Option<&str>) -> (StatusCode, HeaderMap, String) {
    let mut request = Request::builder().method(method).uri(path);
    if let Some(tag) = tag {
        request = request.header(header::IF_NONE_MATCH, tag);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 1 << 20).await.unwrap();
    (parts.status, parts.headers, String::from_utf8(bytes.to_vec()).unwrap())
}

/// What a file loads of the page: in quotes, beginning with `page/` or `./`.
fn references(text: &str) -> Vec<String> {
    let quoted = text.split('"').skip(1).step_by(2);
    let paths = quoted.filter_map(|part| part.strip_prefix("page/").or_else(|| part.strip_prefix("./")));
    paths.filter(|name| !name.is_empty()).map(str::to_string).collect()
}

#[tokio::test]
async fn both_pages_and_all_that_they_load_come_with_a_strict_policy() {
    let app = app(&ServeOptions::default());
    let mut waiting = vec!["/".to_string(), "/dashboard".to_string()];
    let mut seen = BTreeSet::new();
    while let Some(path) = waiting.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let (status, headers, text) = ask(&app, Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        let policy = headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        for part in ["default-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
        assert_eq!(headers[header::REFERRER_POLICY], "no-referrer", "{path}");
        let media = headers[header::CONTENT_TYPE].to_str().unwrap();
        let expected = match path.rsplit_once('.').map(|(_, end)| end) {
            None => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some(other) => panic!("{other}"),
        };
        assert_eq!(media, expected, "{path}");
        // Nothing of another machine, and nothing that the policy would stop.
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "style=", "onclick="]
        {
            assert!(!text.contains(forbidden), "{path}: {forbidden}");
        }
        let name_of_svg = text.matches("http://www.w3.org/2000/svg").count();
        assert_eq!(text.matches("://").count(), name_of_svg, "{path} names an address");
        waiting.extend(references(&text).iter().map(|name| format!("/page/{name}")));
    }
    assert!(seen.len() >= 17, "{seen:?}");
    // Every file that there is is one of them.
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/page")).unwrap();
    for file in files {
        let name = file.unwrap().file_name().into_string().unwrap();
        let path = match name.as_str() {
            "index.html" => "/".to_string(),
            "dashboard.html" => "/dashboard".to_string(),
            name => format!("/page/{name}"),
        };
        assert!(seen.contains(&path), "{path} is not loaded by anything");
    }
}

#[tokio::test]
async fn what_a_browser_has_is_not_sent_again() {
    let app = app(&ServeOptions::default());
    let (_, headers, text) = ask(&app, Method::GET, "/page/chat.js", None).await;
    let tag = headers[header::ETAG].to_str().unwrap().to_string();
    assert!(!text.is_empty() && headers[header::CACHE_CONTROL] == "no-cache");
    for known in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_string()] {
        let (status, headers, text) = ask(&app, Method::GET, "/page/chat.js", Some(&known)).await;
        assert_eq!((status, text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{known}");
        assert_eq!(headers[header::ETAG], tag.as_str());
    }
    for other in ["\"other\"", "", &tag[1..]] {
        assert_eq!(ask(&app, Method::GET, "/page/chat.js", Some(other)).await.0, StatusCode::OK, "{other}");
    }
    let (_, headers, _) = ask(&app, Method::GET, "/page/api.js", None).await;
    assert_ne!(headers[header::ETAG], tag.as_str());
    let (status, _, text) = ask(&app, Method::HEAD, "/", None).await;
    assert_eq!((status, text.as_str()), (StatusCode::OK, ""));
}

#[tokio::test]
async fn no_other_file_can_be_had() {
    let app = app(&ServeOptions::default());
    for path in [
        "/page",
        "/page/",
        "/page/index.html",
        "/page/dashboard.html",
        "/page/absent.js",
        "/page/../Cargo.toml",
        "/page/..%2fCargo.toml",
        "/page/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/page/..%5c..%5cCargo.toml",
        "/page//etc/passwd",
        "/page/chat.js/",
        "/page/chat.js%00.css",
        "/page/%ff",
        "/page/CHAT.JS",
        "/index.html",
        "/dashboard/",
    ] {
        let (status, _, text) = ask(&app, Method::GET, path, None).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {text}");
        assert!(text.contains("\"not_found\""), "{path}: {text}");
    }
    assert_eq!(ask(&app, Method::POST, "/", None).await.0, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn the_page_needs_no_key_but_what_it_asks_for_does() {
    let app = app(&ServeOptions { api_key: Some("secret".to_string()), ..ServeOptions::default() });
    for path in ["/", "/dashboard", "/page/chat.js"] {
        assert_eq!(ask(&app, Method::GET, path, None).await.0, StatusCode::OK, "{path}");
    }
    assert_eq!(ask(&app, Method::GET, "/page/absent.js", None).await.0, StatusCode::NOT_FOUND);
    for path in ["/v1/models", "/metrics", "/absent"] {
        assert_eq!(ask(&app, Method::GET, path, None).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
}

#[tokio::test]
async fn it_can_be_left_out() {
    let app = app(&ServeOptions { page: false, ..ServeOptions::default() });
    for path in ["/", "/dashboard", "/page/chat.js"] {
        assert_eq!(ask(&app, Method::GET, path, None).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(ask(&app, Method::GET, "/v1/models", None).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_the_service_at_an_address_may_ask() {
    let options = ServeOptions { address: "192.168.1.5:8080".parse().unwrap(), ..ServeOptions::default() };
    let app = app(&options);
    for (origin, host, status) in [
        ("http://192.168.1.5:8080", "192.168.1.5:8080", StatusCode::OK),
        ("http://192.168.1.6:8080", "192.168.1.5:8080", StatusCode::FORBIDDEN),
        ("http://evil.example:8080", "evil.example:8080", StatusCode::FORBIDDEN),
        ("null", "192.168.1.5:8080", StatusCode::FORBIDDEN),
    ] {
        let request = Request::post(common::COMPLETIONS)
            .header(header::ORIGIN, origin)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(r#"{"prompt": "a"}"#));
        let answer = app.clone().oneshot(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), status, "{origin} to {host}");
    }
}
