//! Adapters over HTTP: a real model and real adapters behind a real socket, compared with the engine.

#[path = "../../infer/tests/common/adapter.rs"]
mod adapter;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use serde_json::{Value, json};
use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};
use tritforge_infer::{Adapter, GenerateOptions, Model, Sampling, ScaledAdapter, Session, generate};
use tritforge_serve::{Engine, ServeOptions, router};

const CONFIG: &str = "vocab_size = 260\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 2\nnum_attention_heads = 4\n\
    num_key_value_heads = 2\nhead_dim = 64\nmax_position_embeddings = 256\nhidden_act = \"silu\"\ninitializer_range = 0.5\n";
const PROMPT: &str = "once upon a time";
const TOKENS: usize = 24;

/// A directory with a model and three adapters, `a.gguf` to `c.gguf`.
struct Files {
    dir: TempDir,
    model: Arc<Model>,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = ModelConfig::from_toml(CONFIG).unwrap();
        let options = ExportOptions { name: "base".to_string(), ..ExportOptions::default() };
        let path = dir.path().join("model.gguf");
        synth_gguf(&config, &path, &options, 1, None).unwrap();
        let model = Arc::new(Model::open(&path).unwrap());
        for (seed, name) in ["a", "b", "c"].iter().enumerate() {
            write_adapter(&dir.path().join(format!("{name}.gguf")), &model, seed as u64 + 1);
        }
        Self { dir, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What the engine writes with these adapters.
    fn expected(&self, adapters: &[(&str, f32)]) -> String {
        let open = |(name, scale): &(&str, f32)| {
            let adapter = Adapter::open(&self.path(&format!("{name}.gguf")), &self.model).unwrap();
            ScaledAdapter { adapter: Arc::new(adapter), scale: *scale }
        };
        let mut session = Session::new(Arc::clone(&self.model), 256).unwrap();
        session.set_adapters(adapters.iter().map(open).collect::<Vec<_>>());
        let tokenizer = self.model.tokenizer();
        let prompt = tokenizer.encode(PROMPT, tokenizer.adds_bos()).unwrap();
        let sampling = Sampling { temperature: 0.0, ..Sampling::default() };
        let options = GenerateOptions { max_tokens: TOKENS, sampling, ..GenerateOptions::default() };
        let mut text = String::new();
        generate(&mut session, &prompt, &options, &mut |piece: &str| {
            text.push_str(piece);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
        text
    }
}

/// An adapter on two projections of every block, with numbers that depend on the seed.
fn write_adapter(path: &Path, model: &Model, seed: u64) {
    let mut state = seed;
    adapter::write_adapter(path, model, |_, tensors| {
        for value in tensors.iter_mut().flat_map(|tensor| tensor.bytes.as_chunks_mut().0) {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value = ((state >> 40) as f32 / (1 << 24) as f32 - 0.5).to_le_bytes();
        }
    });
}

/// A service that listens for as long as the test runs.
#[derive(Clone, Copy)]
struct Server(SocketAddr);

impl Server {
    fn start(engine: Engine, options: ServeOptions) -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                sender.send(listener.local_addr().unwrap()).unwrap();
                axum::serve(listener, router(engine, &options)).await.unwrap();
            });
        });
        Self(receiver.recv().unwrap())
    }

    /// With adapters `a` and `b` under their names.
    fn with_names(files: &Files, options: ServeOptions) -> Self {
        let engine = Engine::of(&files.model).unwrap();
        engine.adapters().load("a", &files.path("a.gguf"), 1.0).unwrap();
        engine.adapters().load("b", &files.path("b.gguf"), 0.5).unwrap();
        Self::start(engine, options)
    }

    /// Sends a request by HTTP/1.0, whose answer ends with the connection and is in no chunks.
    fn connect(self, method: &str, path: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.0).unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.0\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream
    }

    fn send(self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let mut text = String::new();
        self.connect(method, path, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or_else(|_| panic!("{text}")))
    }

    fn get(self, path: &str) -> Value {
        let (status, body) = self.send("GET", path, "");
        assert_eq!(status, 200, "{body}");
        body
    }

    fn post(self, path: &str, body: &Value) -> (u16, Value) {
        self.send("POST", path, &body.to_string())
    }

    /// The text and the model's name of a completion with these fields beside the prompt.
    fn complete(self, fields: Value) -> (String, String) {
        let (status, body) = self.post("/v1/completions", &request(fields));
        assert_eq!(status, 200, "{body}");
        let text = |value: &Value| value.as_str().unwrap().to_string();
        (text(&body["choices"][0]["text"]), text(&body["model"]))
    }

    fn text(self, fields: Value) -> String {
        self.complete(fields).0
    }

    /// Status, code and message of an error in OpenAI's shape.
    fn error(self, path: &str, body: &Value) -> (u16, Value, String) {
        let (status, body) = self.post(path, body);
        let error = &body["error"];
        (
            status,
            error["code"].clone(),
            error["message"].as_str().unwrap_or_else(|| panic!("{body}")).to_string(),
        )
    }
}

