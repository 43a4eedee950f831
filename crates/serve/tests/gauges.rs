//! What `/metrics` says while requests run and wait, and of generations that end otherwise than by themselves.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Job, JobError, Outcome, Prompt, ServeOptions, router};

/// Longer than anything here takes; only a test that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// An engine that waits for a gate, fails when the prompt says so, and goes on until nobody listens when it says
/// that.
fn engine(gate: Arc<Mutex<()>>) -> Engine {
    Engine::new("gated", move |job: &Job, on_text| {
        drop(gate.lock());
        let prompt = match &job.prompt {
            Prompt::Text(text) => text.as_str(),
            _ => "",
        };
        if prompt == "fail" {
            return Err(JobError::Failed("as asked".to_string()));
        }
        let mut finish = Finish::Length;
        loop {
            if on_text("text ".into()).is_break() {
                finish = Finish::Cancelled;
            }
            if prompt != "endless" || finish == Finish::Cancelled {
                return Ok(Outcome { finish, prompt_tokens: 1, completion_tokens: 1 });
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

async fn ask(app: Router, prompt: &'static str) -> u16 {
    let body = format!("{{\"prompt\": \"{prompt}\", \"stream\": true}}");
    let request =
        Request::post("/v1/completions").header("content-type", "application/json").body(Body::from(body));
    let response = app.oneshot(request.unwrap()).await.unwrap();
    if prompt != "endless" {
        to_bytes(response.into_body(), 1 << 20).await.unwrap();
        return 0;
    }
    // Leaves with the answer unread.
    response.status().as_u16()
}

async fn value(app: &Router, name: &str, labels: &str) -> f64 {
    let response = app.clone().oneshot(Request::get("/metrics").body(Body::empty()).unwrap()).await.unwrap();
    let text = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = String::from_utf8(text.to_vec()).unwrap();
    let begin = format!("{name}{{{labels}model_name=\"gated\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&begin)).map_or(0.0, |value| value.parse().unwrap())
}

async fn until(app: &Router, name: &str, labels: &str, right: f64) {
    let begin = Instant::now();
    while value(app, name, labels).await != right {
        assert!(begin.elapsed() < PATIENCE, "{name}{labels} never {right}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_run_and_wait_are_told_apart() {
    let gate = Arc::new(Mutex::new(()));
    let options = ServeOptions { concurrency: 2, queue: 8, ..ServeOptions::default() };
    let app = router(engine(Arc::clone(&gate)), &options);
    let mut asked = Vec::new();
    let (opened, open) = std::sync::mpsc::channel::<()>();
    let held = Arc::clone(&gate);
    let (locked, is_locked) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        let _closed = held.lock().unwrap();
        locked.send(()).unwrap();
        let _ = open.recv();
    });
    is_locked.recv().unwrap();
    for _ in 0..5 {
        asked.push(tokio::spawn(ask(app.clone(), "a")));
    }
    for name in ["tritforge_requests_running", "vllm:num_requests_running"] {
        until(&app, name, "", 2.0).await;
    }
    for name in ["tritforge_requests_waiting", "vllm:num_requests_waiting"] {
        until(&app, name, "", 3.0).await;
    }
    drop(opened);
    for request in asked {
        request.await.unwrap();
    }
    holder.join().unwrap();
    until(&app, "tritforge_requests_running", "", 0.0).await;
    assert_eq!(value(&app, "tritforge_requests_waiting", "").await, 0.0);
    assert_eq!(value(&app, "tritforge_queue_time_seconds_count", "").await, 5.0);
    assert_eq!(value(&app, "tritforge_generations_total", "finished_reason=\"length\",").await, 5.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn generations_that_fail_or_are_left_have_their_reasons() {
    let app = router(engine(Arc::new(Mutex::new(()))), &ServeOptions::default());
    ask(app.clone(), "fail").await;
    assert_eq!(ask(app.clone(), "endless").await, 200);
    for (reason, count) in [("error", 1.0), ("abort", 1.0), ("stop", 0.0), ("length", 0.0)] {
        let labels = format!("finished_reason=\"{reason}\",");
        until(&app, "vllm:request_success_total", &labels, count).await;
    }
    let failed = "code=\"500\",endpoint=\"/v1/completions\",";
    until(&app, "tritforge_http_requests_total", failed, 1.0).await;
}
