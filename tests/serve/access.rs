//! Keys, roles, limits and the access log.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{PATIENCE, Served};

const ALICE: &str = "alice-0123456789abcdef";
const ROOT: &str = "root-0123456789abcdef";
const BODY: &str = r#"{"prompt": "a secret", "max_tokens": 3, "ignore_eos": true}"#;

fn hash_key(name: &str, key: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(["serve", "--hash-key", name])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(format!("{key}\n").as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// The entry that `--hash-key` writes, with more lines.
fn entry(name: &str, key: &str, more: &str) -> String {
    let output = hash_key(name, key);
    assert!(output.status.success());
    let entry = String::from_utf8(output.stdout).unwrap();
    assert!(!entry.contains(key), "{entry}");
    format!("{entry}{more}\n")
}

fn admin(entry: &str) -> String {
    entry.replace("role = \"user\"", "role = \"admin\"")
}

fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

fn complete(served: &Served, key: &str) -> (u16, String, String) {
    served.post("/v1/completions", &bearer(key), BODY)
}

fn get(served: &Served, path: &str, key: &str) -> u16 {
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{}\r\n", bearer(key));
    crate::split(&served.ask(&head)).0
}

fn error_code(body: &str) -> Value {
    serde_json::from_str::<Value>(body).unwrap()["error"]["code"].clone()
}

/// Asks until the answer is another one, as after a change of the file.
fn until(status: u16, mut ask: impl FnMut() -> u16) {
    let begin = Instant::now();
    while ask() != status {
        assert!(begin.elapsed() < PATIENCE, "never {status}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn start(keys: &Path, more: &[&str]) -> Served {
    Served::start(&[&["--api-keys", keys.to_str().unwrap()], more].concat())
}

#[test]
fn keys_have_roles_and_are_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let (alice, root) = (entry("alice", ALICE, ""), admin(&entry("root", ROOT, "")));
    fs::write(&path, format!("{alice}{root}")).unwrap();
    let served = start(&path, &[]);
    assert_eq!(served.get("/health").0, 200);
    assert!(served.ready().contains("ready"));
    let (status, head, body) = served.post("/v1/completions", "", BODY);
    assert_eq!((status, error_code(&body)), (401, "invalid_api_key".into()), "{head}");
    assert_eq!(complete(&served, "alice-0123456789abcdeF").0, 401);
    assert_eq!(complete(&served, ALICE).0, 200);
    assert_eq!(complete(&served, ROOT).0, 200);
    // What changes or shows everybody's things is the admin's.
    for (key, status) in [(ALICE, 403), (ROOT, 200), ("another", 401)] {
        assert_eq!(get(&served, "/metrics", key), status, "{key}");
        assert_eq!(served.post("/lora-adapters", &bearer(key), "[]").0, status, "{key}");
    }
    assert_eq!(get(&served, "/lora-adapters", ALICE), 200);
    assert_eq!(served.post("/v1/load_lora_adapter", &bearer(ALICE), "{}").0, 403);
    // Without alice; then a file that is wrong, which changes nothing.
    fs::write(&path, &root).unwrap();
    until(401, || complete(&served, ALICE).0);
    assert_eq!(complete(&served, ROOT).0, 200);
    fs::write(&path, "[[keys]]\nname = 1\n").unwrap();
    served.signal("HUP");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(complete(&served, ROOT).0, 200);
    fs::write(&path, &alice).unwrap();
    served.signal("HUP");
    until(200, || complete(&served, ALICE).0);
    assert_eq!(complete(&served, ROOT).0, 401);
}

#[test]
fn who_reads_metrics_is_the_operators_choice() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    fs::write(&path, entry("alice", ALICE, "")).unwrap();
    for (access, without, with) in [("admin", 401, 403), ("user", 401, 200), ("public", 200, 200)] {
        let served = start(&path, &["--metrics-access", access]);
        assert_eq!((served.get("/metrics").0, get(&served, "/metrics", ALICE)), (without, with), "{access}");
    }
}

#[test]
fn bad_files_of_keys_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let good = entry("alice", ALICE, "");
    for (text, expected) in
        [("", "no keys"), (&good.replace("sha256", "sha512"), "sha512"), (&good.repeat(2), "key 2")]
    {
        fs::write(&path, text).unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", "absent.gguf", "--api-keys", path.to_str().unwrap()])
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{message}");
        assert!(message.contains("--api-keys") && message.contains("keys.toml"), "{message}");
        assert!(message.contains(expected), "{message}");
    }
    let short = hash_key("alice", "short");
    let message = String::from_utf8_lossy(&short.stderr);
    assert!(!short.status.success() && message.contains("--hash-key"), "{message}");
    assert!(message.contains("5 characters") && short.stdout.is_empty(), "{message}");
}

#[test]
fn a_key_has_its_own_limits() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys.toml");
    let alice = entry("alice", ALICE, "requests_per_minute = 2");
    let root = entry("root", ROOT, "tokens_per_minute = 5");
    fs::write(&path, format!("{alice}{root}")).unwrap();
    let served = start(&path, &[]);
    // What is refused for another reason counts as well.
    assert_eq!(served.post("/v1/completions", &bearer(ALICE), "{}").0, 400);
    assert_eq!(complete(&served, ALICE).0, 200);
    let (status, head, body) = complete(&served, ALICE);
    assert_eq!((status, error_code(&body)), (429, "RATE_LIMIT_EXCEEDED".into()), "{body}");
    assert!(body.contains("2 requests a minute"), "{body}");
    let retry =
        head.lines().find_map(|line| line.to_lowercase().strip_prefix("retry-after: ").map(str::to_string));
    assert!((1..=61).contains(&retry.unwrap().trim().parse::<u64>().unwrap()), "{head}");
    assert_eq!(get(&served, "/v1/models", ALICE), 200);
    // The other key has a limit on tokens, which are known when a request is over.
    assert_eq!(complete(&served, ROOT).0, 200);
    until(429, || complete(&served, ROOT).0);
    assert!(complete(&served, ROOT).2.contains("5 tokens a minute"));
}

