//! Bodies of requests: every field with values of every type, bodies that are cut, doubled, deep, binary.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tritforge_infer::Finish;
use tritforge_serve::request::{Endpoint, fields};
use tritforge_serve::{Engine, Job, Outcome, ServeOptions, router};

use crate::Round;

const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

fn send(runtime: &tokio::runtime::Runtime, app: &Router, path: &str, body: &[u8]) -> (u16, String) {
    let request = Request::post(path).header("content-type", "application/json");
    let request = request.body(Body::from(body.to_vec())).unwrap();
    runtime.block_on(async {
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    })
}

/// The answer as a result: an error is of the client, and JSON as OpenAI's clients read it.
fn result((status, text): (u16, String)) -> Result<String, String> {
    if status == 200 {
        return Ok("served".to_string());
    }
    let error: Value = serde_json::from_str(&text).unwrap_or_default();
    let message = error["error"]["message"].as_str().unwrap_or_default();
    if !(400..500).contains(&status) || message.is_empty() || !error["error"]["type"].is_string() {
        return Err(format!("it panicked or has no error object: {status} {text}"));
    }
    Err(format!("{message} ({})", error["error"]["param"]))
}

#[test]
fn bodies_with_one_fault() {
    let engine = Engine::new("echo", |_: &Job, on_text| {
        let _ = on_text("x".into());
        Ok(Outcome { finish: Finish::Length, prompt_tokens: 1, completion_tokens: 1 })
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = runtime.block_on(async { router(engine, &ServeOptions::default()) });
    let mut round = Round::default();
    for (path, endpoint) in [(CHAT, Endpoint::Chat), (COMPLETIONS, Endpoint::Completions)] {
        let base = match endpoint {
            Endpoint::Chat => json!({"messages": [{"role": "user", "content": "a"}]}),
            _ => json!({"prompt": "a"}),
        };
        let post = |body: &[u8]| result(send(&runtime, &app, path, body));
        assert_eq!(post(base.to_string().as_bytes()).as_deref(), Ok("served"));
        let names = fields().filter(|field| field.endpoints.contains(&endpoint)).map(|field| field.name);
        for name in names.chain(["no_such_field"]) {
            for value in [
                json!(-1),
                json!("abc"),
                json!([]),
                json!([[]]),
                json!({"a": 1}),
                json!(1e308),
                json!(u64::MAX),
                json!(0.5),
                json!(true),
                json!(""),
                json!("a".repeat(10_000)),
            ] {
                let mut body = base.clone();
                body[name] = value.clone();
                match post(body.to_string().as_bytes()) {
                    // A value that the field takes, or that changes nothing by its definition.
                    Ok(_) if name != "no_such_field" => round.tried += 1,
                    found => round.refused(&format!("{path}: {name} = {value:.40}"), found, &[name]),
                }
            }
            // Which of two values counts is not said anywhere: none does.
            let twice = format!("{{\"{name}\": null, \"{name}\": null, {}", &base.to_string()[1..]);
            round.refused(&format!("{path}: {name} twice"), post(twice.as_bytes()), &[name]);
        }
        let text = base.to_string();
        for cut in 1..text.len() {
            round.refused(&format!("{path}: cut at {cut}"), post(&text.as_bytes()[..cut]), &["JSON", "body"]);
        }
        let deep = format!("{{\"prompt\": {}", "[".repeat(100_000));
        let deep_objects = format!("{}1", "{\"a\":".repeat(100_000));
        for (what, body) in [
            ("empty", &b""[..]),
            ("null", b"null"),
            ("a list", b"[]"),
            ("a string", b"\"a\""),
            ("binary", b"\0\x01\xff"),
            ("Latin-1", b"{\"prompt\": \"gr\xf6\xdfe\"}"),
            ("half a surrogate", b"{\"prompt\": \"\\ud800\"}"),
            ("NaN", b"{\"prompt\": \"a\", \"temperature\": NaN}"),
            ("two bodies", b"{\"prompt\": \"a\"}{\"prompt\": \"b\"}"),
            ("a comment", b"{\"prompt\": \"a\" /* b */}"),
            ("deep", deep.as_bytes()),
            ("deep objects", deep_objects.as_bytes()),
        ] {
            round.refused(&format!("{path}: {what}"), post(body), &["JSON", "body", "object"]);
        }
        let long = json!({"prompt": "a".repeat(2 << 20)}).to_string();
        round.refused(&format!("{path}: too long"), post(long.as_bytes()), &["bytes"]);
    }
    for (field, value) in [
        ("role", json!(3)),
        ("role", json!("")),
        ("role", json!(null)),
        ("content", json!(3)),
        ("content", json!([])),
        ("content", json!([{"type": "image_url", "image_url": {"url": "x"}}])),
        ("content", json!([{"type": "text"}])),
        ("tool_calls", json!([{"id": "a"}])),
        ("audio", json!({"id": "a"})),
        ("strange", json!(1)),
    ] {
        let mut body = json!({"messages": [{"role": "user", "content": "a"}]});
        body["messages"][0][field] = value.clone();
        let found = result(send(&runtime, &app, CHAT, body.to_string().as_bytes()));
        round.refused(&format!("messages[0].{field} = {value}"), found, &[field]);
    }
    round.end(500);
}