fn request(mut fields: Value) -> Value {
    fields["prompt"] = json!(PROMPT);
    fields["max_tokens"] = json!(TOKENS);
    fields["temperature"] = json!(0.0);
    fields
}

#[test]
fn a_request_has_the_adapters_that_it_names_and_no_others() {
    let files = Files::new();
    let server = Server::with_names(&files, ServeOptions::default());
    let (base, a, b) = (files.expected(&[]), files.expected(&[("a", 1.0)]), files.expected(&[("b", 0.5)]));
    let both = files.expected(&[("a", 0.25), ("b", 2.0)]);
    for (i, text) in [&base, &a, &b, &both].iter().enumerate() {
        assert!([&base, &a, &b, &both][..i].iter().all(|earlier| earlier != text), "adapters change texts");
    }
    assert_eq!(server.complete(json!({})), (base.clone(), "base".to_string()));
    assert_eq!(server.complete(json!({ "model": "a" })), (a.clone(), "a".to_string()));
    assert_eq!(server.text(json!({ "model": "b" })), b);
    // Nothing of the last one is left.
    assert_eq!(server.text(json!({ "model": "base" })), base);
    assert_eq!(server.text(json!({ "model": "a" })), a);
    let lora = |scales: &[(usize, f32)]| {
        let list: Vec<Value> = scales.iter().map(|(id, scale)| json!({ "id": id, "scale": scale })).collect();
        server.text(json!({ "lora": list }))
    };
    assert_eq!(lora(&[(1, 2.0), (0, 0.25)]), both);
    assert_eq!(lora(&[(0, 1.0)]), a);
    assert_eq!(lora(&[(1, 0.0)]), base);
    assert_eq!(lora(&[]), base);

    let models = server.get("/v1/models");
    let names: Vec<&str> =
        models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["base", "a", "b"]);
    assert_eq!((&models["data"][0]["parent"], &models["data"][2]["parent"]), (&Value::Null, &json!("base")));
}

#[test]
fn requests_with_different_adapters_at_once_get_what_each_gets_alone() {
    let files = Files::new();
    let server = Server::with_names(&files, ServeOptions { concurrency: 4, ..ServeOptions::default() });
    let cases = [
        (json!({}), files.expected(&[])),
        (json!({ "model": "a" }), files.expected(&[("a", 1.0)])),
        (json!({ "model": "b" }), files.expected(&[("b", 0.5)])),
        (
            json!({ "lora": [{ "id": 0, "scale": 1.0 }, { "id": 1, "scale": 1.0 }] }),
            files.expected(&[("a", 1.0), ("b", 1.0)]),
        ),
    ];
    let requests: Vec<_> = (0..12)
        .map(|i| {
            let (fields, expected) = cases[i % cases.len()].clone();
            thread::spawn(move || assert_eq!(server.text(fields), expected, "request {i}"))
        })
        .collect();
    requests.into_iter().for_each(|request| request.join().unwrap());
}

