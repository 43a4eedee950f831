//! Tools: what the model is shown of them, calls that a request demands, and calls that an answer has.

mod common;
#[path = "../../infer/tests/common/schema.rs"]
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use axum::Router;
use common::{CHAT, app, events, long_model, messages, model, ok, refused, with};
use serde_json::{Value, json};
use tritforge_infer::Finish;
use tritforge_serve::{Engine, Job, Outcome};
use tritforge_text::{ChatTemplate, ToolFormat};

fn add() -> Value {
    json!({
        "type": "object",
        "properties": { "a": { "$ref": "#/$defs/digit" }, "b": { "enum": [1, 2] } },
        "required": ["a", "b"], "additionalProperties": false,
        "$defs": { "digit": { "type": "integer", "minimum": 0, "maximum": 9 } },
    })
}

fn tools() -> Value {
    let pick = json!({
        "type": "object", "properties": { "color": { "enum": ["red", "}</tool_call>"] } },
        "required": ["color"], "additionalProperties": false,
    });
    json!([
        { "type": "function", "function": { "name": "add", "description": "Adds.", "parameters": add() } },
        { "type": "function", "function": { "name": "pick", "parameters": pick } },
        { "type": "function", "function": { "name": "now" } },
    ])
}

/// The schema of a function's arguments.
fn parameters(name: &str) -> Value {
    let tools = tools();
    let tool = tools.as_array().unwrap().iter().find(|tool| tool["function"]["name"] == name).unwrap();
    let none = json!({ "type": "object", "additionalProperties": false });
    tool["function"].get("parameters").cloned().unwrap_or(none)
}

fn asked(more: &Value) -> Value {
    with(json!({ "messages": messages("hi"), "tools": tools(), "max_tokens": 600 }), more)
}

/// The names of a message's calls, whose arguments are valid.
fn calls(message: &Value) -> Vec<String> {
    let mut ids = BTreeSet::new();
    let name = |call: &Value| {
        assert_eq!(call["type"], "function");
        assert!(ids.insert(call["id"].as_str().unwrap().to_string()), "{message}");
        let name = call["function"]["name"].as_str().unwrap().to_string();
        schema::check(&parameters(&name), call["function"]["arguments"].as_str().unwrap());
        name
    };
    message["tool_calls"].as_array().into_iter().flatten().map(name).collect()
}

/// The messages and ends of a stream's choices, put together as OpenAI's client does.
async fn streamed(app: &Router, body: &Value) -> BTreeMap<u64, (Value, Value)> {
    let mut choices: BTreeMap<u64, (Value, Value)> = BTreeMap::new();
    for event in events(app, CHAT, body).await {
        let choice = &event["choices"][0];
        let empty = || (json!({ "content": "", "tool_calls": [] }), Value::Null);
        let (message, reason) = choices.entry(choice["index"].as_u64().unwrap()).or_insert_with(empty);
        let delta = &choice["delta"];
        let content = delta["content"].as_str().unwrap_or_default();
        message["content"] = (message["content"].as_str().unwrap().to_string() + content).into();
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let list = message["tool_calls"].as_array_mut().unwrap();
            let index = call["index"].as_u64().unwrap() as usize;
            if index == list.len() {
                // A call begins with all but its arguments.
                assert!(call["id"].is_string() && call["function"]["arguments"] == "", "{call}");
                list.push(json!({ "id": call["id"], "type": call["type"], "function": call["function"] }));
            } else {
                let known = &mut list[index]["function"]["arguments"];
                *known = (known.as_str().unwrap().to_string()
                    + call["function"]["arguments"].as_str().unwrap())
                .into();
            }
        }
        if !choice["finish_reason"].is_null() {
            *reason = choice["finish_reason"].clone();
        }
    }
    choices
}

