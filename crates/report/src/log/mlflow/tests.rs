//! Against a server of a few lines that takes only what MLflow's REST specification allows, and keeps what it took. The real
//! one is asked by `tests/interop/mlflow_run.py`.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use super::super::{MatrixHealth, RunLog, Train};
use super::*;

/// What a server knows, and how it behaves.
#[derive(Default)]
struct Server {
    /// Names of experiments; their ids are their places.
    experiments: Mutex<Vec<String>>,
    runs: Mutex<Vec<Value>>,
    /// Every request: method, path, authorization, body.
    requests: Mutex<Vec<(String, String, String, Value)>>,
    /// Answers that it is too busy.
    busy: AtomicBool,
    /// Is too slow for more numbers than these in a request; 0 for none.
    most: AtomicUsize,
    /// Does not let anybody in.
    closed: AtomicBool,
}

fn held<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Starts one; with its address.
    fn start() -> (Arc<Self>, String) {
        let server = Arc::new(Self::default());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let own = Arc::clone(&server);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = Arc::clone(&own);
                std::thread::spawn(move || own.connection(&stream));
            }
        });
        (server, url)
    }

    fn connection(&self, stream: &TcpStream) {
        let mut reader = BufReader::new(stream);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut words = line.split_whitespace().map(str::to_string);
            let (method, path) = (words.next().unwrap(), words.next().unwrap());
            let (mut length, mut authorization) = (0, String::new());
            loop {
                let mut header = String::new();
                reader.read_line(&mut header).unwrap();
                let Some((name, value)) = header.trim().split_once(':') else { break };
                match name.to_ascii_lowercase().as_str() {
                    "content-length" => length = value.trim().parse().unwrap(),
                    "authorization" => authorization = value.trim().to_string(),
                    "content-type" => assert_eq!(value.trim(), "application/json"),
                    _ => {}
                }
            }
            // "A single JSON-serialized API request may be up to 1 MB in size."
            assert!(length <= 1 << 20, "{length} bytes");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            let (status, answer) = self.answer(&method, &path, &body);
            held(&self.requests).push((method, path, authorization, body));
            let answer = answer.to_string();
            let head = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n");
            let whole = format!("{head}Content-Length: {}\r\n\r\n{answer}", answer.len());
            if (&*stream).write_all(whole.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let fault = |status: u16, code: &str| (status, json!({ "error_code": code, "message": "no" }));
        if self.busy.load(Ordering::Relaxed) {
            return fault(503, "TEMPORARILY_UNAVAILABLE");
        }
        if self.closed.load(Ordering::Relaxed) {
            return fault(403, "PERMISSION_DENIED");
        }
        let path = path.strip_prefix("/api/2.0/mlflow/").unwrap_or("?");
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_string();
        match (method, path) {
            ("GET", path) if path.starts_with("experiments/get-by-name?experiment_name=") => {
                let name = path.split('=').nth(1).unwrap().replace("%20", " ").replace('+', " ");
                match held(&self.experiments).iter().position(|known| *known == name) {
                    Some(id) => (
                        200,
                        json!({ "experiment": { "experiment_id": id.to_string(), "lifecycle_stage": "active" } }),
                    ),
                    None => fault(404, "RESOURCE_DOES_NOT_EXIST"),
                }
            }
            ("POST", "experiments/create") => {
                let mut experiments = held(&self.experiments);
                experiments.push(text("name"));
                (200, json!({ "experiment_id": (experiments.len() - 1).to_string() }))
            }
            ("POST", "runs/create") => {
                assert!(text("experiment_id").parse::<usize>().unwrap() < held(&self.experiments).len());
                assert!(body["start_time"].as_u64().unwrap() > 1_600_000_000_000, "milliseconds");
                let mut runs = held(&self.runs);
                let id = format!("run{}", runs.len());
                let run = json!({ "info": { "run_id": id, "status": "RUNNING", "run_name": body["run_name"] },
                    "data": { "metrics": [], "params": {}, "tags": body["tags"] } });
                runs.push(run.clone());
                (200, json!({ "run": run }))
            }
            ("POST", "runs/update" | "runs/log-batch") => {
                let mut runs = held(&self.runs);
                let Some(run) = runs.iter_mut().find(|run| run["info"]["run_id"] == body["run_id"]) else {
                    return fault(404, "RESOURCE_DOES_NOT_EXIST");
                };
                let (most, numbers) = (self.most.load(Ordering::Relaxed), body["metrics"].as_array());
                if most > 0 && numbers.is_some_and(|numbers| numbers.len() > most) {
                    return fault(504, "GATEWAY_TIMEOUT");
                }
                match path {
                    "runs/update" => update(run, body),
                    _ => log_batch(run, body),
                }
            }
            other => panic!("{other:?} is no request of MLflow's"),
        }
    }

    fn run(&self, index: usize) -> Value {
        held(&self.runs)[index].clone()
    }

    fn count(&self, path: &str) -> usize {
        held(&self.requests).iter().filter(|request| request.1.contains(path)).count()
    }
}

