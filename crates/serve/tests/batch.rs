//! Several requests in one body.

mod common;

use axum::Router;
use common::{CHAT, COMPLETIONS, app, messages, model, ok, post, refused};
use serde_json::{Value, json};
use tritforge_infer::GenerateOptions;
use tritforge_serve::request::{Endpoint, Object, Request};
use tritforge_serve::{Engine, ServeOptions, router};

const PATH: &str = "/v1/generate/batch";

/// What a request gets alone, without what differs each time.
async fn alone(app: &Router, path: &str, body: &Value) -> Value {
    ok(app, path, body).await["choices"].clone()
}

#[tokio::test]
async fn results_are_those_of_each_request_alone_in_order() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let chat = json!({ "messages": messages("hi"), "max_tokens": 20, "seed": 1, "n": 2 });
    let text = json!({ "prompt": "once", "max_tokens": 5, "temperature": 0 });
    let regex = json!({ "prompt": "a", "regex": "[0-9]{3}", "temperature": 0 });
    let wrong = json!({ "prompt": "a", "temperature": -1 });
    let long = json!({ "prompt": "a".repeat(300) });
    let stream = json!({ "prompt": "a", "stream": true });
    let with_id = |body: &Value, id: Value| common::with(body.clone(), &json!({ "id": id }));
    let requests = json!([
        with_id(&chat, json!("one")),
        with_id(&wrong, json!(2)),
        text,
        with_id(&long, json!("four")),
        stream,
        with_id(&regex, json!("six")),
    ]);
    let answer = ok(&app, PATH, &json!({ "requests": requests })).await;
    let results = answer["results"].as_array().unwrap();
    let ids: Vec<&Value> = results.iter().map(|result| &result["id"]).collect();
    assert_eq!(ids, [&json!("one"), &json!(2), &Value::Null, &json!("four"), &Value::Null, &json!("six")]);
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [200, 400, 200, 400, 400, 200]);
    for (i, path, body) in [(0, CHAT, &chat), (2, COMPLETIONS, &text), (5, COMPLETIONS, &regex)] {
        assert_eq!(results[i]["response"]["choices"], alone(&app, path, body).await);
        assert!(
            results[i]["response"]["usage"]["total_tokens"].is_u64() && results[i].get("error").is_none()
        );
    }
    assert_eq!(results[1]["error"]["param"], "temperature");
    assert_eq!(results[3]["error"]["code"], "context_length_exceeded");
    assert_eq!(results[4]["error"]["param"], "stream");
}

#[tokio::test]
async fn a_batch_is_bounded_by_the_queue() {
    let (_dir, model) = model();
    let options = ServeOptions { concurrency: 2, queue: 3, ..ServeOptions::default() };
    let app = router(Engine::of(&model).unwrap(), &options);
    let requests =
        |count: usize| json!({ "requests": vec![json!({ "prompt": "a", "max_tokens": 3 }); count] });
    let answer = ok(&app, PATH, &requests(5)).await;
    assert!(answer["results"].as_array().unwrap().iter().all(|result| result["status"] == 200), "{answer}");
    for body in [
        requests(6),
        requests(0),
        json!({ "requests": [{ "id": 1, "prompt": "a" }, { "id": 1, "prompt": "a" }] }),
    ] {
        let error = refused(&app, PATH, &body).await;
        assert!(error["param"].as_str().unwrap().starts_with("requests"), "{error}");
    }
    let (status, _) = post(&app, PATH, &json!({ "requests": [], "other": 1 })).await;
    assert_eq!(status, 400);
}

#[test]
fn a_line_of_a_batch_without_a_conversation_has_no_template() {
    let read = |line: Value| {
        let object: Object = serde_json::from_value(line).unwrap();
        Request::read(Endpoint::Batch, &object, GenerateOptions::default()).map(|_| ())
    };
    let arguments = json!({ "enable_thinking": true });
    let error = read(json!({ "prompt": "a", "chat_template_kwargs": arguments })).unwrap_err();
    assert!(error.message.contains("chat_template_kwargs needs messages"), "{}", error.message);
    read(json!({ "prompt": "a", "chat_template_kwargs": {} })).unwrap();
    read(json!({ "messages": messages("a"), "chat_template_kwargs": arguments })).unwrap();
}