#[test]
fn the_defaults_are_those_of_the_start_until_they_are_set() {
    let files = Files::new();
    let adapter = Arc::new(Adapter::open(&files.path("a.gguf"), &files.model).unwrap());
    files.model.set_adapters(vec![ScaledAdapter { adapter, scale: 0.5 }]);
    let engine = Engine::of(&files.model).unwrap();
    engine.adapters().load("b", &files.path("b.gguf"), 1.0).unwrap();
    let closed = Server::start(engine.clone(), ServeOptions::default());
    assert_eq!(closed.post("/lora-adapters", &json!([])).0, 403, "nobody was allowed to");
    let options =
        ServeOptions { runtime_lora: Some(files.dir.path().to_path_buf()), ..ServeOptions::default() };
    let server = Server::start(engine, options);
    let list = server.get("/lora-adapters");
    assert_eq!(list[0], json!({ "id": 0, "name": "a", "path": "a.gguf", "scale": 0.5 }));
    assert_eq!(list[1]["scale"], 0.0);
    assert_eq!(server.text(json!({})), files.expected(&[("a", 0.5)]));
    assert_eq!(server.text(json!({ "lora": [] })), files.expected(&[]));

    let (status, _) = server.post("/lora-adapters", &json!([{ "id": 1, "scale": 0.75 }]));
    assert_eq!(status, 200);
    assert_eq!(server.get("/lora-adapters")[0]["scale"], 0.0);
    assert_eq!(server.text(json!({})), files.expected(&[("b", 0.75)]));
    // A name has its own scale, whatever the defaults.
    assert_eq!(server.text(json!({ "model": "a" })), files.expected(&[("a", 0.5)]));

    // A list with a fault changes nothing.
    let error = server.error("/lora-adapters", &json!([{ "id": 0, "scale": 1 }, { "id": 7, "scale": 1 }]));
    assert_eq!((error.0, error.1), (404, json!("adapter_not_found")));
    for wrong in [json!({}), json!([{ "id": 0 }]), json!([{ "id": 0, "scale": 1e300 }])] {
        assert_eq!(server.error("/lora-adapters", &wrong).0, 400, "{wrong}");
    }
    assert_eq!(server.text(json!({})), files.expected(&[("b", 0.75)]));
}

