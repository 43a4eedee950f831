//! `tritforge serve` as a process: many half-open clients, signals, and options at their ends.
#![cfg(unix)]

mod access;
mod cache;
mod config;
mod filters;
mod history;
mod memory;
mod monitoring;
#[path = "../project/mod.rs"]
mod project;
mod template_arguments;
mod tls;
mod tokens;

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
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
        let (dir, path) = model();
        Self::run(dir, &[&[path.to_str().unwrap(), "--port", "0"], args].concat())
    }

    /// With a model of its own choice; the directory lives as long as the process.
    fn run(dir: TempDir, args: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tritforge"));
        let mut child =
            command.arg("serve").args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The address goes to standard error where standard output is the access log.
        let to_stderr =
            args.windows(2).any(|pair| pair == ["--access-log", "-"] || pair[1].ends_with("cloud.toml"));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (mut told, mut other): (Box<dyn BufRead + Send>, Box<dyn BufRead + Send>) =
            (Box::new(BufReader::new(stdout)), Box::new(BufReader::new(stderr)));
        if to_stderr {
            std::mem::swap(&mut told, &mut other);
        }
        let mut line = String::new();
        told.read_line(&mut line).unwrap();
        if line.is_empty() {
            let mut error = String::new();
            other.read_to_string(&mut error).unwrap();
            panic!("{error}");
        }
        // Neither pipe may fill up, or close while the process writes.
        for mut pipe in [told, other] {
            std::thread::spawn(move || std::io::copy(&mut pipe, &mut std::io::sink()));
        }
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

    /// What the service says once it is ready.
    fn ready(&self) -> String {
        let begin = Instant::now();
        loop {
            let (status, _, body) = self.get("/ready");
            if status == 200 {
                return body;
            }
            assert!(status == 503 && body.contains("warming"), "{status} {body}");
            assert!(begin.elapsed() < PATIENCE, "{body}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The status, the head and the body of the answer to a POST with more headers, each with its line's end.
    fn post(&self, path: &str, headers: &str, body: &str) -> (u16, String, String) {
        split(&self.ask(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )))
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

/// A small model in a directory.
fn model() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    let config = tritforge_config::ModelConfig::from_toml(CONFIG).unwrap();
    tritforge_export::synth_gguf(&config, &path, &Default::default(), 1, None).unwrap();
    (dir, path)
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
