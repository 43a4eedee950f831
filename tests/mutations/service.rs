//! Bodies of requests to the service, through all of it but the network.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use tower::ServiceExt as _;
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Job, Outcome, Piece, ServeOptions, router};

use crate::harness::{JSON_PUNCTUATION, Parser, Seed};

/// Paths by what a body begins with that fits them best.
const PATHS: [&str; 5] = [
    "/v1/completions",
    "/v1/chat/completions",
    "/lora-adapters",
    "/v1/load_lora_adapter",
    "/v1/unload_lora_adapter",
];

#[test]
fn request_bodies() {
    let engine = Engine::new("echo", |_: &Job, on_text| {
        let _ = on_text(Piece::from("é "));
        Ok(Outcome { finish: Finish::Length, prompt_tokens: 1, completion_tokens: 1 })
    });
    let options = ServeOptions { runtime_lora: Some("/nonexistent".into()), ..ServeOptions::default() };
    let seeds = [
        r#"0{"model":"echo","prompt":"a","max_tokens":4,"temperature":0.5,"top_p":0.9,"stop":["x","y"],"seed":3,"stream":true,
            "stream_options":{"include_usage":true},"logprobs":2,"n":2,"echo":false,"user":"u"}"#,
        r#"0{"prompt":[[1,2,3],[4]],"min_p":0.1,"repetition_penalty":1.1,"top_k":40}"#,
        r#"1{"messages":[{"role":"system","content":"a"},{"role":"user","content":[{"type":"text","text":"b"}]}],
            "max_completion_tokens":8,"logit_bias":{"5":-100},"response_format":{"type":"text"},"tools":[],"tool_choice":"none"}"#,
        r#"1{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":null,"tool_calls":[{"id":"c","type":"function",
            "function":{"name":"f","arguments":"{\"x\":1}"}}]},{"role":"tool","tool_call_id":"c","content":"3"}],"tools":[{"type":
            "function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"none"}"#,
        r#"0{"prompt":"a","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}}"#,
        r#"0{"prompt":"a","suffix":"b","structured_outputs":{"choice":["a","b"]}}"#,
        r#"2[{"id":0,"scale":0.5}]"#,
        r#"3{"lora_name":"a","lora_path":"b"}"#,
        r#"4{"lora_name":"a"}"#,
    ];
    let fields = [
        "\"prompt\"",
        "\"messages\"",
        "\"role\"",
        "\"content\"",
        "\"max_tokens\"",
        "\"temperature\"",
        "\"top_p\"",
        "\"top_k\"",
        "\"n\"",
        "\"stop\"",
        "\"seed\"",
        "\"stream\"",
        "\"logprobs\"",
        "\"logit_bias\"",
        "\"lora\"",
        "\"echo\"",
        "\"stream_options\"",
        "128",
        "-100",
        "0.5",
    ];
    let words = [&fields[..], &JSON_PUNCTUATION].concat();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let app = runtime.block_on(async { router(engine, &options) });
    let parser = Parser {
        name: "request_bodies",
        seeds: seeds.map(Seed::whole).into(),
        words: &words,
        times: 100,
        always: 256 << 10,
    };
    let mut first = seeds.len();
    parser.check(|bytes| {
        let path = bytes.first().map_or(0, |byte| usize::from(byte.wrapping_sub(b'0'))) % PATHS.len();
        let body = bytes.get(1..).unwrap_or_default().to_vec();
        let request =
            Request::post(PATHS[path]).header("content-type", "application/json").body(Body::from(body));
        let (status, answer) = runtime.block_on(async {
            let response = app.clone().oneshot(request.unwrap()).await.unwrap();
            let status = response.status().as_u16();
            (status, to_bytes(response.into_body(), 1 << 24).await.unwrap())
        });
        // An error has a body that says what it is; nothing that a client writes is the service's fault.
        assert!(status < 500, "{}: {status}: {}", PATHS[path], String::from_utf8_lossy(&answer));
        if status != 200 {
            let error: serde_json::Value = serde_json::from_slice(&answer).unwrap();
            assert!(error["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{error}");
        }
        // The bodies without damage reach their routes; there are no adapters that they could name.
        let undamaged = first > 0;
        first = first.saturating_sub(1);
        status == 200 || undamaged
    });
}
