//! `/openapi.json` against the router, and against answers.

mod common;
#[path = "../../infer/tests/common/schema.rs"]
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use axum::body::Body;
use axum::http::{Request, header};
use common::{CHAT, COMPLETIONS, app, get, long_model, messages, model, ok};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tritforge_serve::Engine;

const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// Paths with their methods.
fn described(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let methods = |item: &Value| item.as_object().unwrap().keys().cloned().collect();
    document["paths"].as_object().unwrap().iter().map(|(path, item)| (path.clone(), methods(item))).collect()
}

#[tokio::test]
async fn every_route_is_described_and_every_description_is_a_route() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let (status, document) = get(&app, "/openapi.json").await;
    assert_eq!(status, 200);
    let described = described(&document);
    // The paths that the sources of the router name.
    let mut routes = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/routes")).unwrap() {
        let path = entry.unwrap().path();
        // An endpoint that only tests have.
        if path.extension().is_some_and(|end| end == "rs") && path.file_stem().unwrap() != "echo" {
            let source = std::fs::read_to_string(&path).unwrap();
            let found = source
                .split(".route(")
                .skip(1)
                .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
            routes.extend(found.map(|path| path.replace("{*", "{")));
        }
    }
    assert_eq!(routes, described.keys().cloned().collect());
    // The methods, which the router tells itself to whoever comes with another.
    for (path, methods) in described {
        let request = Request::patch(path.replace("{name}", "x")).header("content-type", "application/json");
        let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), 405, "{path}");
        let allow = response.headers()[header::ALLOW].to_str().unwrap().to_lowercase();
        let allow: BTreeSet<String> = allow
            .split(',')
            .map(|method| method.trim().to_string())
            .filter(|method| method != "head")
            .collect();
        assert_eq!(allow, methods, "{path}");
    }
}

/// Every value under a key, anywhere in a document.
fn under<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|value| under(value, key, found));
        }
        Value::Array(list) => list.iter().for_each(|value| under(value, key, found)),
        _ => {}
    }
}

#[tokio::test]
async fn it_is_valid_openapi() {
    let (_dir, model) = model();
    let (_, document) = get(&app(Engine::of(&model).unwrap()), "/openapi.json").await;
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert!(text(&document["info"]["title"]) && text(&document["info"]["version"]));
    let mut references = Vec::new();
    under(&document, "$ref", &mut references);
    assert!(references.len() > 20);
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        assert!(path.starts_with('/'));
        for (method, operation) in item.as_object().unwrap() {
            assert!(METHODS.contains(&method.as_str()), "{method}");
            assert!(ids.insert(operation["operationId"].as_str().unwrap()), "{path}");
            for (code, response) in operation["responses"].as_object().unwrap() {
                assert!(
                    code == "default" || code.parse::<u16>().is_ok_and(|code| (100..600).contains(&code))
                );
                assert!(response.get("$ref").is_some() || text(&response["description"]), "{path}");
            }
            let declared: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path" && parameter["required"] == true)
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let used = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
            assert_eq!(used.collect::<BTreeSet<_>>(), declared, "{path}");
            assert_eq!(operation.get("requestBody").is_some(), method == "post", "{path}");
        }
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)), "{name}");
    }
}

#[tokio::test]
async fn answers_and_requests_are_as_described() {
    let (_dir, model) = long_model("hermes");
    let app = app(Engine::of(&model).unwrap());
    let (_, document) = get(&app, "/openapi.json").await;
    let content = |path: &str, place: &str| {
        let operation = &document["paths"][path][if place == "get" { "get" } else { "post" }];
        let body = if place == "body" { &operation["requestBody"] } else { &operation["responses"]["200"] };
        body["content"]["application/json"]["schema"].clone()
    };
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "properties": {}, "additionalProperties": false } } });
    let requests = [
        (
            CHAT,
            json!({ "messages": messages("a"), "max_tokens": 3, "logprobs": true, "top_logprobs": 2, "n": 2 }),
        ),
        (
            CHAT,
            json!({ "messages": messages("a"), "tools": [tool], "tool_choice": "required", "max_tokens": 90, "seed": 1 }),
        ),
        (
            COMPLETIONS,
            json!({ "prompt": ["a", "b"], "max_tokens": 3, "logprobs": 2, "temperature": 0, "stop": "x" }),
        ),
        (
            "/v1/generate/batch",
            json!({ "requests": [{ "id": 1, "prompt": "a", "max_tokens": 1 }, { "prompt": 3 }] }),
        ),
        ("/v1/embeddings", json!({ "input": ["a", "b"], "encoding_format": "float" })),
        ("/v1/embeddings", json!({ "input": "a", "encoding_format": "base64" })),
        ("/tokenize", json!({ "prompt": "a", "with_pieces": true, "return_token_strs": true })),
        ("/detokenize", json!({ "tokens": [1, 2] })),
        ("/apply-template", json!({ "messages": messages("a"), "tools": [tool] })),
    ];
    for (path, body) in requests {
        let answer = ok(&app, path, &body).await;
        assert!(schema::valid(&document, &content(path, "body"), &body), "{path}: {body}");
        assert!(schema::valid(&document, &content(path, "answer"), &answer), "{path}: {answer}");
    }
    for path in ["/v1/models", "/lora-adapters"] {
        assert!(schema::valid(&document, &content(path, "get"), &get(&app, path).await.1), "{path}");
    }
    let (status, error) = common::post(&app, CHAT, &json!({})).await;
    let right = &document["components"]["responses"]["Error"]["content"]["application/json"]["schema"];
    assert!(status == 400 && schema::valid(&document, right, &error), "{error}");
    // What is refused is not described.
    let wrong = json!({ "messages": messages("a"), "max_token": 3 });
    assert!(!schema::valid(&document, &content(CHAT, "body"), &wrong));
}
