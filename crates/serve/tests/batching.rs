//! Requests at the same time share passes and kept sessions, and get what each gets alone.

mod common;

use std::ops::ControlFlow;
use std::sync::Arc;

use axum::Router;
use common::{CHAT, COMPLETIONS, messages, model, ok, post};
use serde_json::{Value, json};
use tritforge_infer::{GenerateOptions, Model, Sampling, Session, generate};
use tritforge_serve::{Engine, ServeOptions, router};

fn service(model: &Arc<Model>, concurrency: usize) -> Router {
    router(Engine::of(model).unwrap(), &ServeOptions { concurrency, ..ServeOptions::default() })
}

/// A prompt, and how to go on; every second one is greedy.
fn request(i: usize) -> (String, usize, f32) {
    let prompt = format!("prompt {} ", i % 5).repeat(1 + i * 7 % 20);
    (prompt, 5 + i * 11 % 40, if i.is_multiple_of(2) { 0.0 } else { 0.9 })
}

fn body(i: usize) -> Value {
    let (prompt, max_tokens, temperature) = request(i);
    json!({
        "prompt": prompt, "max_tokens": max_tokens, "temperature": temperature, "seed": i, "ignore_eos": true,
    })
}

/// What the engine says to it in a session of its own.
fn alone(model: &Arc<Model>, i: usize) -> String {
    let (prompt, max_tokens, temperature) = request(i);
    let tokenizer = model.tokenizer();
    let prompt = tokenizer.encode(&prompt, tokenizer.adds_bos()).unwrap();
    let sampling = Sampling { temperature, seed: i as u64, ..Sampling::default() };
    let options = GenerateOptions { max_tokens, sampling, ignore_eos: true, ..GenerateOptions::default() };
    let mut session = Session::new(Arc::clone(model), model.config().max_position_embeddings).unwrap();
    generate(&mut session, &prompt, &options, |_| ControlFlow::Continue(())).unwrap().text
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_at_once_get_what_each_gets_alone() {
    let (_dir, model) = model();
    let right: Vec<String> = (0..16).map(|i| alone(&model, i)).collect();
    for concurrency in [1, 4, 16] {
        let app = service(&model, concurrency);
        // The second round finds the sessions of the first.
        for _ in 0..2 {
            let asked: Vec<_> = (0..16)
                .map(|i| {
                    let app = app.clone();
                    tokio::spawn(async move { ok(&app, COMPLETIONS, &body(i)).await })
                })
                .collect();
            for (i, answer) in asked.into_iter().enumerate() {
                let answer = answer.await.unwrap();
                assert_eq!(answer["choices"][0]["text"], right[i], "request {i} of {concurrency} at once");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_fails_or_leaves_does_not_end_the_others() {
    let (_dir, model) = model();
    let app = service(&model, 8);
    let right = alone(&model, 3);
    let mut asked = Vec::new();
    for i in 0..12 {
        let app = app.clone();
        asked.push(tokio::spawn(async move {
            match i % 3 {
                0 => {
                    let answer = ok(&app, COMPLETIONS, &body(3)).await;
                    return answer["choices"][0]["text"].as_str().map(str::to_string);
                }
                // A token that the vocabulary does not have.
                1 => {
                    let bad = json!({ "prompt": [256, 300], "max_tokens": 4 });
                    assert_eq!(post(&app, COMPLETIONS, &bad).await.0, 400);
                }
                _ => {
                    let long = json!({ "messages": messages("once"), "ignore_eos": true });
                    let answer = ok(&app, CHAT, &long);
                    let left = tokio::time::timeout(std::time::Duration::from_millis(5), answer).await;
                    drop(left);
                }
            }
            None
        }));
    }
    for (i, answer) in asked.into_iter().enumerate() {
        assert_eq!(answer.await.unwrap(), (i % 3 == 0).then(|| right.clone()), "request {i}");
    }
}

/// A conversation goes on from what the turn before has left, with the text of a fresh service.
#[tokio::test]
async fn a_conversation_gets_the_same_answers_from_kept_sessions() {
    let (_dir, model) = model();
    let app = service(&model, 1);
    let turn = |history: &Value| json!({ "messages": history, "temperature": 0, "max_tokens": 12 });
    let mut history = messages("once");
    for question in ["upon", "a", "time"] {
        let kept = ok(&app, CHAT, &turn(&history)).await;
        let fresh = ok(&service(&model, 1), CHAT, &turn(&history)).await;
        assert_eq!((&kept["choices"], &kept["usage"]), (&fresh["choices"], &fresh["usage"]));
        let list = history.as_array_mut().unwrap();
        list.push(json!({ "role": "assistant", "content": kept["choices"][0]["message"]["content"] }));
        list.push(json!({ "role": "user", "content": question }));
    }
}
