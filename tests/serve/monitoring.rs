//! What is counted, and whether the service is alive and ready.

use std::time::{Duration, Instant};

use crate::{PATIENCE, Served, request, split};

#[test]
fn metrics_are_what_the_answers_say() {
    let served = Served::start(&["--concurrency", "3"]);
    let (mut prompt, mut completion, mut later) = (0.0, 0.0, 0.0);
    for tokens in [5, 1, 9] {
        let body =
            format!(r#"{{"prompt": "one and the same prompt", "max_tokens": {tokens}, "ignore_eos": true}}"#);
        let (status, _, answer) = split(&served.ask(&request(&body, body.len())));
        assert_eq!(status, 200, "{answer}");
        let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
        let usage = |name: &str| answer["usage"][name].as_f64().unwrap();
        prompt += usage("prompt_tokens");
        completion += usage("completion_tokens");
        later += usage("completion_tokens") - 1.0;
    }
    let body = r#"{"prompt": 1}"#;
    assert_eq!(split(&served.ask(&request(body, body.len()))).0, 400);
    assert_eq!(
        split(&served.ask("GET /a%20b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")).0,
        404
    );
    served.answered(3.0);
    let one = prompt / 3.0;
    for (name, labels, value) in [
        ("tritforge_prompt_tokens_total", "", prompt),
        ("vllm:prompt_tokens_total", "", prompt),
        ("tritforge_generation_tokens_total", "", completion),
        ("vllm:generation_tokens_total", "", completion),
        ("vllm:time_to_first_token_seconds_count", "", 3.0),
        ("tritforge_queue_time_seconds_count", "", 3.0),
        ("tritforge_inter_token_latency_seconds_count", "", later),
        ("vllm:e2e_request_latency_seconds_count", "", 3.0),
        ("vllm:request_success_total", "finished_reason=\"length\",", 3.0),
        ("tritforge_generations_total", "finished_reason=\"error\",", 0.0),
        ("tritforge_http_requests_total", "code=\"400\",endpoint=\"/v1/completions\",", 1.0),
        ("tritforge_http_requests_total", "code=\"404\",endpoint=\"other\",", 1.0),
        ("vllm:num_requests_running", "", 0.0),
        ("vllm:num_requests_waiting", "", 0.0),
        ("tritforge_lora_adapters_loaded", "", 0.0),
        // The second and third prompt are the first, but for the token that is always run.
        ("tritforge_prefix_cache_queries_total", "", 3.0),
        ("tritforge_prefix_cache_hits_total", "", 2.0),
        ("vllm:prefix_cache_queries_total", "", prompt),
        ("vllm:prefix_cache_hits_total", "", 2.0 * (one - 1.0)),
        // Three run and one is kept: keys and values in 2 layers, of 2 heads of 64, in f16. Memory is taken for 256
        // positions, although the context is 128.
        ("tritforge_kv_cache_limit_bytes", "", 4.0 * f64::from(2 * 2 * 2 * 64 * 256 * 2)),
    ] {
        assert_eq!(served.metric(name, labels), value, "{name}");
    }
    let used = served.metric("tritforge_kv_cache_bytes", "");
    let usage = served.metric("vllm:kv_cache_usage_perc", "");
    assert!(used > 0.0 && usage > 0.0 && usage < 1.0, "{used} {usage}");
    let (_, head, text) = served.get("/metrics");
    assert!(head.to_lowercase().contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(text.contains("# TYPE vllm:num_requests_running gauge"), "{text}");
}

#[test]
fn the_dashboard_shows_metrics_that_there_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/grafana-dashboard.json");
    let dashboard = std::fs::read_to_string(path).unwrap();
    let json: serde_json::Value = serde_json::from_str(&dashboard).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let filters = dir.path().join("filters.toml");
    std::fs::write(
        &filters,
        "[[filters]]\nname = \"all\"\npattern = \".\"\nwhere = \"prompt\"\naction = \"redact\"\n",
    )
    .unwrap();
    let served = Served::start(&["--filters", filters.to_str().unwrap()]);
    assert!(served.complete().contains("200 OK"));
    served.answered(1.0);
    let (_, _, text) = served.get("/metrics");
    let panels = json["panels"].as_array().unwrap();
    assert!(panels.len() > 5);
    let mut names = 0;
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let query = target["expr"].as_str().unwrap();
        let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for name in words.filter(|word| word.starts_with("tritforge_")) {
            assert!(text.contains(&format!("\n{name}{{")), "{name} of {query}");
            names += 1;
        }
    }
    assert!(names > 10);
}

#[test]
fn health_generates_when_it_is_asked_to() {
    let served = Served::start(&["--api-key", "a key of its own"]);
    assert!(served.ready().contains("\"ready\""));
    assert_eq!(served.get("/health").0, 200);
    assert_eq!(served.get("/health?deep=0").0, 200);
    // What costs something, or tells something, needs the key.
    assert_eq!(served.get("/health?deep=1").0, 401);
    assert_eq!(served.get("/metrics").0, 401);
    let deep = "GET /health?deep=1 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Authorization: Bearer a key of its own\r\n\r\n";
    let (status, _, body) = split(&served.ask(deep));
    assert_eq!(status, 200, "{body}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(body["status"] == "ok" && body["seconds"].as_f64().unwrap() > 0.0, "{body}");
    let metrics = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Authorization: Bearer a key of its own\r\n\r\n";
    let (_, _, text) = split(&served.ask(metrics));
    assert!(
        text.lines()
            .any(|line| line.starts_with("tritforge_generation_tokens_total") && line.ends_with(" 1"))
    );
}

#[test]
fn a_service_that_drains_is_not_ready_and_still_answers() {
    let mut served = Served::start(&["--drain-delay", "100000"]);
    served.ready();
    served.signal("TERM");
    let begin = Instant::now();
    while served.get("/ready").0 != 503 {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(served.get("/health").0, 200);
    assert!(served.complete().contains("200 OK"));
    served.signal("TERM");
    assert_eq!(served.exit_code(), Some(0));
}
