//! Texts as tokens and back, and the best of several answers.

use serde_json::{Value, json};

use crate::Served;

fn post(served: &Served, path: &str, body: &Value) -> (u16, Value) {
    let (status, _, answer) = served.post(path, "", &body.to_string());
    (status, serde_json::from_str(&answer).unwrap())
}

fn ok(served: &Served, path: &str, body: &Value) -> Value {
    let (status, answer) = post(served, path, body);
    assert_eq!(status, 200, "{body}: {answer}");
    answer
}

#[test]
fn tokens_are_those_of_prompts_and_become_the_text_again() {
    let served = Served::start(&[]);
    for text in ["Hello", "two  spaces", "\u{e9}\u{4e2d}\u{1f600}"] {
        let llama = ok(&served, "/tokenize", &json!({ "content": text }));
        let vllm = ok(&served, "/tokenize", &json!({ "prompt": text, "model": null }));
        assert_eq!(llama["count"].as_u64().unwrap() as usize, llama["tokens"].as_array().unwrap().len());
        assert_eq!(llama["max_model_len"], 128);
        // What a completion counts.
        let body = json!({ "prompt": text, "max_tokens": 1 });
        let usage = ok(&served, "/v1/completions", &body)["usage"]["prompt_tokens"].clone();
        assert_eq!(vllm["count"], usage, "{text}");
        let back = ok(&served, "/detokenize", &json!({ "tokens": llama["tokens"] }));
        assert_eq!((&back["content"], &back["prompt"]), (&text.into(), &text.into()));
        let pieces = ok(&served, "/tokenize", &json!({ "content": text, "with_pieces": true }));
        let bytes: Vec<u8> = (pieces["tokens"].as_array().unwrap().iter())
            .flat_map(|token| match &token["piece"] {
                Value::String(piece) => piece.clone().into_bytes(),
                bytes => serde_json::from_value(bytes.clone()).unwrap(),
            })
            .collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
        let strings = ok(&served, "/tokenize", &json!({ "content": text, "return_token_strs": true }));
        assert_eq!(
            strings["token_strs"].as_array().unwrap().len(),
            strings["tokens"].as_array().unwrap().len()
        );
    }
}

#[test]
fn what_is_wrong_is_named() {
    let served = Served::start(&[]);
    let long = "x".repeat(100_000);
    for (path, body, param, message) in [
        ("/tokenize", json!({}), json!("content"), "exactly one"),
        ("/tokenize", json!({ "content": "a", "prompt": "b" }), json!("content"), "exactly one"),
        ("/tokenize", json!({ "content": 1 }), json!("content"), "content = 1"),
        ("/tokenize", json!({ "content": "a", "pieces": true }), json!("pieces"), "Unrecognized"),
        ("/tokenize", json!({ "content": "a", "with_pieces": 1 }), json!("with_pieces"), "true or false"),
        ("/tokenize", json!({ "content": long }), json!("content"), "does not fit"),
        (
            "/tokenize",
            json!({ "messages": [{ "role": "user", "content": "a" }] }),
            Value::Null,
            "no chat template",
        ),
        ("/apply-template", json!({}), json!("messages"), "missing"),
        (
            "/apply-template",
            json!({ "messages": [{ "role": "user", "content": "a" }] }),
            Value::Null,
            "no chat template",
        ),
        ("/detokenize", json!({}), json!("tokens"), "missing"),
        ("/detokenize", json!({ "tokens": [-1] }), json!("tokens"), "tokens = -1"),
        ("/detokenize", json!({ "tokens": [1, 100_000] }), json!("tokens"), "tokens[1] = 100000"),
    ] {
        let (status, answer) = post(&served, path, &body);
        assert_eq!(status, 400, "{body}: {answer}");
        assert_eq!(answer["error"]["param"], param, "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(message), "{answer}");
    }
    let (status, answer) = post(&served, "/tokenize", &json!({ "content": "a", "model": "another" }));
    assert_eq!((status, &answer["error"]["code"]), (404, &"model_not_found".into()));
}

#[test]
fn the_best_of_several_answers_have_the_highest_mean_log_probabilities() {
    let served = Served::start(&[]);
    let body = json!({
        "prompt": ["one", "two"], "n": 4, "seed": 3, "max_tokens": 5, "temperature": 1.5, "ignore_eos": true, "logprobs": 0,
    });
    let all = ok(&served, "/v1/completions", &body);
    let mean = |choice: &Value| {
        let list = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        list.iter().map(|logprob| logprob.as_f64().unwrap()).sum::<f64>() / list.len() as f64
    };
    let mut best = body.clone();
    (best["n"], best["best_of"], best["logprobs"]) = (2.into(), 4.into(), Value::Null);
    let found = ok(&served, "/v1/completions", &best);
    assert_eq!(found["usage"], all["usage"]);
    let texts = |choices: &[Value]| choices.iter().map(|choice| choice["text"].clone()).collect::<Vec<_>>();
    let mut right = Vec::new();
    for group in all["choices"].as_array().unwrap().chunks(4) {
        let mut group = group.to_vec();
        group.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        assert!(mean(&group[0]) > mean(&group[3]));
        right.extend(texts(&group[..2]));
    }
    let choices = found["choices"].as_array().unwrap();
    assert_eq!(texts(choices), right);
    for (i, choice) in choices.iter().enumerate() {
        assert_eq!((&choice["index"], &choice["logprobs"]), (&i.into(), &Value::Null));
    }
    for (field, value) in [("best_of", json!(1)), ("best_of", json!(65)), ("stream", json!(true))] {
        let mut wrong = best.clone();
        wrong[field] = value;
        let (status, answer) = post(&served, "/v1/completions", &wrong);
        assert_eq!((status, &answer["error"]["param"]), (400, &"best_of".into()), "{answer}");
    }
}