#[test]
fn what_does_not_exist_and_what_contradicts_itself_is_named() {
    let files = Files::new();
    let server = Server::with_names(&files, ServeOptions::default());
    let error = |fields: Value| server.error("/v1/completions", &request(fields));
    let (status, code, message) = error(json!({ "model": "poems" }));
    assert_eq!((status, code), (404, json!("model_not_found")));
    assert!(message.contains("\"poems\"") && message.contains("base, a, b"), "{message}");
    let (status, code, message) = error(json!({ "lora": [{ "id": 2, "scale": 1 }] }));
    assert_eq!((status, code), (404, json!("adapter_not_found")));
    assert!(message.contains("id 2"), "{message}");
    for (fields, expected) in [
        (json!({ "model": "a", "lora": [{ "id": 1, "scale": 1 }] }), "only one of the two"),
        (json!({ "lora": [{ "id": 1, "scale": 1 }, { "id": 1, "scale": 2 }] }), "twice"),
        (json!({ "lora": { "id": 1 } }), "expected a list"),
        (json!({ "lora": [{ "id": 1 }] }), "expected a list of {\"id\": NUMBER, \"scale\": NUMBER}"),
        (json!({ "lora": [{ "id": "a", "scale": 1 }] }), "lora.id = \"a\""),
        (json!({ "model": 3 }), "model = 3"),
    ] {
        let (status, _, message) = error(fields.clone());
        assert_eq!(status, 400, "{fields}");
        assert!(message.contains(expected), "{message}");
    }
    let chat = json!({ "model": "poems", "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(server.error("/v1/chat/completions", &chat).0, 404);
}

#[test]
fn adapters_come_and_go_where_the_operator_allows_it() {
    let files = Files::new();
    let load = |name: &str, path: &str| json!({ "lora_name": name, "lora_path": path });
    let closed = Server::with_names(&files, ServeOptions::default());
    for path in ["/v1/load_lora_adapter", "/v1/unload_lora_adapter"] {
        let (status, _, message) = closed.error(path, &load("a", "a.gguf"));
        assert_eq!(status, 403);
        assert!(message.contains("--allow-runtime-lora"), "{message}");
    }

    let runtime_lora = Some(files.dir.path().to_path_buf());
    let server = Server::with_names(&files, ServeOptions { runtime_lora, ..ServeOptions::default() });
    let (status, body) = server.post("/v1/load_lora_adapter", &load("c", "c.gguf"));
    assert_eq!((status, &body["id"]), (200, &json!(2)), "{body}");
    assert_eq!(server.text(json!({ "model": "c" })), files.expected(&[("c", 1.0)]));
    assert_eq!(server.text(json!({})), files.expected(&[]), "a new adapter is off by default");

    std::fs::write(files.path("broken.gguf"), b"no adapter").unwrap();
    for (body, expected, message) in [
        (load("c", "c.gguf"), 400, "already loaded"),
        (load("base", "c.gguf"), 400, "the model itself"),
        (load(" ", "c.gguf"), 400, "1 to 200 bytes"),
        (load("d", "broken.gguf"), 400, "broken.gguf"),
        (load("d", "model.gguf"), 400, "general.type"),
        (load("d", "nowhere.gguf"), 404, "no file nowhere.gguf"),
        (load("d", "/etc/passwd"), 404, "no file /etc/passwd"),
        (load("d", "../../../../../../etc/passwd"), 404, "no file"),
        (json!({ "lora_name": "d" }), 400, "lora_path"),
    ] {
        let (status, _, found) = server.error("/v1/load_lora_adapter", &body);
        assert_eq!(status, expected, "{body}: {found}");
        assert!(found.contains(message), "{body}: {found}");
    }
    #[cfg(unix)]
    {
        let outside = tempfile::NamedTempFile::new().unwrap();
        std::os::unix::fs::symlink(outside.path(), files.path("link.gguf")).unwrap();
        assert_eq!(server.error("/v1/load_lora_adapter", &load("d", "link.gguf")).0, 404);
    }

    // Numbers stay: the one of an adapter that is gone is nobody's.
    let unload = |name: &str| server.post("/v1/unload_lora_adapter", &json!({ "lora_name": name })).0;
    assert_eq!((unload("a"), unload("a")), (200, 404));
    assert_eq!(server.error("/v1/completions", &request(json!({ "model": "a" }))).0, 404);
    assert_eq!(
        server.error("/v1/completions", &request(json!({ "lora": [{ "id": 0, "scale": 1 }] }))).0,
        404
    );
    assert_eq!(server.text(json!({ "lora": [{ "id": 1, "scale": 0.5 }] })), files.expected(&[("b", 0.5)]));
    let (_, body) = server.post("/v1/load_lora_adapter", &load("a", files.path("a.gguf").to_str().unwrap()));
    assert_eq!(body["id"], 3);
    assert_eq!(server.text(json!({ "model": "a" })), files.expected(&[("a", 1.0)]));
}

#[test]
fn a_running_request_keeps_the_adapter_that_is_unloaded() {
    let files = Files::new();
    let runtime_lora = Some(files.dir.path().to_path_buf());
    let server = Server::with_names(&files, ServeOptions { runtime_lora, ..ServeOptions::default() });
    let mut fields = request(json!({ "model": "a", "stream": true }));
    fields["max_tokens"] = json!(TOKENS);
    let mut stream = server.connect("POST", "/v1/completions", &fields.to_string());
    let mut received = vec![0; 1];
    stream.read_exact(&mut received).unwrap();
    assert_eq!(server.post("/v1/unload_lora_adapter", &json!({ "lora_name": "a" })).0, 200);
    stream.read_to_end(&mut received).unwrap();
    let received = String::from_utf8(received).unwrap();
    let pieces = received.lines().filter_map(|line| line.strip_prefix("data: {")).map(|event| {
        let event: Value = serde_json::from_str(&format!("{{{event}")).unwrap();
        event["choices"][0]["text"].as_str().unwrap().to_string()
    });
    assert_eq!(pieces.collect::<String>(), files.expected(&[("a", 1.0)]));
    assert_eq!(server.error("/v1/completions", &request(json!({ "model": "a" }))).0, 404);
}
