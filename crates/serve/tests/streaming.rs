//! Streams and answers with several choices, in OpenAI's shape.

mod common;

use axum::Router;
use common::{CHAT, COMPLETIONS, app, events, messages, ok, with};
use serde_json::{Value, json};
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Job, JobError, Outcome, Prompt};

/// Says the words of the prompt, which are tokens; `fail` is an error.
fn words() -> Router {
    app(Engine::new("words", |job: &Job, on_text| {
        let text = match &job.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Ids(ids) => format!("{ids:?}"),
            Prompt::Chat(messages) => messages[0].content.clone(),
        };
        let words: Vec<&str> = text.split_inclusive(' ').collect();
        for word in &words {
            if *word == "fail" {
                return Err(JobError::Failed("the test wants it".to_string()));
            }
            if on_text((*word).into()).is_break() {
                break;
            }
        }
        Ok(Outcome { finish: Finish::Eos, prompt_tokens: words.len(), completion_tokens: words.len() })
    }))
}

fn chat(text: &str) -> Value {
    json!({ "messages": messages(text) })
}

#[tokio::test]
async fn the_role_comes_first_and_once_and_the_reason_last() {
    let events = events(&words(), CHAT, &chat("a b c")).await;
    let deltas: Vec<&Value> = events.iter().map(|e| &e["choices"][0]["delta"]).collect();
    let content = |text: &str| json!({ "content": text });
    let right = [
        json!({ "role": "assistant", "content": "" }),
        content("a "),
        content("b "),
        content("c"),
        json!({}),
    ];
    assert_eq!(deltas, right.iter().collect::<Vec<_>>());
    let reasons: Vec<&Value> = events.iter().map(|e| &e["choices"][0]["finish_reason"]).collect();
    assert_eq!(reasons, [&Value::Null, &Value::Null, &Value::Null, &Value::Null, &json!("stop")]);
    for event in &events {
        assert_eq!(event["object"], "chat.completion.chunk");
        assert_eq!((&event["id"], &event["created"]), (&events[0]["id"], &events[0]["created"]));
        assert!(event["created"].is_u64() && event.get("usage").is_none());
    }
    // One without text has both too.
    let empty = common::events(&words(), CHAT, &chat("")).await;
    assert_eq!(empty[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(empty.last().unwrap()["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn the_usage_comes_last_when_it_is_asked_for() {
    let app = words();
    for (path, body) in [(CHAT, chat("a b c")), (COMPLETIONS, json!({ "prompt": "a b c" }))] {
        let usage = ok(&app, path, &body).await["usage"].clone();
        assert_eq!(usage, json!({ "prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6 }));
        let asked = json!({ "stream_options": { "include_usage": true, "include_obfuscation": false } });
        let events = events(&app, path, &with(body.clone(), &asked)).await;
        let (last, before) = events.split_last().unwrap();
        assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &usage));
        assert!(before.iter().all(|e| e.get("usage") == Some(&Value::Null)), "{before:?}");
        for not_asked in [json!({}), json!({ "stream_options": { "include_usage": false } })] {
            let events = common::events(&app, path, &with(body.clone(), &not_asked)).await;
            assert!(events.iter().all(|e| e.get("usage").is_none() && e["choices"] != json!([])));
        }
    }
}

#[tokio::test]
async fn every_choice_has_its_number_its_role_and_its_end() {
    let app = words();
    let body = json!({ "prompt": ["a b", "c"], "n": 2 });
    let whole = ok(&app, COMPLETIONS, &body).await;
    let choices: Vec<(u64, &str)> = whole["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["index"].as_u64().unwrap(), c["text"].as_str().unwrap()))
        .collect();
    assert_eq!(choices, [(0, "a b"), (1, "a b"), (2, "c"), (3, "c")]);
    // A prompt counts once, all of its answers count.
    assert_eq!(whole["usage"], json!({ "prompt_tokens": 3, "completion_tokens": 6, "total_tokens": 9 }));
    let mut texts = vec![String::new(); 4];
    let mut ends = [0; 4];
    let asked = with(body, &json!({ "stream_options": { "include_usage": true } }));
    let events = events(&app, COMPLETIONS, &asked).await;
    for event in &events[..events.len() - 1] {
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        texts[index] += choice["text"].as_str().unwrap();
        ends[index] += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!(texts, ["a b", "a b", "c", "c"]);
    assert_eq!(ends, [1; 4]);
    assert_eq!(events.last().unwrap()["usage"], whole["usage"]);
    let chat = common::events(&app, CHAT, &with(chat("a"), &json!({ "n": 2 }))).await;
    let roles: Vec<&Value> = chat
        .iter()
        .filter(|e| !e["choices"][0]["delta"]["role"].is_null())
        .map(|e| &e["choices"][0]["index"])
        .collect();
    assert_eq!(roles, [&json!(0), &json!(1)]);
}

#[tokio::test]
async fn a_fault_after_the_first_text_is_an_event() {
    let app = words();
    let found = events(&app, COMPLETIONS, &json!({ "prompt": "a fail" })).await;
    assert_eq!(found.last().unwrap()["error"]["type"], "server_error");
    // No other choice begins after it.
    let found = events(&app, COMPLETIONS, &json!({ "prompt": ["a", "b fail", "c"] })).await;
    assert_eq!(found.last().unwrap()["error"]["message"], "the test wants it");
    assert!(found.iter().all(|e| e["choices"][0]["index"] != 2), "{found:?}");
    let (status, _) = common::post(&app, COMPLETIONS, &json!({ "prompt": ["a", "fail"] })).await;
    assert_eq!(status, 500);
}

#[tokio::test]
async fn models_have_openais_shape_and_are_found_by_name() {
    let app = app(Engine::new("org/words: a", |_: &Job, _| unreachable!("nothing is generated")));
    let (status, list) = common::get(&app, "/v1/models").await;
    let model = &list["data"][0];
    assert_eq!((status, &list["object"], &model["id"]), (200, &json!("list"), &json!("org/words: a")));
    assert!(model["created"].as_u64().unwrap() > 1_600_000_000 && model["owned_by"].is_string());
    assert_eq!(common::get(&app, "/v1/models/org/words:%20a").await, (200, model.clone()));
    let (status, body) = common::get(&app, "/v1/models/absent").await;
    assert_eq!((status, &body["error"]["code"]), (404, &json!("model_not_found")));
}