fn update(run: &mut Value, body: &Value) -> (u16, Value) {
    assert!(["RUNNING", "FINISHED", "FAILED", "KILLED"].contains(&body["status"].as_str().unwrap()));
    run["info"]["status"] = body["status"].clone();
    run["info"]["end_time"] = body["end_time"].clone();
    (200, json!({ "run_info": run["info"] }))
}

/// Limits are those of the specification's "Log Batch".
fn log_batch(run: &mut Value, body: &Value) -> (u16, Value) {
    let list = |key: &str| body[key].as_array().cloned().unwrap_or_default();
    let (metrics, params) = (list("metrics"), list("params"));
    assert!(metrics.len() <= 1000 && params.len() <= 100 && metrics.len() + params.len() > 0);
    for param in params {
        let [key, value] = ["key", "value"].map(|name| param[name].as_str().unwrap().to_string());
        assert!(!key.is_empty() && key.len() <= 250 && value.len() <= 500, "{key}: {value}");
        let known = &mut run["data"]["params"][&key];
        if !known.is_null() && *known != json!(value) {
            // "once written, param values cannot be changed"
            return (
                400,
                json!({ "error_code": "INVALID_PARAMETER_VALUE", "message": "Changing param values" }),
            );
        }
        *known = json!(value);
    }
    for metric in metrics {
        let key = metric["key"].as_str().unwrap();
        let allowed = |c: char| c.is_alphanumeric() || "_-. /".contains(c);
        assert!(!key.is_empty() && key.len() <= 250 && key.chars().all(allowed), "{key}");
        assert!(
            metric["value"].is_number()
                || ["NaN", "Infinity", "-Infinity"].contains(&metric["value"].as_str().unwrap())
        );
        assert!(metric["timestamp"].is_u64() && metric["step"].is_u64());
        run["data"]["metrics"].as_array_mut().unwrap().push(metric);
    }
    (200, json!({}))
}

fn run(step: u64, recipe: &str) -> Event {
    let (name, recipe) = ("n".to_string(), recipe.to_string());
    Event::Run { step, name, parameters: 7, threads: 2, gemm_flops: 1e9, backward: None, recipe }
}

fn train(step: u64, loss: f64) -> Event {
    let metrics = [("z_loss".to_string(), 0.25)].into();
    let (lr, grad_norm, tokens, tokens_per_second) = (1e-3, 0.5, 64 * step, 100.0);
    let (mfu, rss, peak_rss) = (None, None, None);
    Event::Train(Train { step, loss, lr, grad_norm, tokens, tokens_per_second, mfu, rss, peak_rss, metrics })
}

fn end(step: u64, ending: Ending) -> Event {
    Event::End { step, ending, reason: String::new() }
}

fn open(dir: &Path, step: u64, url: &str) -> RunLog {
    let tags = [("mlflow.runName", "sub-norm, seed 1"), ("tritforge.arm", "sub-norm")];
    let tags = tags.map(|(key, value)| (key.to_string(), value.to_string())).to_vec();
    let options = MlflowOptions { url: url.to_string(), experiment: "my runs".to_string(), tags };
    RunLog::open(dir, step).unwrap().with_mlflow(step, &options).unwrap()
}