#[tokio::test]
async fn a_model_with_random_weights_makes_the_calls_that_are_demanded() {
    let (_dir, model) = long_model("hermes");
    for format in [None, Some(ToolFormat::Llama3), Some(ToolFormat::Mistral)] {
        let engine = Engine::of(&model).unwrap();
        let app = app(match format {
            Some(format) => engine.with_tool_format(format),
            None => engine,
        });
        let mut seen = BTreeSet::new();
        for (seed, letter) in (0..9).zip(["a", "p", "n"].into_iter().cycle()) {
            // Which function it is, is decided by the first letter of its name.
            let id = model.tokenizer().encode(letter, false).unwrap()[0].to_string();
            // Without a bias for the end of the text a model may go on to the most calls that there may be.
            let end = model.tokenizer().eos().unwrap().to_string();
            let bias = json!({ id: 100, end: if seed < 3 { 0 } else { 99 } });
            let more = json!({
                "tool_choice": "required", "seed": seed, "n": 3, "logit_bias": bias, "max_tokens": 3000,
            });
            let body = asked(&more);
            let answer = ok(&app, CHAT, &body).await;
            let streamed = streamed(&app, &body).await;
            for (i, choice) in (0u64..).zip(answer["choices"].as_array().unwrap()) {
                let names = calls(&choice["message"]);
                assert!(!names.is_empty() && choice["message"]["content"].is_null(), "{choice}");
                assert_eq!(choice["finish_reason"], "tool_calls", "{choice}");
                seen.extend(names.clone());
                assert_eq!(calls(&streamed[&i].0), names);
                let arguments = |message: &Value| -> Vec<Value> {
                    let calls = message["tool_calls"].as_array().unwrap();
                    calls.iter().map(|call| call["function"].clone()).collect()
                };
                assert_eq!(arguments(&streamed[&i].0), arguments(&choice["message"]));
                assert_eq!(streamed[&i].1, "tool_calls");
            }
        }
        assert_eq!(seen.len(), 3, "{format:?}: {seen:?}");
    }
}

#[tokio::test]
async fn a_named_function_is_the_one_that_is_called_and_parallel_calls_can_be_forbidden() {
    let (_dir, model) = long_model("hermes");
    let app = app(Engine::of(&model).unwrap());
    for seed in 0..6 {
        let named = json!({ "type": "function", "function": { "name": "add" } });
        let more = json!({ "tool_choice": named, "parallel_tool_calls": false, "seed": seed });
        let answer = ok(&app, CHAT, &asked(&more)).await;
        assert_eq!(calls(&answer["choices"][0]["message"]), ["add"], "{answer}");
    }
    // A call that is cut short is not a whole one.
    let more = json!({ "tool_choice": "required", "max_tokens": 30, "temperature": 0 });
    let answer = ok(&app, CHAT, &asked(&more)).await;
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
}

/// A service whose model always says the same, in pieces of three characters.
fn parrot(text: &'static str) -> Router {
    let engine = Engine::new("parrot", move |job: &Job, on_text| {
        assert_eq!(job.tools.len(), 3);
        let characters: Vec<char> = text.chars().collect();
        for piece in characters.chunks(3) {
            let _ = on_text(piece.iter().collect::<String>().as_str().into());
        }
        Ok(Outcome { finish: Finish::Eos, prompt_tokens: 1, completion_tokens: 1 })
    });
    app(engine.with_tool_format(ToolFormat::Hermes))
}

#[tokio::test]
async fn calls_are_read_out_of_an_answer() {
    let call = r#"{"name": "add", "arguments": {"a": 3, "b": 1}}"#;
    let text: &'static str =
        format!("So: \n<tool_call>\n{call}\n</tool_call>\n<tool_call>{{\"name\": \"now\"}}</tool_call>")
            .leak();
    let app = parrot(text);
    let answer = ok(&app, CHAT, &asked(&json!({}))).await;
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["message"]["content"], &choice["finish_reason"]),
        (&json!("So:"), &json!("tool_calls"))
    );
    assert_eq!(calls(&choice["message"]), ["add", "now"]);
    let streamed = streamed(&app, &asked(&json!({}))).await;
    let (message, reason) = &streamed[&0];
    assert_eq!((&message["content"], reason), (&json!("So:"), &json!("tool_calls")));
    assert_eq!(calls(message), ["add", "now"]);
    assert_eq!(message["tool_calls"][0]["function"]["arguments"], r#"{"a": 3, "b": 1}"#);
    // An answer without calls is as it is without tools.
    let plain = "No <tool_ here. \n";
    let answer = ok(&parrot(plain), CHAT, &asked(&json!({ "tool_choice": "auto" }))).await;
    let choice = &answer["choices"][0];
    assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(plain), &json!("stop")));
    assert!(choice["message"].get("tool_calls").is_none());
}