#[test]
fn without_keys_addresses_have_limits() {
    let served = Served::start(&["--rate-limit", "2"]);
    for status in [200, 200, 429, 429] {
        assert_eq!(served.post("/v1/completions", "", BODY).0, status);
    }
    assert_eq!(served.get("/v1/models").0, 200);
    assert_eq!(served.get("/health").0, 200);
    assert_eq!(served.get("/health?deep=1").0, 429);
}

#[test]
fn the_access_log_tells_everything_but_what_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let (keys, log) = (dir.path().join("keys.toml"), dir.path().join("access.jsonl"));
    fs::write(&keys, entry("alice", ALICE, "")).unwrap();
    let served = start(&keys, &["--access-log", log.to_str().unwrap()]);
    let id = |head: &str| {
        let header = head.lines().find_map(|line| line.strip_prefix("x-request-id: "));
        header.unwrap_or_else(|| panic!("{head}")).trim().to_string()
    };
    let headers = format!("{}X-Request-Id: mine-1\r\n", bearer(ALICE));
    let (status, head, answer) = served.post("/v1/completions", &headers, BODY);
    assert_eq!((status, id(&head).as_str()), (200, "mine-1"));
    let usage = serde_json::from_str::<Value>(&answer).unwrap()["usage"].clone();
    let stream = BODY.replace("\"max_tokens\"", "\"n\": 2, \"stream\": true, \"max_tokens\"");
    assert_eq!(served.post("/v1/completions", &bearer(ALICE), &stream).0, 200);
    // An id that could break a log is not taken over.
    let (status, head, _) = served.post("/no/such/secret", "X-Request-Id: a b\"}\r\n", "{}");
    let made = id(&head);
    assert!(status == 401 && made.starts_with("req-"), "{head}");
    let begin = Instant::now();
    let text = loop {
        let text = fs::read_to_string(&log).unwrap();
        if text.lines().count() == 3 {
            break text;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(!text.contains("secret") && !text.contains(ALICE) && !text.contains("127.0.0.1"), "{text}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |name: &str| lines.iter().find(|line| line["request_id"] == name).unwrap();
    let whole = line("mine-1");
    assert_eq!((&whole["method"], &whole["endpoint"]), (&"POST".into(), &"/v1/completions".into()));
    assert_eq!(
        (&whole["status"], &whole["key"], &whole["complete"]),
        (&200.into(), &"alice".into(), &true.into())
    );
    assert_eq!(whole["prompt_tokens"], usage["prompt_tokens"]);
    assert_eq!(whole["completion_tokens"], usage["completion_tokens"]);
    let seconds = |name: &str| whole[name].as_f64().unwrap();
    assert!(seconds("queue_seconds") <= seconds("first_text_seconds"));
    assert!(seconds("first_text_seconds") <= seconds("seconds"));
    let streamed =
        lines.iter().find(|line| line["key"] == "alice" && line["request_id"] != "mine-1").unwrap();
    // Two answers to one prompt.
    assert_eq!(streamed["prompt_tokens"], usage["prompt_tokens"]);
    assert_eq!(streamed["completion_tokens"].as_u64(), usage["completion_tokens"].as_u64().map(|n| 2 * n));
    assert_eq!(streamed["complete"], true);
    let refused = line(&made);
    assert_eq!((&whole["code"], &refused["code"]), (&Value::Null, &"invalid_api_key".into()));
    assert_eq!((&refused["status"], &refused["endpoint"]), (&401.into(), &"other".into()));
    assert_eq!((&refused["key"], &refused["queue_seconds"]), (&Value::Null, &Value::Null));
}
