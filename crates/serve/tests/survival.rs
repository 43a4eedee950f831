//! The service under clients that are slow, many, gone, foreign or wrong, over real sockets.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Job, JobError, Outcome, Prompt, ServeOptions, router, serve};

/// Longer than anything here takes; only a test that hangs meets it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the prompt tells the engine to do; how many jobs run is counted.
fn engine(running: &Arc<AtomicUsize>) -> Engine {
    struct Running(Arc<AtomicUsize>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    let running = Arc::clone(running);
    Engine::new("test", move |job: &Job, on_text| {
        running.fetch_add(1, Ordering::SeqCst);
        let _running = Running(Arc::clone(&running));
        let Prompt::Text(prompt) = &job.prompt else { return Err(JobError::Invalid("chat".to_string())) };
        let outcome = |finish| Ok(Outcome { finish, prompt_tokens: 1, completion_tokens: 1 });
        match prompt.as_str() {
            "panic" => panic!("the engine of the test"),
            "fail" => Err(JobError::Failed("a tensor is damaged".to_string())),
            "long" => Err(JobError::ContextLength("too long".to_string())),
            // Never ends by itself: silent as behind a stop string, or with more text than any buffer holds.
            "silent" => loop {
                thread::sleep(Duration::from_millis(1));
                if on_text("".into()).is_break() {
                    return outcome(Finish::Cancelled);
                }
            },
            "flood" => loop {
                if on_text("x".repeat(10_000).as_str().into()).is_break() {
                    return outcome(Finish::Cancelled);
                }
            },
            _ => {
                let flow = on_text("".into()).is_break() || on_text("done".into()).is_break();
                outcome(if flow { Finish::Cancelled } else { Finish::Eos })
            }
        }
    })
}

struct Server {
    address: SocketAddr,
    running: Arc<AtomicUsize>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    ended: Arc<AtomicBool>,
}

impl Server {
    fn start(options: ServeOptions) -> Self {
        let running = Arc::default();
        let engine = engine(&running);
        let (sender, receiver) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                serve(listener, router(engine, &options), &options, async {
                    let _ = stopped.await;
                })
                .await;
            });
            flag.store(true, Ordering::SeqCst);
            runtime.shutdown_background();
        });
        Self { address: receiver.recv().unwrap(), running, stop: Some(stop), ended }
    }

    fn connect(&self, sent: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(sent.as_bytes()).unwrap();
        stream
    }

    /// Status, head and body of what a request gets that closes its connection.
    fn ask(&self, sent: &str) -> (u16, String, Value) {
        answer(self.connect(sent))
    }

    fn complete(&self, prompt: &str) -> (u16, String, Value) {
        self.ask(&completion(&format!(r#"{{"prompt": "{prompt}"}}"#), "connection: close\r\n"))
    }

    fn wait_for_running(&self, n: usize) {
        wait_until(&format!("{n} running jobs"), || self.running.load(Ordering::SeqCst) == n);
    }
}

fn wait_until(what: &str, reached: impl Fn() -> bool) {
    let begin = Instant::now();
    while !reached() {
        assert!(begin.elapsed() < PATIENCE, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn answer(mut stream: TcpStream) -> (u16, String, Value) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or(Value::Null))
}

fn post(path: &str, body: &str, headers: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

fn completion(body: &str, headers: &str) -> String {
    post("/v1/completions", body, &format!("content-type: application/json\r\n{headers}"))
}

const CLOSE: &str = "connection: close\r\n";

#[test]
fn connections_that_send_half_a_request_are_closed() {
    let short = Duration::from_millis(200);
    let options = ServeOptions { header_timeout: short, body_timeout: short, ..ServeOptions::default() };
    let server = Server::start(options);
    for sent in ["", "POST /v1/comp", "POST /v1/completions HTTP/1.1\r\nhost: local"] {
        let mut bytes = Vec::new();
        let _ = server.connect(sent).read_to_end(&mut bytes);
    }
    let whole = completion(r#"{"prompt": "a"}"#, "");
    let (status, _, body) = server.ask(&whole[..whole.len() - 5]);
    assert_eq!((status, body["error"]["type"].as_str()), (408, Some("timeout_error")));

    // A body that comes byte by byte has the same time as one that stops.
    let mut dribble = server.connect(&whole[..whole.len() - 14]);
    let mut reader = dribble.try_clone().unwrap();
    let writer = thread::spawn(move || {
        let begin = Instant::now();
        while dribble.write_all(b" ").is_ok() && begin.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let mut first = [0; 12];
    reader.read_exact(&mut first).unwrap();
    assert!(matches!(&first[9..], b"408" | b"400"), "{first:?}");
    drop(reader);
    writer.join().unwrap();
    assert_eq!(server.complete("a").0, 200);
}

#[test]
fn connections_over_the_limit_are_told_so() {
    let server = Server::start(ServeOptions { max_connections: 2, ..ServeOptions::default() });
    let held = [server.connect(""), server.connect("")];
    let (status, head, body) = answer(server.connect(""));
    assert_eq!((status, body["error"]["code"].as_str()), (503, Some("too_many_connections")));
    assert!(head.contains("retry-after"), "{head}");
    drop(held);
    wait_until("a free place", || {
        let mut bytes = String::new();
        let asked = format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{CLOSE}\r\n");
        server.connect(&asked).read_to_string(&mut bytes).is_ok() && bytes.contains("200 OK")
    });
}

#[test]
fn bodies_share_a_bounded_memory() {
    let options = ServeOptions { max_body: 64 << 10, body_memory: 128 << 10, ..ServeOptions::default() };
    let server = Server::start(options);
    let half = "a".repeat(60 << 10);
    let head = completion("", "").replace("content-length: 0", "content-length: 65000");
    let mut held: Vec<TcpStream> = (0..8).map(|_| server.connect(&format!("{head}{half}"))).collect();
    // Those for whom there is no room are told at once.
    let refused = held.iter_mut().map(|stream| {
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).is_ok() && &first[9..] == b"503"
    });
    assert!(refused.filter(|refused| *refused).count() >= 6);
    drop(held);
    wait_until("room", || server.complete("a").0 == 200);
    let (status, _, body) = server.ask(&completion(&"a".repeat(65 << 10), ""));
    assert_eq!((status, body["error"]["code"].as_str()), (413, Some("request_too_large")));
    // Also where the length is not said beforehand.
    let head = completion("", "").replace("content-length: 0", "transfer-encoding: chunked");
    let chunk = format!("10000\r\n{}\r\n", "a".repeat(0x10000));
    assert_eq!(server.ask(&format!("{head}{chunk}{chunk}")).0, 413);
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let server = Server::start(ServeOptions { concurrency: 1, ..ServeOptions::default() });
    let silent = completion(r#"{"prompt": "silent"}"#, "");
    let stream = completion(r#"{"prompt": "silent", "stream": true}"#, "");
    for sent in [silent.clone(), stream, format!("{silent}{silent}"), silent.repeat(500)] {
        let connection = server.connect(&sent);
        server.wait_for_running(1);
        drop(connection);
        server.wait_for_running(0);
        assert_eq!(server.complete("a").0, 200);
    }
}

#[test]
fn the_time_limit_holds_where_no_text_comes_and_where_nobody_reads() {
    let timeout = Duration::from_millis(300);
    let server = Server::start(ServeOptions { concurrency: 1, timeout, ..ServeOptions::default() });
    assert_eq!(server.complete("silent").0, 504);
    let unread = server.connect(&completion(r#"{"prompt": "flood", "stream": true}"#, ""));
    server.wait_for_running(1);
    server.wait_for_running(0);
    assert_eq!(server.complete("a").0, 200);
    drop(unread);
}

#[test]
fn an_answer_that_nobody_reads_is_given_up() {
    let write_timeout = Duration::from_millis(200);
    let server = Server::start(ServeOptions { concurrency: 1, write_timeout, ..ServeOptions::default() });
    let unread = server.connect(&completion(r#"{"prompt": "flood", "stream": true}"#, ""));
    server.wait_for_running(1);
    server.wait_for_running(0);
    drop(unread);
}

#[test]
fn the_end_comes_within_its_deadline() {
    let shutdown_timeout = Duration::from_millis(500);
    let mut server = Server::start(ServeOptions { shutdown_timeout, ..ServeOptions::default() });
    let whole = completion(r#"{"prompt": "a"}"#, "");
    let held: Vec<TcpStream> = [&whole[..10], &whole[..40], &whole[..whole.len() - 3], ""]
        .into_iter()
        .map(|sent| server.connect(sent))
        .collect();
    let silent = server.connect(&completion(r#"{"prompt": "silent"}"#, ""));
    server.wait_for_running(1);
    server.stop.take().unwrap().send(()).unwrap();
    wait_until("the end", || server.ended.load(Ordering::SeqCst));
    server.wait_for_running(0);
    drop((held, silent));
}

#[test]
fn faults_of_the_engine_are_not_the_clients() {
    let server = Server::start(ServeOptions { concurrency: 1, ..ServeOptions::default() });
    for (prompt, status, kind) in [
        ("panic", 500, "server_error"),
        ("fail", 500, "server_error"),
        ("long", 400, "invalid_request_error"),
        ("a", 200, ""),
    ] {
        let (found, _, body) = server.complete(prompt);
        assert_eq!(found, status, "{prompt}: {body}");
        assert_eq!(body["error"]["type"].as_str().unwrap_or_default(), kind);
    }
    assert_eq!(server.complete("long").2["error"]["code"], "context_length_exceeded");
}

#[test]
fn errors_of_paths_methods_and_media_types_have_openais_shape() {
    let server = Server::start(ServeOptions::default());
    let get = |method: &str, path: &str| {
        server.ask(&format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n{CLOSE}\r\n"))
    };
    for (found, status) in [
        (get("GET", "/v1/absent"), 404),
        (get("POST", "/v1/absent"), 404),
        (get("GET", "/v1/completions"), 405),
        (get("DELETE", "/v1/models"), 405),
        (server.ask(&post("/v1/completions", "{}", CLOSE)), 415),
        (server.ask(&post("/v1/completions", "{}", &format!("content-type: text/plain\r\n{CLOSE}"))), 415),
    ] {
        assert_eq!(found.0, status, "{}", found.1);
        assert!(
            found.2["error"]["message"].is_string() && found.2["error"]["code"].is_string(),
            "{}",
            found.2
        );
    }
    let json = format!("content-type: application/json; charset=utf-8\r\n{CLOSE}");
    assert_eq!(server.ask(&post("/v1/completions", r#"{"prompt": "a"}"#, &json)).0, 200);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let allow_origins = vec!["https://app.example".to_string()];
    let server = Server::start(ServeOptions { allow_origins, ..ServeOptions::default() });
    let ask = |header: &str| server.ask(&completion(r#"{"prompt": "a"}"#, &format!("{header}\r\n{CLOSE}")));
    for header in ["origin: http://evil.example", "origin: null", "sec-fetch-site: cross-site"] {
        assert_eq!(ask(header).0, 403, "{header}");
    }
    for origin in ["http://localhost:3000", "http://127.0.0.1", "https://app.example"] {
        let (status, head, _) = ask(&format!("origin: {origin}"));
        assert_eq!(status, 200);
        assert!(head.contains(&format!("access-control-allow-origin: {origin}")), "{head}");
    }
    // A name that was made to resolve to this machine.
    let rebound =
        completion(r#"{"prompt": "a"}"#, CLOSE).replace("host: localhost", "host: evil.example:8080");
    assert_eq!(server.ask(&rebound).0, 403);

    let preflight = |origin: &str| {
        server
            .ask(&format!(
                "OPTIONS /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\n\
                 access-control-request-method: POST\r\n\
                 access-control-request-headers: authorization,content-type\r\n{CLOSE}\r\n"
            ))
            .1
    };
    let allowed = preflight("http://localhost:3000");
    for expected in [
        "200 ok",
        "access-control-allow-origin: http://localhost:3000",
        "access-control-allow-headers: authorization,content-type",
        "post",
    ] {
        assert!(allowed.contains(expected), "{expected}: {allowed}");
    }
    assert!(!preflight("http://evil.example").contains("access-control-allow-origin"));
}

#[test]
fn a_service_with_a_key_answers_only_those_who_have_it() {
    let server =
        Server::start(ServeOptions { api_key: Some("secret".to_string()), ..ServeOptions::default() });
    let ask = |header: &str| server.ask(&completion(r#"{"prompt": "a"}"#, &format!("{header}{CLOSE}"))).0;
    assert_eq!(ask(""), 401);
    assert_eq!(ask("authorization: Bearer secre\r\n"), 401);
    assert_eq!(ask("authorization: secret\r\n"), 401);
    assert_eq!(ask("authorization: Bearer secret\r\n"), 200);
    let lora = |header: &str| {
        let headers = format!("content-type: application/json\r\n{header}{CLOSE}");
        server.ask(&post("/lora-adapters", "[]", &headers)).0
    };
    assert_eq!((lora(""), lora("authorization: Bearer secret\r\n")), (401, 200));
    let open = Server::start(ServeOptions::default());
    let headers = format!("content-type: application/json\r\n{CLOSE}");
    assert_eq!(open.ask(&post("/lora-adapters", "[]", &headers)).0, 403);
}

#[test]
fn extreme_options_work() {
    let server = Server::start(ServeOptions {
        concurrency: usize::MAX,
        queue: usize::MAX,
        timeout: Duration::from_secs(u64::MAX),
        max_body: usize::MAX,
        body_memory: usize::MAX,
        max_connections: usize::MAX,
        header_timeout: Duration::from_secs(u64::MAX / 4),
        body_timeout: Duration::MAX,
        write_timeout: Duration::MAX,
        shutdown_timeout: Duration::MAX,
        ..ServeOptions::default()
    });
    assert_eq!(server.complete("a").0, 200);
}