fn values(run: &Value, key: &str) -> Vec<(u64, Value)> {
    let metrics = run["data"]["metrics"].as_array().unwrap().iter().filter(|metric| metric["key"] == key);
    metrics.map(|metric| (metric["step"].as_u64().unwrap(), metric["value"].clone())).collect()
}

#[test]
fn a_run_is_logged_with_parameters_numbers_and_its_end() {
    let (dir, (server, url)) = (tempfile::tempdir().unwrap(), Server::start());
    let mut log = open(dir.path(), 0, &url);
    let long = "é".repeat(600);
    let many: String = (0..150).map(|i| format!("k{i} = {i}\n")).collect();
    log.event(&run(0, &format!("[optim]\nlr = 1e-3\n[data]\ntrain = [\"{long}\"]\n[x]\n{many}"))).unwrap();
    let matrix = |i: usize| MatrixHealth {
        name: format!("model.layers.{i}.mlp.up_proj"),
        zero: 0.3,
        positive: None,
        flipped: Some(0.5),
        scale: 0.02,
        drift: None,
        distance: 0.6,
    };
    // More numbers than a request takes.
    let health = Event::Health { step: 2, steps: 2, matrices: (0..600).map(matrix).collect() };
    let eval = Event::Eval { step: 2, loss: f64::INFINITY, bits_per_byte: 1.5, sample: "text".to_string() };
    for event in [train(1, 3.0), train(2, f64::NAN), eval, health, end(2, Ending::Finished)] {
        log.event(&event).unwrap();
    }
    assert_eq!(*held(&server.experiments), ["my runs"]);
    let found = server.run(0);
    assert_eq!(
        (&found["info"]["status"], &found["info"]["run_name"]),
        (&json!("FINISHED"), &json!("sub-norm, seed 1"))
    );
    assert!(found["info"]["end_time"].as_u64().unwrap() > 1_600_000_000_000);
    let tags = found["data"]["tags"].as_array().unwrap();
    assert!(tags.contains(&json!({ "key": "tritforge.arm", "value": "sub-norm" })), "{tags:?}");
    assert!(tags.iter().all(|tag| tag["key"] != "mlflow.runName"), "the name is given once");
    let params = found["data"]["params"].as_object().unwrap();
    assert_eq!((params.len(), &params["optim.lr"], &params["x.k149"]), (152, &json!("0.001"), &json!("149")));
    assert!(params["data.train"].as_str().unwrap().ends_with('…'));
    assert_eq!(values(&found, "loss/train"), [(1, json!(3.0)), (2, json!("NaN"))]);
    assert_eq!(values(&found, "loss/held_out"), [(2, json!("Infinity"))]);
    assert_eq!(values(&found, "loss/z_loss").len(), 2);
    assert_eq!(values(&found, "ternary_flipped_per_step/model.layers.599.mlp.up_proj"), [(2, json!(0.25))]);
    // 2 · 5 + 2 + 600 · 4 numbers.
    assert_eq!(found["data"]["metrics"].as_array().unwrap().len(), 2412);
}

