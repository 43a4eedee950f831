//! Content filters over a service: prompts, answers whole and streamed, caches, choices, and ways around them.

mod common;

use std::fs;

use axum::Router;
use common::{CHAT, COMPLETIONS, events, get, messages, ok, post, with};
use serde_json::{Value, json};
use tempfile::TempDir;
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Filters, Job, Outcome, Prompt, ServeOptions, router};

/// Says the prompt again, `size` characters a piece.
fn echo(size: usize) -> Engine {
    Engine::new("echo", move |job: &Job, on_text| {
        let text = match &job.prompt {
            Prompt::Text(text) => text.clone(),
            Prompt::Ids(ids) => format!("{ids:?}"),
            Prompt::Chat(messages) => {
                messages.iter().map(|m| m.content.clone()).collect::<Vec<_>>().join("|")
            }
        };
        let chars: Vec<char> = text.chars().collect();
        let mut outcome = Outcome { finish: Finish::Eos, prompt_tokens: 1, completion_tokens: 0 };
        for piece in chars.chunks(size) {
            outcome.completion_tokens += 1;
            let piece: String = piece.iter().collect();
            if on_text(piece.as_str().into()).is_break() {
                return Ok(Outcome { finish: Finish::Cancelled, ..outcome });
            }
        }
        Ok(outcome)
    })
}

fn filters(text: &str) -> (TempDir, ServeOptions) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("filters.toml");
    fs::write(&path, text).unwrap();
    let filters = Some(std::sync::Arc::new(Filters::open(&path).unwrap()));
    (dir, ServeOptions { filters, ..ServeOptions::default() })
}

fn filter(name: &str, pattern: &str, place: &str, action: &str) -> String {
    format!(
        "[[filters]]\nname = \"{name}\"\npattern = '{pattern}'\nwhere = \"{place}\"\naction = \"{action}\"\n"
    )
}

/// The text of a stream and why it ended, of the first choice.
fn streamed(events: &[Value]) -> (String, Value) {
    let choices: Vec<&Value> = events.iter().filter_map(|event| event["choices"].get(0)).collect();
    let text =
        choices.iter().map(|c| c["text"].as_str().or(c["delta"]["content"].as_str()).unwrap_or_default());
    (text.collect(), choices.last().unwrap()["finish_reason"].clone())
}

async fn ask(app: &Router, prompt: &str) -> Value {
    ok(app, COMPLETIONS, &json!({ "prompt": prompt })).await["choices"][0].clone()
}

#[tokio::test]
async fn an_answer_is_filtered_whole_and_streamed_however_its_tokens_are_cut() {
    let text = filter("word", r"(?i)\bbomb\b", "answer", "redact")
        + &filter("end", "STOP|S T O P", "answer", "block");
    let (_dir, options) = filters(&text);
    for size in 1..9 {
        let app = router(echo(size), &options);
        for (prompt, answer, reason) in [
            ("a BoMb here", "a [redacted] here", "stop"),
            ("bombs, a bombast, bomb", "bombs, a bombast, [redacted]", "stop"),
            ("bomb bomb", "[redacted] [redacted]", "stop"),
            ("one S T O P two", "one ", "content_filter"),
            ("one STO two", "one STO two", "stop"),
            ("STOP", "", "content_filter"),
            ("bomb STOP bomb", "[redacted] ", "content_filter"),
        ] {
            let whole = ask(&app, prompt).await;
            assert_eq!(
                (&whole["text"], &whole["finish_reason"]),
                (&json!(answer), &json!(reason)),
                "{prompt} {size}"
            );
            assert_eq!(whole["content_filter"]["code"] == "RESPONSE_FILTERED", reason == "content_filter");
            let events = events(&app, COMPLETIONS, &json!({ "prompt": prompt })).await;
            assert_eq!(streamed(&events), (answer.to_string(), json!(reason)), "{prompt} {size}");
            // No piece that has come shows a part of what was removed.
            let shown = serde_json::to_string(&events).unwrap();
            assert!(!shown.contains("STOP\"") && !shown.to_lowercase().contains("\"bomb\""), "{shown}");
            let body = json!({ "messages": messages(prompt) });
            let chat = ok(&app, CHAT, &body).await["choices"][0].clone();
            assert_eq!(
                (&chat["message"]["content"], &chat["finish_reason"]),
                (&json!(answer), &json!(reason))
            );
            assert_eq!(
                streamed(&common::events(&app, CHAT, &body).await),
                (answer.to_string(), json!(reason))
            );
        }
    }
}

