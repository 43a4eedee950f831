//! `tritforge serve` as a process: many half-open clients, signals, and options at their ends.
#![cfg(unix)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const CONFIG: &str = "vocab_size = 260\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 2\n\
    num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 64\nmax_position_embeddings = 128\n\
    hidden_act = \"silu\"\n";
/// Longer than anything here takes; only a test that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most seconds that options take: ten years.
const MOST_SECONDS: u64 = 10 * 366 * 24 * 3600;

struct Served {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Served {
    fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.gguf");
        let config = tritforge_config::ModelConfig::from_toml(CONFIG).unwrap();
        tritforge_export::synth_gguf(&config, &path, &Default::default(), 1, None).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", path.to_str().unwrap(), "--port", "0"])
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).unwrap_or_else(|| panic!("{line:?}"));
        let address = address.split('/').next().unwrap().to_string();
        Self { child, address, _dir: dir }
    }

    fn connect(&self, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        let _ = stream.write_all(sent.as_bytes());
        stream
    }

    /// The status, the head and the body of the answer to a GET.
    fn get(&self, path: &str) -> (u16, String, String) {
        split(&self.ask(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")))
    }

    fn ask(&self, sent: &str) -> String {
        let mut answer = String::new();
        self.connect(sent).read_to_string(&mut answer).unwrap();
        answer
    }

    /// The sample of a metric with these labels, beside the model's name; 0 if there is none.
    fn metric(&self, name: &str, labels: &str) -> f64 {
        let (status, _, text) = self.get("/metrics");
        assert_eq!(status, 200, "{text}");
        let begin = format!("{name}{{{labels}model_name=");
        let sample = text.lines().find_map(|line| line.strip_prefix(&begin)?.split_once("} "));
        sample.map_or(0.0, |(_, value)| value.parse().unwrap())
    }

    /// Waits until the service has counted so many whole answers to requests for a text.
    fn answered(&self, count: f64) {
        let begin = Instant::now();
        let labels = "code=\"200\",endpoint=\"/v1/completions\",";
        while self.metric("tritforge_http_requests_total", labels) != count {
            assert!(begin.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn complete(&self) -> String {
        let mut answer = String::new();
        let body = r#"{"prompt": "a", "max_tokens": 1}"#;
        self.connect(&request(body, body.len())).read_to_string(&mut answer).unwrap();
        answer
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn exit_code(&mut self) -> Option<i32> {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("still running");
    }

    /// Most memory that the process has had, in bytes.
    #[cfg(target_os = "linux")]
    fn peak(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(body: &str, length: usize) -> String {
    format!(
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// The status, the head and the body of an answer.
fn split(answer: &str) -> (u16, String, String) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_string(), body.to_string())
}

#[test]
fn sigterm_ends_it_with_half_requests_open() {
    let mut served = Served::start(&["--shutdown-timeout", "1"]);
    let whole = request(r#"{"prompt": "a"}"#, 15);
    let _held: Vec<TcpStream> =
        [10, 60, whole.len() - 5].into_iter().map(|n| served.connect(&whole[..n])).collect();
    assert!(served.complete().contains("200 OK"));
    served.signal("TERM");
    assert_eq!(served.exit_code(), Some(0));
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut served = Served::start(&["--shutdown-timeout", "100000"]);
    let whole = request(r#"{"prompt": "a"}"#, 15);
    let _held = served.connect(&whole[..whole.len() - 5]);
    assert!(served.complete().contains("200 OK"));
    served.signal("TERM");
    std::thread::sleep(Duration::from_millis(300));
    served.signal("INT");
    served.exit_code();
}

#[cfg(target_os = "linux")]
#[test]
fn half_open_clients_by_the_hundred_take_little_memory() {
    let served = Served::start(&[]);
    assert!(served.complete().contains("200 OK"));
    let before = served.peak();
    let half = request(&format!("{{\"prompt\": \"{}", "a".repeat(1_000_000)), 1_048_000);
    let mut held = Vec::new();
    for i in 0..300 {
        held.push(served.connect(if i % 3 == 0 { &half[..40] } else { &half }));
    }
    std::thread::sleep(Duration::from_millis(500));
    let more = served.peak() - before;
    assert!(more < 100 << 20, "{} MB more", more >> 20);
    drop(held);
    let begin = Instant::now();
    while !served.complete().contains("200 OK") {
        assert!(begin.elapsed() < PATIENCE);
    }
    // A prompt far beyond the context is refused before it is tokenized.
    let before = served.peak();
    let body = format!("{{\"prompt\": \"{}\"}}", "let x = 1; ".repeat(90_000));
    let mut stream = TcpStream::connect(&served.address).unwrap();
    stream.write_all(request(&body, body.len()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("400 Bad Request") && answer.contains("context_length_exceeded"), "{answer}");
    assert!(served.peak() - before < 32 << 20);
}

#[test]
fn a_body_is_as_long_as_the_option_allows() {
    let ask = |served: &Served, length: usize| {
        let prompt = "a".repeat(length - r#"{"prompt": ""}"#.len());
        let body = format!("{{\"prompt\": \"{prompt}\"}}");
        assert_eq!(body.len(), length);
        let mut answer = String::new();
        let mut stream = TcpStream::connect(&served.address).unwrap();
        // The service may answer and close before it has read everything.
        let _ = stream.write_all(request(&body, length).as_bytes());
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    let served = Served::start(&["--max-body", "100"]);
    assert!(ask(&served, 100).contains("200 OK"));
    let refused = ask(&served, 101);
    assert!(refused.starts_with("HTTP/1.1 413"), "{refused}");
    let error = refused.split("\r\n\r\n").nth(1).unwrap();
    let error: serde_json::Value = serde_json::from_str(error).unwrap();
    assert_eq!(error["error"]["code"], "request_too_large");
    assert_eq!(error["error"]["type"], "invalid_request_error");
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("100 bytes") && message.contains("--max-body"), "{message}");
    // Longer than the default: read, and refused for its prompt alone.
    let served = Served::start(&["--max-body", "3000000"]);
    let refused = ask(&served, 2_000_000);
    assert!(refused.contains("context_length_exceeded"), "{refused}");
}

#[test]
fn options_at_their_ends_work_or_are_refused_by_name() {
    let most = MOST_SECONDS.to_string();
    let served = Served::start(&["--timeout", &most, "--shutdown-timeout", &most, "--queue", "10000"]);
    assert!(served.complete().contains("200 OK"));
    let beyond = u64::MAX.to_string();
    for (option, value) in [
        ("--timeout", "0"),
        ("--timeout", &beyond),
        ("--shutdown-timeout", &beyond),
        ("--concurrency", "0"),
        ("--max-connections", "0"),
        ("--max-body", "0"),
        ("--max-body", "1MiB"),
        ("--max-body", &beyond),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", "absent.gguf", option, value])
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{message}");
        assert!(message.contains(option), "{message}");
    }
    // An empty key would be one that everybody has.
    let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(["serve", "absent.gguf"])
        .env("TRITFORGE_API_KEY", "")
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&ran.stderr);
    assert!(!ran.status.success() && message.contains("TRITFORGE_API_KEY"), "{message}");
}

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
        // Three run and one is kept: keys and values in 2 layers, of 2 heads of 64 and 128 positions, in f16.
        ("tritforge_kv_cache_limit_bytes", "", 4.0 * f64::from(2 * 2 * 2 * 64 * 128 * 2)),
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
    let served = Served::start(&[]);
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
    let (status, _, body) = served.get("/ready");
    assert!(status == 200 && body.contains("ready"), "{body}");
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
    assert_eq!(served.get("/ready").0, 200);
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