#[test]
fn a_run_that_goes_on_is_the_same_run_there() {
    let (dir, (server, url)) = (tempfile::tempdir().unwrap(), Server::start());
    let mut log = open(dir.path(), 0, &url);
    for event in [run(0, "[optim]\nlr = 1e-3"), train(1, 3.0), train(2, 2.0), end(2, Ending::Stopped)] {
        log.event(&event).unwrap();
    }
    assert_eq!(server.run(0)["info"]["status"], "KILLED");
    // With another value of a parameter: the server keeps the first, and takes everything else.
    let mut log = open(dir.path(), 2, &url);
    for event in [run(2, "[optim]\nlr = 2e-3"), train(3, 1.0), end(3, Ending::Failed)] {
        log.event(&event).unwrap();
    }
    let found = server.run(0);
    assert_eq!((held(&server.runs).len(), &found["info"]["status"]), (1, &json!("FAILED")));
    assert_eq!(values(&found, "loss/train"), [(1, json!(3.0)), (2, json!(2.0)), (3, json!(1.0))]);
    assert_eq!(found["data"]["params"]["optim.lr"], "0.001");
    // A server that does not know the run gets its earlier numbers too.
    let (other, elsewhere) = Server::start();
    let mut log = open(dir.path(), 3, &elsewhere);
    for event in [run(3, "[optim]\nlr = 2e-3"), train(4, 0.5), end(4, Ending::Finished)] {
        log.event(&event).unwrap();
    }
    assert_eq!(
        values(&other.run(0), "loss/train").iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        [1, 2, 3, 4]
    );
    // A record that is damaged is none.
    std::fs::write(dir.path().join(record::FILE), "{").unwrap();
    let mut log = open(dir.path(), 4, &elsewhere);
    [run(4, ""), end(4, Ending::Stopped)].iter().for_each(|event| log.event(event).unwrap());
    assert_eq!(values(&other.run(1), "loss/train").len(), 4);
    assert_eq!(held(&other.runs).len(), 2);
    // From the beginning it is another run.
    let mut log = open(dir.path(), 0, &url);
    [run(0, ""), end(0, Ending::Stopped)].iter().for_each(|event| log.event(event).unwrap());
    assert_eq!(held(&server.runs).len(), 2);
}

#[test]
fn what_a_busy_server_does_not_take_is_sent_later() {
    let (dir, (server, url)) = (tempfile::tempdir().unwrap(), Server::start());
    server.busy.store(true, Ordering::Relaxed);
    let mut log = open(dir.path(), 0, &url);
    [run(0, "[optim]\nlr = 1e-3"), train(1, 3.0)].iter().for_each(|event| log.event(event).unwrap());
    while server.count("experiments") == 0 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    log.event(&train(2, 2.0)).unwrap();
    server.busy.store(false, Ordering::Relaxed);
    log.event(&end(2, Ending::Finished)).unwrap();
    let found = server.run(0);
    assert_eq!(values(&found, "loss/train"), [(1, json!(3.0)), (2, json!(2.0))]);
    assert_eq!(found["info"]["status"], "FINISHED");
}

/// Nobody listens, somebody refuses, somebody is no MLflow server: the run's own log is whole each time.
#[test]
fn a_run_does_not_depend_on_the_server() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (server, closed) = Server::start();
    server.closed.store(true, Ordering::Relaxed);
    for url in [format!("http://{free}"), closed, "http://host.invalid".to_string()] {
        let dir = tempfile::tempdir().unwrap();
        let mut log = open(dir.path(), 0, &url);
        for event in [run(0, ""), train(1, 3.0), end(1, Ending::Finished)] {
            log.event(&event).unwrap();
        }
        let lines = std::fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
        assert_eq!(lines.lines().count(), 3);
        assert!(!dir.path().join(record::FILE).exists());
    }
    assert_eq!(server.count("/runs/"), 0);
}

#[test]
fn no_more_numbers_wait_than_there_is_room_for() {
    let room = Room::default();
    assert!(room.enter(WAITING - 1) && !room.enter(2) && room.enter(1) && !room.enter(usize::MAX));
    room.leave(WAITING);
    assert!(room.enter(WAITING));
}

