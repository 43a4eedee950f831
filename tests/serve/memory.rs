//! `--kv-memory`, `--context`, and the run before `/ready`.

use std::process::Command;

use serde_json::Value;
use tritforge_infer::KvType;

use crate::{Served, model};

/// Bytes of the keys and values of 256 positions of the tests' model.
fn least(kv: KvType) -> usize {
    let (_dir, path) = model();
    let model = tritforge_infer::Model::open(&path).unwrap();
    tritforge_serve::Engine::least_kv_memory(&model, kv)
}

#[test]
fn requests_wait_for_memory_and_answers_are_the_same() {
    let body =
        r#"{"prompt": "one and the same prompt", "max_tokens": 40, "temperature": 0, "ignore_eos": true}"#;
    let right = Served::start(&["--concurrency", "8"]).post("/v1/completions", "", body);
    let right: Value = serde_json::from_str(&right.2).unwrap();
    // The context of this model is 128, so that the least memory is room for one request at a time.
    let memory = least(KvType::F16).to_string();
    let served = Served::start(&["--concurrency", "8", "--kv-memory", &memory]);
    let answers: Vec<(u16, String, String)> = std::thread::scope(|scope| {
        let ask = || scope.spawn(|| served.post("/v1/completions", "", body));
        let threads: Vec<_> = (0..8).map(|_| ask()).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (status, _, answer) in answers {
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &answer["choices"]), (200, &right["choices"]));
    }
    let limit: f64 = memory.parse().unwrap();
    assert_eq!(served.metric("tritforge_kv_cache_limit_bytes", ""), limit);
    assert!(served.metric("tritforge_kv_cache_bytes", "") <= limit);
}

#[test]
fn less_than_any_request_takes_is_refused() {
    let (_dir, path) = model();
    let least = least(KvType::F16);
    let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(["serve", path.to_str().unwrap(), "--kv-memory", &(least - 1).to_string()])
        .output()
        .unwrap();
    let message = String::from_utf8(ran.stderr).unwrap();
    assert!(
        !ran.status.success() && message.contains("--kv-memory") && message.contains(&least.to_string()),
        "{message}"
    );
}

#[test]
fn a_context_of_its_own_bounds_every_request() {
    let served = Served::start(&["--context", "40", "--concurrency", "2"]);
    let ask = |length: usize| {
        let prompt = "a".repeat(length);
        let body =
            format!(r#"{{"prompt": "{prompt}", "max_tokens": 100, "temperature": 0, "ignore_eos": true}}"#);
        let (status, _, answer) = served.post("/v1/completions", "", &body);
        (status, serde_json::from_str::<Value>(&answer).unwrap())
    };
    let (status, answer) = ask(8);
    let usage = &answer["usage"];
    assert_eq!((status, &answer["choices"][0]["finish_reason"]), (200, &Value::from("length")), "{answer}");
    // The last token of a full context is not run any more.
    let total = usage["total_tokens"].as_u64().unwrap();
    assert!((40..=41).contains(&total), "{usage}");
    let (status, answer) = ask(80);
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &Value::from("context_length_exceeded")),
        "{answer}"
    );
    assert!(answer["error"]["message"].as_str().unwrap().contains("serve --context"), "{answer}");
    let (_, _, tokens) = served.post("/tokenize", "", r#"{"content": "a"}"#);
    assert_eq!(serde_json::from_str::<Value>(&tokens).unwrap()["max_model_len"], 40);
    let (_dir, path) = model();
    let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(["serve", path.to_str().unwrap(), "--context", "129"])
        .output()
        .unwrap();
    let message = String::from_utf8(ran.stderr).unwrap();
    assert!(message.contains("--context 129: expected 1 to the model's context length, 128"), "{message}");
}

#[test]
fn the_type_of_keys_and_values_is_chosen() {
    let body = r#"{"prompt": "a prompt for all", "max_tokens": 20, "temperature": 0, "ignore_eos": true}"#;
    let [first, second, third] = ["f32", "f16", "q8_0"].map(|kv| {
        let served = Served::start(&["--kv", kv]);
        let (status, _, answer) = served.post("/v1/completions", "", body);
        assert_eq!(status, 200, "{answer}");
        served.metric("tritforge_kv_cache_bytes", "")
    });
    assert_eq!((second, third), (first / 2.0, second / 64.0 * 34.0));
    // What is too little for f16 is enough for q8_0.
    let less = least(KvType::F16) - 1;
    let served = Served::start(&["--kv", "q8_0", "--kv-memory", &less.to_string()]);
    assert_eq!(served.post("/v1/completions", "", body).0, 200);
}

#[test]
fn it_is_ready_once_the_model_has_run() {
    for args in [[].as_slice(), &["--no-warm-up"]] {
        let served = Served::start(args);
        if args.is_empty() {
            served.ready();
        } else {
            assert_eq!(served.get("/ready").0, 200);
        }
        // Nothing of that is counted.
        assert_eq!(served.metric("tritforge_generation_tokens_total", ""), 0.0);
    }
}
