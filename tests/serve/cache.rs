//! Answers that are kept for requests that must get the same ones.

use serde_json::{Value, json};

use crate::Served;

fn ask(served: &Served, body: &Value) -> Value {
    let (status, _, answer) = served.post("/v1/completions", "", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str(&answer).unwrap()
}

/// Requests looked up, and found.
fn lookups(served: &Served) -> [f64; 2] {
    ["queries", "hits"].map(|what| served.metric(&format!("tritforge_response_cache_{what}_total"), ""))
}

#[test]
fn an_equal_request_gets_the_answer_again() {
    let served = Served::start(&["--response-cache", "1"]);
    let body = json!({ "prompt": ["one", "two"], "n": 2, "max_tokens": 6, "temperature": 0.9, "seed": 5, "logprobs": 2 });
    let first = ask(&served, &body);
    let tokens = served.metric("tritforge_generation_tokens_total", "");
    assert_eq!(lookups(&served), [1.0, 0.0]);
    let again = ask(&served, &body);
    assert_eq!((&again["choices"], &again["usage"]), (&first["choices"], &first["usage"]));
    assert_eq!(lookups(&served), [2.0, 1.0]);
    assert_eq!(served.metric("tritforge_generation_tokens_total", ""), tokens);
    assert!(served.metric("tritforge_response_cache_bytes", "") > 0.0);
    // A part of it is found as well: the first answer to the second prompt.
    let mut part = body.clone();
    (part["prompt"], part["n"]) = ("two".into(), 1.into());
    let text = ask(&served, &part)["choices"][0]["text"].clone();
    assert_eq!((lookups(&served), &text), ([3.0, 2.0], &first["choices"][2]["text"]));
    // Streamed it is the same text.
    part["stream"] = true.into();
    let (_, _, stream) = served.post("/v1/completions", "", &part.to_string());
    let events = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let streamed: String = events
        .filter_map(|event| serde_json::from_str::<Value>(event).ok())
        .filter_map(|event| event["choices"][0]["text"].as_str().map(str::to_string))
        .collect();
    assert_eq!((lookups(&served), streamed.as_str()), ([4.0, 3.0], text.as_str().unwrap()));
    assert!(stream.contains("[DONE]"));
    // Whatever else is asked for is another request.
    for (field, value) in
        [("seed", json!(60)), ("temperature", json!(0.8)), ("max_tokens", json!(5)), ("prompt", json!("One"))]
    {
        let [_, hits] = lookups(&served);
        let mut other = body.clone();
        other[field] = value;
        ask(&served, &other);
        assert_eq!(lookups(&served)[1], hits, "{field}");
    }
}

#[test]
fn what_is_drawn_anew_each_time_is_not_kept() {
    let served = Served::start(&["--response-cache", "1"]);
    for _ in 0..2 {
        ask(&served, &json!({ "prompt": "a", "max_tokens": 4 }));
    }
    assert_eq!(lookups(&served), [0.0, 0.0]);
    for _ in 0..2 {
        ask(&served, &json!({ "prompt": "a", "max_tokens": 4, "temperature": 0 }));
    }
    assert_eq!(lookups(&served), [2.0, 1.0]);
    // Nor is anything kept unless the operator wants it.
    let served = Served::start(&[]);
    for _ in 0..2 {
        ask(&served, &json!({ "prompt": "a", "max_tokens": 4, "temperature": 0 }));
    }
    assert_eq!((lookups(&served), served.metric("tritforge_response_cache_bytes", "")), ([0.0, 0.0], 0.0));
}