#[test]
fn who_asks_is_said_as_mlflows_own_client_says_it() {
    let (server, url) = Server::start();
    let ask = |variables: &[(&str, &str)]| {
        let of =
            |name: &str| variables.iter().find(|(own, _)| *own == name).map(|(_, value)| value.to_string());
        Client::new(&url, of).experiment("e").unwrap();
        held(&server.requests).last().unwrap().2.clone()
    };
    let user = [("MLFLOW_TRACKING_USERNAME", "Aladdin"), ("MLFLOW_TRACKING_PASSWORD", "open sesame")];
    assert_eq!(ask(&[]), "");
    // RFC 7617, section 2.
    assert_eq!(ask(&user), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    let token = [("MLFLOW_TRACKING_TOKEN", "t")];
    assert_eq!(ask(&[&user[..], &token].concat()), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    assert_eq!(ask(&[&user[..1], &token].concat()), "Bearer t");
    assert_eq!(ask(&user[..1]), "");
    assert_eq!(ask(&[("MLFLOW_TRACKING_TOKEN", "")]), "");
}

/// A thread's work without the thread, for a run in `dir`; with what it shares with training.
fn worker(dir: &Path, url: &str) -> (Worker, Arc<Room>, Arc<OnceLock<Instant>>) {
    let (room, ended) = (Arc::new(Room::default()), Arc::new(OnceLock::new()));
    let options = MlflowOptions { url: url.to_string(), experiment: "e".to_string(), tags: Vec::new() };
    let client = Client::new(url, |_| None);
    let worker = Worker::new(client, options, dir.join(record::FILE), Arc::clone(&room), Arc::clone(&ended));
    (worker, room, ended)
}

fn point(step: u64) -> Point {
    Point { key: "loss".to_string(), value: 1.0, step, time: now() }
}

#[test]
fn the_end_of_training_does_not_wait_for_all_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (server, url) = Server::start();
    let (worker, room, ended) = worker(dir.path(), &url);
    let (items, received) = channel();
    let thread = std::thread::spawn(move || worker.serve(&received));
    items.send(Item::Begin { name: "r".to_string(), params: Vec::new() }).unwrap();
    let start = Instant::now();
    while held(&server.runs).is_empty() {
        assert!(start.elapsed().as_secs() < 60, "the run is begun");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    // Training has waited longer than it should already.
    ended.set(Instant::now() - std::time::Duration::from_secs(60)).unwrap();
    assert!(room.enter(2));
    items.send(Item::Points(vec![point(1), point(2)])).unwrap();
    items.send(Item::End("FINISHED")).unwrap();
    thread.join().unwrap();
    let run = server.run(0);
    assert_eq!((run["info"]["status"].as_str(), room.lost()), (Some("FINISHED"), 2));
    assert_eq!(run["data"]["metrics"], json!([]));
}

#[test]
fn a_server_that_takes_only_a_few_numbers_at_once_gets_all_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let (server, url) = Server::start();
    server.most.store(300, Ordering::Relaxed);
    let (mut worker, room, _) = worker(dir.path(), &url);
    assert!(room.enter(2000));
    (worker.begun, worker.points) = (Some(("r".to_string(), Vec::new())), (0..2000).map(point).collect());
    // 1000, 500 and at last 250, which grow until there are too many again.
    let mut failures = 0;
    while worker.send().is_err() {
        failures += 1;
        assert!(failures < 20);
    }
    assert!(failures >= 2);
    let steps: Vec<u64> = values(&server.run(0), "loss").iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, (0..2000).collect::<Vec<u64>>());
    assert_eq!(room.lost(), 0);
}

#[test]
fn a_run_whose_training_is_gone_without_a_word_has_failed() {
    let (dir, (server, url)) = (tempfile::tempdir().unwrap(), Server::start());
    let mut log = open(dir.path(), 0, &url);
    [run(0, ""), train(1, 3.0)].iter().for_each(|event| log.event(event).unwrap());
    drop(log);
    let found = server.run(0);
    assert_eq!(found["info"]["status"], "FAILED");
    assert_eq!(values(&found, "loss/train"), [(1, json!(3.0))]);
}

#[test]
fn the_end_of_training_sends_all_numbers_in_smaller_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (server, url) = Server::start();
    server.most.store(300, Ordering::Relaxed);
    let (worker, room, ended) = worker(dir.path(), &url);
    let (items, received) = channel();
    assert!(room.enter(2000));
    items.send(Item::Begin { name: "r".to_string(), params: Vec::new() }).unwrap();
    items.send(Item::Points((0..2000).map(point).collect())).unwrap();
    items.send(Item::End("FINISHED")).unwrap();
    ended.set(Instant::now()).unwrap();
    worker.serve(&received);
    let run = server.run(0);
    assert_eq!((run["info"]["status"].as_str(), room.lost()), (Some("FINISHED"), 0));
    assert_eq!(values(&run, "loss").len(), 2000);
}
