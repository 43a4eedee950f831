//! The service over a router, with an engine that needs no model.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Job, JobError, Outcome, Prompt, ServeOptions, router};

/// Answers with the prompt's words, one piece each.
fn echo() -> Engine {
    Engine::new("echo", |job: &Job, on_text| {
        let text = match &job.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Ids(ids) => format!("{ids:?}"),
            Prompt::Chat(messages) => {
                messages.iter().map(|m| m.content.clone()).collect::<Vec<_>>().join(" ")
            }
        };
        if text.is_empty() {
            return Err(JobError::Invalid("the prompt is empty".to_string()));
        }
        let mut count = 0;
        for word in text.split_inclusive(' ').take(job.options.max_tokens) {
            count += 1;
            if on_text(word.into()).is_break() {
                return Ok(Outcome { finish: Finish::Cancelled, prompt_tokens: 1, completion_tokens: count });
            }
        }
        Ok(Outcome { finish: Finish::Length, prompt_tokens: 1, completion_tokens: count })
    })
}

async fn send(app: &Router, path: &str, body: impl Into<Body>) -> (StatusCode, String) {
    let request = Request::post(path).header("content-type", "application/json").body(body.into()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

async fn post(app: &Router, path: &str, body: Value) -> (StatusCode, Value) {
    let (status, text) = send(app, path, body.to_string()).await;
    (status, serde_json::from_str(&text).unwrap())
}

#[tokio::test]
async fn completions_and_chat_answer_in_openais_shape() {
    let app = router(echo(), &ServeOptions::default());
    let (status, body) = post(&app, "/v1/completions", json!({ "prompt": "a b c", "max_tokens": 2 })).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["choices"][0]["text"], "a b ");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["total_tokens"], 3);
    let messages = json!([{ "role": "user", "content": "hi there" }]);
    let (status, body) = post(&app, "/v1/chat/completions", json!({ "messages": messages })).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        body["choices"][0]["message"],
        json!({ "role": "assistant", "content": "hi there", "refusal": null })
    );
}

#[tokio::test]
async fn streams_end_with_done() {
    let app = router(echo(), &ServeOptions::default());
    let body = json!({ "prompt": "a b", "stream": true }).to_string();
    let (status, text) = send(&app, "/v1/completions", body).await;
    assert_eq!(status, StatusCode::OK);
    let events: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let pieces: String = events[..events.len() - 1]
        .iter()
        .map(|event| {
            serde_json::from_str::<Value>(event).unwrap()["choices"][0]["text"].as_str().unwrap().to_string()
        })
        .collect();
    assert_eq!(pieces, "a b");
}

#[tokio::test]
async fn a_stream_that_fails_at_once_has_an_errors_status() {
    let app = router(echo(), &ServeOptions::default());
    let (status, body) = post(&app, "/v1/completions", json!({ "prompt": "", "stream": true })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(body["error"]["message"], "the prompt is empty");
}

#[tokio::test]
async fn bad_requests_are_named() {
    let app = router(echo(), &ServeOptions::default());
    for (body, expected) in [
        ("{", "not a valid request"),
        ("{}", "prompt"),
        (r#"{"prompt": "a", "max_tokens": 0}"#, "max_tokens = 0"),
        (r#"{"prompt": "a", "top_p": 3}"#, "top_p = 3"),
        (r#"{"prompt": "a", "n": 0}"#, "n = 0: expected 1 to 128"),
        (r#"{"prompt": "a", "prompt": "b"}"#, "prompt is given twice"),
        (r#"{"prompt": ""}"#, "prompt is empty"),
    ] {
        let (status, text) = send(&app, "/v1/completions", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert!(error["error"]["message"].as_str().unwrap().contains(expected), "{text}");
    }
    let long = json!({ "prompt": "x".repeat(2 << 20) }).to_string();
    let (status, _) = send(&app, "/v1/completions", long).await;
    assert!(status.is_client_error(), "{status}");
}

/// An engine that runs until it is told to go on, and counts how many run at once.
fn gated(gate: Arc<Mutex<()>>, running: Arc<AtomicUsize>, most: Arc<AtomicUsize>) -> Engine {
    Engine::new("gated", move |_: &Job, on_text| {
        let now = running.fetch_add(1, Ordering::SeqCst) + 1;
        most.fetch_max(now, Ordering::SeqCst);
        drop(gate.lock().unwrap());
        running.fetch_sub(1, Ordering::SeqCst);
        let finish = if on_text("done".into()).is_break() { Finish::Cancelled } else { Finish::Eos };
        Ok(Outcome { finish, prompt_tokens: 1, completion_tokens: 1 })
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_run_than_allowed_and_the_rest_is_told_to_come_back() {
    let (gate, running, most) = (Arc::new(Mutex::new(())), Arc::default(), Arc::new(AtomicUsize::new(0)));
    let options = ServeOptions { concurrency: 2, queue: 1, ..ServeOptions::default() };
    let app = router(gated(Arc::clone(&gate), running, Arc::clone(&most)), &options);
    let requests = {
        let closed = gate.lock().unwrap();
        let requests: Vec<_> = (0..3)
            .map(|_| {
                let app = app.clone();
                tokio::spawn(async move { send(&app, "/v1/completions", r#"{"prompt": "a"}"#).await.0 })
            })
            .collect();
        // Two run and one waits as soon as both runners have been seen.
        while most.load(Ordering::SeqCst) < 2 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(50));
        drop(closed);
        requests
    };
    for request in requests {
        assert_eq!(request.await.unwrap(), StatusCode::OK);
    }
    assert_eq!(most.load(Ordering::SeqCst), 2);

    // With the queue full the next request is refused at once.
    let options = ServeOptions { concurrency: 1, queue: 0, ..ServeOptions::default() };
    let app = router(gated(Arc::clone(&gate), Arc::default(), Arc::clone(&most)), &options);
    most.store(0, Ordering::SeqCst);
    let first = {
        let closed = gate.lock().unwrap();
        let other = app.clone();
        let first =
            tokio::spawn(async move { send(&other, "/v1/completions", r#"{"prompt": "a"}"#).await.0 });
        while most.load(Ordering::SeqCst) < 1 {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(closed);
        first
    };
    assert_eq!(first.await.unwrap(), StatusCode::OK);
}

#[tokio::test]
async fn a_generation_past_its_time_is_a_timeout() {
    let engine = Engine::new("slow", |_: &Job, on_text| {
        let mut count = 0;
        loop {
            std::thread::sleep(Duration::from_millis(5));
            count += 1;
            if on_text("x".into()).is_break() {
                return Ok(Outcome { finish: Finish::Cancelled, prompt_tokens: 1, completion_tokens: count });
            }
        }
    });
    let options = ServeOptions { timeout: Duration::from_millis(40), ..ServeOptions::default() };
    let app = router(engine, &options);
    let (status, body) = post(&app, "/v1/completions", json!({ "prompt": "a" })).await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(body["error"]["type"], "timeout_error");
}
