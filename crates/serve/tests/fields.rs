//! Every field of a request takes part, changes nothing, or is refused by name.

mod common;

use std::sync::{Arc, Mutex};

use axum::Router;
use common::{CHAT, COMPLETIONS, app, messages, ok, refused, with};
use serde_json::{Value, json};
use tritforge_infer::{Finish, GenerateOptions};
use tritforge_serve::request::{Effect, Endpoint, fields};
use tritforge_serve::{Engine, Job, Outcome};

/// A service that keeps the options of the last job.
fn recorder() -> (Router, Arc<Mutex<Option<GenerateOptions>>>) {
    let seen = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&seen);
    let engine = Engine::new("recorder", move |job: &Job, on_text| {
        *kept.lock().unwrap() = Some(job.options.clone());
        let _ = on_text("x".into());
        Ok(Outcome { finish: Finish::Eos, prompt_tokens: 1, completion_tokens: 1 })
    });
    (app(engine), seen)
}

fn body(path: &str, more: &Value) -> Value {
    let base = if path == CHAT { json!({ "messages": messages("a") }) } else { json!({ "prompt": "a" }) };
    with(base, more)
}

/// The options that a request's fields make.
async fn options(path: &str, more: Value) -> GenerateOptions {
    let (app, seen) = recorder();
    ok(&app, path, &body(path, &more)).await;
    seen.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn what_is_not_given_or_null_is_as_openais_reference_says() {
    for (path, max_tokens) in [(CHAT, usize::MAX), (COMPLETIONS, 16)] {
        let null = json!({
            "max_tokens": null, "temperature": null, "top_p": null, "n": null, "stop": null, "seed": null, "stream": null,
            "logit_bias": null, "frequency_penalty": null, "presence_penalty": null, "logprobs": null, "user": null,
            "stream_options": null, "model": null, "lora": null, "grammar": null, "response_format": null,
        });
        for more in [json!({}), null] {
            let found = options(path, more).await;
            assert_eq!((found.max_tokens, found.logprobs, found.min_tokens), (max_tokens, None, 0), "{path}");
            assert_eq!(
                (found.sampling.temperature, found.sampling.top_p, found.sampling.top_k),
                (1.0, 1.0, 0)
            );
            assert!(found.stop.is_empty() && found.stop_ids.is_empty() && !found.ignore_eos);
            assert!(found.sampling.logit_bias.is_empty());
        }
    }
}

#[tokio::test]
async fn fields_arrive_with_their_meaning() {
    for path in [CHAT, COMPLETIONS] {
        let found = options(
            path,
            json!({
                "max_tokens": 7.0, "temperature": 0.5, "top_p": 0, "top_k": -1, "min_p": 0.25, "frequency_penalty": -2,
                "presence_penalty": 2, "repeat_penalty": 1.5, "repeat_last_n": -1, "seed": -1, "stop": "a",
                "stop_token_ids": [3], "ignore_eos": true, "min_tokens": 7, "logit_bias": {"5": -100, "6": 1.5},
            }),
        )
        .await;
        let s = &found.sampling;
        assert_eq!((found.max_tokens, found.min_tokens, found.ignore_eos), (7, 7, true));
        assert_eq!((s.temperature, s.top_p, s.top_k, s.min_p), (0.5, 0.0, 0, 0.25));
        assert_eq!((s.frequency_penalty, s.presence_penalty, s.repetition_penalty), (-2.0, 2.0, 1.5));
        assert_eq!((s.repeat_last_n, s.seed), (usize::MAX, u64::MAX));
        assert_eq!((found.stop, found.stop_ids), (vec!["a".to_string()], vec![3]));
        assert_eq!(
            s.logit_bias.iter().map(|(id, bias)| (*id, *bias)).collect::<Vec<_>>(),
            [(5, -100.0), (6, 1.5)]
        );
    }
    assert_eq!(options(CHAT, json!({"max_completion_tokens": 9})).await.max_tokens, 9);
    assert_eq!(options(CHAT, json!({"max_completion_tokens": 9, "max_tokens": 9})).await.max_tokens, 9);
    assert_eq!(options(COMPLETIONS, json!({"n_predict": -1})).await.max_tokens, usize::MAX);
    assert_eq!(options(COMPLETIONS, json!({"seed": u64::MAX})).await.sampling.seed, u64::MAX);
    assert_eq!(options(COMPLETIONS, json!({"stop": ["a", "b"]})).await.stop, ["a", "b"]);
    assert!(options(COMPLETIONS, json!({"stop": []})).await.stop.is_empty());
    assert_eq!(options(COMPLETIONS, json!({"logprobs": 0})).await.logprobs, Some(0));
    assert_eq!(options(COMPLETIONS, json!({"logprobs": false})).await.logprobs, None);
    assert_eq!(options(CHAT, json!({"logprobs": true})).await.logprobs, Some(0));
    assert_eq!(options(CHAT, json!({"logprobs": true, "top_logprobs": 20})).await.logprobs, Some(20));
    assert_eq!(options(CHAT, json!({"logprobs": false, "top_logprobs": 0})).await.logprobs, None);
}

#[tokio::test]
async fn values_out_of_range_or_of_another_type_are_refused_by_name() {
    let (app, seen) = recorder();
    let both: &[(&str, Value)] = &[
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!("9")),
        ("max_tokens", json!(true)),
        ("n_predict", json!(-2)),
        ("min_tokens", json!(-1)),
        ("temperature", json!(-0.1)),
        ("temperature", json!(1e300)),
        ("temperature", json!("hot")),
        ("top_p", json!(-0.1)),
        ("top_p", json!(1.1)),
        ("top_k", json!(-2)),
        ("top_k", json!(0.5)),
        ("min_p", json!(2)),
        ("frequency_penalty", json!(2.1)),
        ("presence_penalty", json!(-2.1)),
        ("repetition_penalty", json!(0)),
        ("repeat_penalty", json!("1")),
        ("repeat_last_n", json!(-2)),
        ("seed", json!(1.5)),
        ("seed", json!(18_446_744_073_709_551_616.0)),
        ("stop", json!(3)),
        ("stop", json!(["a", 3])),
        ("stop", json!("")),
        ("stop", json!(["a", ""])),
        ("stop_token_ids", json!(3)),
        ("stop_token_ids", json!([-1])),
        ("logit_bias", json!({"x": 1})),
        ("logit_bias", json!({"-1": 1})),
        ("logit_bias", json!({"1": 101})),
        ("logit_bias", json!({"1": "2"})),
        ("logit_bias", json!({"1": 1, "01": 2})),
        ("logit_bias", json!([[1, 2]])),
        ("ignore_eos", json!(1)),
        ("stream", json!("yes")),
        ("stream_options", json!({"include_usage": true})),
        ("n", json!(0)),
        ("n", json!(129)),
        ("model", json!(3)),
        ("lora", json!({"id": 0, "scale": 1})),
        ("lora", json!([{"id": 0}])),
        ("lora", json!([{"id": 0, "scale": 1, "name": "a"}])),
    ];
    for path in [CHAT, COMPLETIONS] {
        for (name, value) in both {
            let error = refused(&app, path, &body(path, &json!({ *name: value }))).await;
            let message = error["message"].as_str().unwrap();
            // One name stands for the other in the message of a range.
            let name =
                if *name == "repeat_penalty" && value.is_number() { "repetition_penalty" } else { *name };
            assert!(message.contains(name), "{name} = {value}: {message}");
            assert!(error["param"].as_str().unwrap().starts_with(name), "{name} = {value}: {error}");
        }
    }
    for (path, more, param) in [
        (CHAT, json!({"logprobs": 2}), "logprobs"),
        (CHAT, json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (CHAT, json!({"top_logprobs": 2}), "top_logprobs"),
        (CHAT, json!({"max_tokens": 3, "max_completion_tokens": 4}), "max_completion_tokens"),
        (COMPLETIONS, json!({"logprobs": true}), "logprobs"),
        (COMPLETIONS, json!({"logprobs": 21}), "logprobs"),
        (COMPLETIONS, json!({"repeat_penalty": 2, "repetition_penalty": 3}), "repeat_penalty"),
        (COMPLETIONS, json!({"min_tokens": 17}), "min_tokens"),
        (COMPLETIONS, json!({"prompt": ["a", "b"], "n": 65}), "n"),
        (COMPLETIONS, json!({"prompt": null}), "prompt"),
        (COMPLETIONS, json!({"stream": true, "stream_options": {"x": true}}), "stream_options.x"),
        (COMPLETIONS, json!({"stream": true, "stream_options": 3}), "stream_options"),
    ] {
        let error = refused(&app, path, &body(path, &more)).await;
        assert_eq!(error["param"], param, "{more}: {error}");
    }
    assert!(seen.lock().unwrap().is_none(), "a refused request ran");
}

#[tokio::test]
async fn what_there_is_not_is_refused_and_what_changes_nothing_is_accepted() {
    let (app, _) = recorder();
    for field in fields() {
        for (path, endpoint) in [(CHAT, Endpoint::Chat), (COMPLETIONS, Endpoint::Completions)] {
            if !field.endpoints.contains(&endpoint) {
                continue;
            }
            let ask = |value: Value| body(path, &json!({ field.name: value }));
            match field.effect {
                Effect::Supported => {}
                Effect::None => {
                    ok(&app, path, &ask(json!("anything"))).await;
                }
                Effect::Only(values) => {
                    for value in values {
                        ok(&app, path, &ask(serde_json::from_str(value).unwrap())).await;
                    }
                    ok(&app, path, &ask(Value::Null)).await;
                    for other in [json!({"other": [1]}), json!(17), json!("other")] {
                        let error = refused(&app, path, &ask(other)).await;
                        assert_eq!(error["param"], field.name, "{error}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn fields_that_no_reference_has_are_refused() {
    let (app, _) = recorder();
    for path in [CHAT, COMPLETIONS] {
        for name in ["max_token", "Temperature", "", "messages_", "speculative.n_max"] {
            let error = refused(&app, path, &body(path, &json!({ name: null }))).await;
            assert_eq!(error["message"], format!("Unrecognized request argument supplied: {name}"));
        }
    }
    // Each endpoint has its own.
    let error = refused(&app, COMPLETIONS, &body(COMPLETIONS, &json!({ "messages": messages("a") }))).await;
    assert_eq!(error["param"], "messages");
    let error = refused(&app, CHAT, &body(CHAT, &json!({ "prompt": "a" }))).await;
    assert_eq!(error["param"], "prompt");
    for text in ["[]", "3", "null", "\"a\"", "{\"prompt\": \"a\"} x"] {
        let (status, answer) = common::send(&app, COMPLETIONS, text.to_string()).await;
        assert!(status == 400 && answer.contains("not a valid request"), "{text}: {answer}");
    }
}
