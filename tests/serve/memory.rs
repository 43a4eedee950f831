//! `--kv-memory`, and the run before `/ready`.

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
