//! What the tests of requests share: a router in the same process, and a model small enough to compute by
//! hand what it says.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt as _;
use tritforge_config::ModelConfig;
use tritforge_export::synth_gguf;
use tritforge_infer::Model;
use tritforge_serve::{Engine, ServeOptions, router};
use tritforge_text::{ChatTemplate, SpecialTokens, Tokenizer};

pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const COMPLETIONS: &str = "/v1/completions";

const CONFIG: &str = "vocab_size = 257\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 2\n\
    num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 64\nmax_position_embeddings = 256\n\
    hidden_act = \"silu\"\ninitializer_range = 0.5\n";

/// A model with random weights, a token a byte, a special token `<|endoftext|>` and the template of ChatML.
pub(crate) fn model() -> (TempDir, Arc<Model>) {
    synth("chatml", 256, &[])
}

/// The same with a long context and another built-in template.
pub(crate) fn long_model(template: &str) -> (TempDir, Arc<Model>) {
    synth(template, 4096, &[])
}

/// The same with further special tokens.
pub(crate) fn model_with_specials(names: &[&str]) -> (TempDir, Arc<Model>) {
    synth("chatml", 256, names)
}

fn synth(template: &str, context: usize, names: &[&str]) -> (TempDir, Arc<Model>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let others = names.iter().map(|name| name.to_string()).collect();
    let specials = SpecialTokens { others, ..SpecialTokens::default() };
    let tokenizer = Tokenizer::train_bpe(["ab"], 257 + names.len(), &specials).unwrap();
    let tokenizer = tokenizer.with_chat_template(ChatTemplate::named(template).as_ref());
    let config = ModelConfig {
        vocab_size: 257 + names.len(),
        max_position_embeddings: context,
        ..ModelConfig::from_toml(CONFIG).unwrap()
    };
    synth_gguf(&config, &path, &Default::default(), 1, Some(&tokenizer)).unwrap();
    let model = Arc::new(Model::open(&path).unwrap());
    (dir, model)
}

pub(crate) fn app(engine: Engine) -> Router {
    router(engine, &ServeOptions::default())
}

pub(crate) fn messages(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// Two objects in one.
pub(crate) fn with(mut body: Value, more: &Value) -> Value {
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub(crate) async fn send(app: &Router, path: &str, body: String) -> (u16, String) {
    let request = Request::post(path).header("content-type", "application/json").body(Body::from(body));
    answer(app, request.unwrap()).await
}

pub(crate) async fn get(app: &Router, path: &str) -> (u16, Value) {
    let (status, text) = answer(app, Request::get(path).body(Body::empty()).unwrap()).await;
    (status, serde_json::from_str(&text).unwrap())
}

pub(crate) async fn send_get(app: &Router, path: &str) -> (u16, String) {
    answer(app, Request::get(path).body(Body::empty()).unwrap()).await
}

async fn answer(app: &Router, request: Request<Body>) -> (u16, String) {
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

pub(crate) async fn post(app: &Router, path: &str, body: &Value) -> (u16, Value) {
    let (status, text) = send(app, path, body.to_string()).await;
    (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}")))
}

/// The answer to a request that is served.
pub(crate) async fn ok(app: &Router, path: &str, body: &Value) -> Value {
    let (status, answer) = post(app, path, body).await;
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

/// The error of a request that is refused with 400.
pub(crate) async fn refused(app: &Router, path: &str, body: &Value) -> Value {
    let (status, answer) = post(app, path, body).await;
    assert_eq!(status, 400, "{body}: {answer}");
    let error = answer["error"].clone();
    assert_eq!(error["type"], "invalid_request_error", "{error}");
    for key in ["message", "param", "code"] {
        assert!(error.as_object().unwrap().contains_key(key), "{error}");
    }
    error
}

/// The events of a stream, without the last, which is `[DONE]`.
pub(crate) async fn events(app: &Router, path: &str, body: &Value) -> Vec<Value> {
    let (status, text) = send(app, path, with(body.clone(), &json!({ "stream": true })).to_string()).await;
    assert_eq!(status, 200, "{text}");
    let mut events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.pop(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
}