#[tokio::test]
async fn the_template_shows_tools_calls_and_results() {
    let (_dir, model) = long_model("hermes");
    let app = app(Engine::of(&model).unwrap());
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "add", "arguments": "{\"a\":1,\"b\":2}" } });
    let conversation = json!([
        { "role": "user", "content": "1 + 2?" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": "3" },
    ]);
    let body = json!({ "messages": conversation, "tools": tools() });
    let prompt = ok(&app, "/apply-template", &body).await["prompt"].as_str().unwrap().to_string();
    let end = "<|im_start|>user\n1 + 2?<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{\"name\": \"add\", \"arguments\": \
               {\"a\": 1, \"b\": 2}}\n</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n3\n</tool_response><|im_end|>\n\
               <|im_start|>assistant\n";
    assert!(prompt.ends_with(end), "{prompt}");
    assert!(prompt.contains("\n{\"type\": \"function\", \"function\": {\"name\": \"now\"}}\n"), "{prompt}");
    // What is not to be called is not shown.
    let none = with(body.clone(), &json!({ "max_tokens": 1, "tool_choice": "none" }));
    let shown = with(body, &json!({ "max_tokens": 1 }));
    let tokens = async |body: &Value| ok(&app, CHAT, body).await["usage"]["prompt_tokens"].as_u64().unwrap();
    assert!(tokens(&none).await + 300 < tokens(&shown).await);
}

#[tokio::test]
async fn what_the_model_cannot_is_refused() {
    let (_dir, model) = model();
    let app = app(Engine::of(&model).unwrap());
    let error = refused(&app, CHAT, &asked(&json!({}))).await;
    assert_eq!(error["param"], "tools", "{error}");
    assert!(error["message"].as_str().unwrap().contains("--tool-format"), "{error}");
    // In a form that the operator names, of a template that does not write them.
    let app = common::app(Engine::of(&model).unwrap().with_tool_format(ToolFormat::Hermes));
    let error = refused(&app, CHAT, &asked(&json!({}))).await;
    assert!(error["message"].as_str().unwrap().contains("does not show tools"), "{error}");
    let call = json!([{ "function": { "name": "add", "arguments": "{}" } }]);
    let lost = json!({ "messages": [{ "role": "assistant", "tool_calls": call }] });
    let error = refused(&app, CHAT, &lost).await;
    assert!(error["message"].as_str().unwrap().contains("drops calls"), "{error}");
    let error = refused(&app, CHAT, &asked(&json!({ "regex": "a" }))).await;
    assert_eq!(error["param"], "regex");
    // A schema that cannot be compiled is one of the tools'.
    let (_dir, model) = long_model("hermes");
    let app = common::app(Engine::of(&model).unwrap());
    let tool =
        json!([{ "type": "function", "function": { "name": "f", "parameters": { "type": "strong" } } }]);
    let error = refused(&app, CHAT, &asked(&json!({ "tools": tool, "tool_choice": "required" }))).await;
    assert_eq!(error["param"], "tools");
    assert!(error["message"].as_str().unwrap().contains("strong"), "{error}");
}

#[test]
fn formats_are_found_in_templates() {
    let of = |source: &str| ToolFormat::of(&ChatTemplate::new(source).unwrap());
    assert_eq!(of("{% if tools %}<tool_call>{% endif %}"), Some(ToolFormat::Hermes));
    assert_eq!(of("{% if tools %}<tool_call><function=x>{% endif %}"), None);
    assert_eq!(of("{% if tools %}[TOOL_CALLS]{% endif %}"), Some(ToolFormat::Mistral));
    let llama =
        "{% if tools %}<|start_header_id|>{{ message.tool_calls }}{{ '\"parameters\": ' }}{% endif %}";
    assert_eq!(of(llama), Some(ToolFormat::Llama3));
    assert_eq!(of("<tool_call>"), None);
    for (name, right) in [("hermes", Some(ToolFormat::Hermes)), ("chatml", None), ("llama3", None)] {
        assert_eq!(ToolFormat::of(&ChatTemplate::named(name).unwrap()), right);
    }
}
