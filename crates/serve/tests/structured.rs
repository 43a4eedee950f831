//! Answers that have to fit a schema or a grammar, whole, streamed, and together with the other fields.

mod common;
#[path = "../../infer/tests/common/schema.rs"]
mod schema;

use common::{CHAT, COMPLETIONS, app, events, messages, model, ok, post, refused, with};
use serde_json::{Value, json};
use tritforge_serve::{Engine, ServeOptions, router};

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "age": { "type": "integer", "minimum": 0, "maximum": 150 },
            "sure": { "type": "boolean" },
        },
        "required": ["age", "sure"],
        "additionalProperties": false,
    })
}

fn asked(more: &Value) -> Value {
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema() } });
    with(json!({ "messages": messages("hi"), "seed": 4, "response_format": format }), more)
}

fn content(choice: &Value) -> &str {
    choice["message"]["content"].as_str().unwrap()
}

#[tokio::test]
async fn every_choice_fits_the_schema_whole_and_streamed() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let more = json!({ "n": 6, "logprobs": true, "top_logprobs": 2, "presence_penalty": 0.5 });
    let answer = ok(&app, CHAT, &asked(&more)).await;
    let choices = answer["choices"].as_array().unwrap();
    for choice in choices {
        schema::check(&schema(), content(choice));
        assert_eq!(choice["finish_reason"], "stop");
        // The text is that of its tokens, whose log-probabilities are the model's own.
        let tokens = choice["logprobs"]["content"].as_array().unwrap();
        let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
        assert_eq!(text, content(choice));
    }
    let mut streamed = vec![String::new(); 6];
    for event in events(&app, CHAT, &asked(&more)).await {
        let choice = &event["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        streamed[index] += choice["delta"]["content"].as_str().unwrap_or_default();
    }
    assert_eq!(streamed, choices.iter().map(content).collect::<Vec<_>>());
}

#[tokio::test]
async fn other_fields_keep_their_meaning() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let id = |text: &str| model.tokenizer().encode(text, false).unwrap()[0].to_string();
    let text = async |more: Value| {
        let body = with(json!({ "prompt": "once", "temperature": 0, "max_tokens": 200 }), &more);
        let answer = ok(&app, COMPLETIONS, &body).await;
        let choice = &answer["choices"][0];
        (choice["text"].as_str().unwrap().to_string(), choice["finish_reason"].as_str().unwrap().to_string())
    };
    let (found, reason) = text(json!({ "guided_choice": ["left", "right"] })).await;
    assert!(["left", "right"].contains(&found.as_str()) && reason == "stop");
    // A bias decides between what the grammar leaves.
    for (letter, right) in [("l", "left"), ("r", "right")] {
        let more = json!({ "guided_choice": ["left", "right"], "logit_bias": { id(letter): 100 } });
        assert_eq!(text(more).await.0, right);
    }
    let (found, reason) = text(json!({ "regex": "[0-9]{8}", "max_tokens": 5 })).await;
    assert!(found.len() == 5 && found.bytes().all(|byte| byte.is_ascii_digit()) && reason == "length");
    assert_eq!(
        text(json!({ "guided_regex": "abcdef", "stop": "cd" })).await,
        ("ab".to_string(), "stop".to_string())
    );
    assert_eq!(text(json!({ "guided_regex": "abc", "ignore_eos": true, "min_tokens": 90 })).await.0, "abc");
    assert_eq!(text(json!({ "guided_regex": "abc", "echo": true })).await.0, "onceabc");
    let lark = "start: greeting \"!\"\ngreeting: \"hello\" | \"hi\"";
    assert!(["hello!", "hi!"].contains(&text(json!({ "grammar": lark })).await.0.as_str()));
    let (found, _) = text(json!({ "structured_outputs": { "json": schema() } })).await;
    schema::check(&schema(), &found);
    // Without a constraint the model says something else.
    assert!(serde_json::from_str::<Value>(&text(json!({ "ignore_eos": true })).await.0).is_err());
}

#[tokio::test]
async fn an_answer_comes_from_the_cache_only_for_the_same_grammar() {
    let (_dir, model) = model();
    let options = ServeOptions { response_cache: 1 << 20, ..ServeOptions::default() };
    let app = router(Engine::of(&model).unwrap(), &options);
    let body = |regex: &str| json!({ "prompt": "a", "temperature": 0, "regex": regex });
    let text = async |regex: &str| {
        ok(&app, COMPLETIONS, &body(regex)).await["choices"][0]["text"].as_str().unwrap().to_string()
    };
    assert_eq!(
        (text("aa").await, text("bb").await, text("aa").await),
        ("aa".into(), "bb".into(), "aa".into())
    );
    let (_, metrics) = common::send_get(&app, "/metrics").await;
    let hits = metrics.lines().find(|line| line.starts_with("tritforge_response_cache_hits_total")).unwrap();
    assert!(hits.ends_with(" 1"), "{hits}");
}

#[tokio::test]
async fn what_cannot_be_compiled_is_refused_by_its_field() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let json_schema = |schema: Value| json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": schema } } });
    for (more, param, part) in [
        (json_schema(json!({ "type": "strong" })), "response_format.json_schema.schema", "strong"),
        (json_schema(json!({ "$ref": "#/$defs/none" })), "response_format.json_schema.schema", "none"),
        (json_schema(json!({ "not": {} })), "response_format.json_schema.schema", "not"),
        (json!({ "regex": "(" }), "regex", "("),
        (json!({ "grammar": "root ::= \"a\"" }), "grammar", "GBNF"),
        (json!({ "structured_outputs": { "grammar": "start: x" } }), "structured_outputs.grammar", "x"),
    ] {
        for stream in [false, true] {
            let body = with(json!({ "messages": messages("a"), "stream": stream }), &more);
            let error = refused(&app, CHAT, &body).await;
            assert_eq!(error["param"], param, "{error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.starts_with(param) && message.contains(part), "{error}");
        }
    }
    // The service goes on.
    let (status, _) = post(&app, CHAT, &asked(&json!({}))).await;
    assert_eq!(status, 200);
}