#[tokio::test]
async fn a_prompt_is_refused_or_changed() {
    let text =
        filter("no", "forbidden", "prompt", "block") + &filter("digits", r"\d{4,}", "prompt", "redact");
    let (_dir, options) = filters(&text);
    let app = router(echo(3), &options);
    for (path, param, body) in [
        (COMPLETIONS, "prompt", json!({ "prompt": "a forbidden word" })),
        (COMPLETIONS, "prompt", json!({ "prompt": ["good", "forbidden"] })),
        (COMPLETIONS, "prompt", json!({ "prompt": "forbidden", "stream": true })),
        (CHAT, "messages", json!({ "messages": messages("forbidden") })),
        (
            CHAT,
            "messages",
            json!({ "messages": [
            { "role": "system", "content": "forbidden" }, { "role": "user", "content": "hello" }] }),
        ),
        (
            CHAT,
            "messages",
            json!({ "messages": [{ "role": "user", "content": [
            { "type": "text", "text": "forb" }, { "type": "text", "text": "idden" }] }] }),
        ),
    ] {
        let (status, answer) = post(&app, path, &body).await;
        let error = &answer["error"];
        assert_eq!((status, &error["code"]), (400, &json!("CONTENT_FILTERED")), "{body}: {answer}");
        assert_eq!((&error["param"], &error["type"]), (&json!(param), &json!("invalid_request_error")));
    }
    assert_eq!(ask(&app, "card 12345678 of 99").await["text"], "card [redacted] of 99");
    // Tokens without a tokenizer cannot be looked at.
    let (status, _) = post(&app, COMPLETIONS, &json!({ "prompt": [1, 2] })).await;
    assert_eq!(status, 404);
    let metrics = get_text(&app, "/metrics").await;
    for (name, action, count) in [("no", "block", 6), ("digits", "redact", 1)] {
        let line =
            format!("action=\"{action}\",filter=\"{name}\",where=\"prompt\",model_name=\"echo\"}} {count}\n");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
}

async fn get_text(app: &Router, path: &str) -> String {
    use tower::ServiceExt as _;
    let request = axum::http::Request::get(path).body(axum::body::Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn tokens_do_not_lead_around_a_filter() {
    let (_model_dir, model) = common::model();
    let (_dir, options) = filters(&filter("no", "forbidden", "prompt", "block"));
    let app = router(Engine::of(&model).unwrap(), &options);
    let ids = get_tokens(&app, "so forbidden").await;
    let (status, answer) = post(&app, COMPLETIONS, &json!({ "prompt": ids })).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!("CONTENT_FILTERED")), "{answer}");
    let ids = get_tokens(&app, "so good").await;
    ok(&app, COMPLETIONS, &json!({ "prompt": ids, "max_tokens": 2 })).await;
}

async fn get_tokens(app: &Router, text: &str) -> Value {
    ok(app, "/tokenize", &json!({ "content": text })).await["tokens"].clone()
}

#[tokio::test]
async fn every_choice_is_filtered_and_so_is_a_kept_answer() {
    let (dir, mut options) = filters(&filter("end", "STOP", "answer", "block"));
    options.response_cache = 1 << 20;
    let filters = options.filters.clone().unwrap();
    let app = router(echo(2), &options);
    let body = json!({ "prompt": ["a STOP b", "fine"], "n": 2, "seed": 1 });
    for _ in 0..2 {
        let answer = ok(&app, COMPLETIONS, &body).await;
        let choices = answer["choices"].as_array().unwrap();
        let found: Vec<_> =
            choices.iter().map(|c| (c["text"].as_str().unwrap(), &c["finish_reason"])).collect();
        let (filtered, stop) = (json!("content_filter"), json!("stop"));
        assert_eq!(found, [("a ", &filtered), ("a ", &filtered), ("fine", &stop), ("fine", &stop)]);
    }
    assert_eq!(ask(&app, "fine").await["text"], "fine");
    // One that was kept before a filter came.
    let greedy = json!({ "prompt": "was fine", "temperature": 0 });
    assert_eq!(ok(&app, COMPLETIONS, &greedy).await["choices"][0]["text"], "was fine");
    fs::write(dir.path().join("filters.toml"), filter("fine", "fine", "answer", "redact")).unwrap();
    filters.reload().unwrap();
    assert_eq!(ok(&app, COMPLETIONS, &greedy).await["choices"][0]["text"], "was [redacted]");
    // A file that is wrong changes nothing.
    fs::write(dir.path().join("filters.toml"), "nothing").unwrap();
    assert!(filters.reload().unwrap_err().to_string().contains("filters.toml"));
    assert_eq!(ok(&app, COMPLETIONS, &greedy).await["choices"][0]["text"], "was [redacted]");
}

#[tokio::test]
async fn log_probabilities_would_show_what_is_withheld() {
    let (_dir, options) = filters(&filter("end", "STOP", "answer", "block"));
    let app = router(echo(2), &options);
    let error = common::refused(&app, COMPLETIONS, &json!({ "prompt": "a", "logprobs": 1 })).await;
    assert_eq!(error["param"], "logprobs");
    let chat = with(json!({ "messages": messages("a") }), &json!({ "logprobs": true }));
    assert_eq!(common::refused(&app, CHAT, &chat).await["param"], "logprobs");
    // Filters of prompts alone do not mind.
    let (_dir, options) = filters(&filter("end", "STOP", "prompt", "block"));
    ok(&router(echo(2), &options), COMPLETIONS, &json!({ "prompt": "a", "logprobs": 1 })).await;
    assert_eq!(get(&app, "/v1/models").await.0, 200);
}

/// Inputs of embeddings are read by the model as prompts are.
#[tokio::test]
async fn inputs_of_embeddings_are_filtered_as_prompts() {
    const PATH: &str = "/v1/embeddings";
    let (_model_dir, model) = common::model();
    let hidden = filter("hidden", "se[ck]ret", "both", "redact");
    let blocked = filter("blocked", "forbidden", "prompt", "block");
    let answers = filter("answers", "apple", "answer", "block");
    let (_dir, options) = filters(&(hidden + &blocked + &answers));
    let app = router(Engine::of(&model).unwrap(), &options);
    let plain = common::app(Engine::of(&model).unwrap());
    let asked = ok(&app, PATH, &json!({ "input": ["a secret", "apple"] })).await;
    let right = ok(&plain, PATH, &json!({ "input": ["a [redacted]", "apple"] })).await;
    assert_eq!(asked, right);
    let ids = |text: &str| model.tokenizer().encode(text, false).unwrap();
    assert_eq!(
        ok(&app, PATH, &json!({ "input": ids("apple") })).await,
        ok(&plain, PATH, &json!({ "input": ids("apple") })).await
    );
    for input in [json!(["fine", "forbidden"]), json!(ids("forbidden")), json!([ids("secret")])] {
        let error = common::refused(&app, PATH, &json!({ "input": input })).await;
        assert_eq!((&error["code"], &error["param"]), (&json!("CONTENT_FILTERED"), &json!("input")));
    }
    let metrics = common::send_get(&app, "/metrics").await.1;
    for (name, action, count) in [("hidden", "redact", 2), ("blocked", "block", 2)] {
        let labels =
            [format!("action=\"{action}\""), format!("filter=\"{name}\""), "where=\"prompt\"".to_string()];
        let counted = metrics.lines().any(|line| {
            line.starts_with("tritforge_content_filtered_total{")
                && labels.iter().all(|label| line.contains(label))
                && line.ends_with(&format!("}} {count}"))
        });
        assert!(counted, "{metrics}");
    }
}
