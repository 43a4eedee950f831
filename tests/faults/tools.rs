//! Tools, calls of them and template arguments in conversations to be fine-tuned on: what a model would learn to call.

use std::fs;

use serde_json::{Value, json};
use tritforge_data::{Examples, ReadOptions, TextSource};

use crate::{Round, caught};

/// A conversation that has all of it: a declared tool, a call, its result, an answer.
fn record() -> Value {
    let parameters =
        json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    json!({
        "tools": [{ "type": "function", "function": { "name": "weather", "description": "The weather.", "parameters": parameters } }],
        "chat_template_kwargs": { "enable_thinking": false },
        "messages": [
            { "role": "user", "content": "Is it raining?" },
            { "role": "assistant", "content": "", "tool_calls": [
                { "id": "c1", "type": "function", "function": { "name": "weather", "arguments": { "city": "Oslo" } } },
            ] },
            { "role": "tool", "tool_call_id": "c1", "content": "yes" },
            { "role": "assistant", "content": "It is." },
        ],
    })
}

/// A change of the record, and what the error has to name.
type Fault = (fn(&mut Value), &'static str);

const REFUSED: [Fault; 30] = [
    (|r| r["tools"] = json!(3), "column \"tools\""),
    (|r| r["tools"] = json!("[{"), "column \"tools\" is not JSON"),
    (|r| r["tools"] = json!("weather"), "column \"tools\" is not JSON"),
    (|r| r["tools"] = json!({ "name": "weather" }), "column \"tools\""),
    (|r| r["tools"] = json!([null]), "column \"tools\": tool 1"),
    (|r| r["tools"] = json!([[]]), "column \"tools\": tool 1"),
    (|r| r["tools"] = json!([{}]), "column \"tools\": tool 1"),
    (|r| r["tools"] = json!([r["tools"][0], r["tools"][0]]), "tool 2: another tool is called \"weather\""),
    (|r| r["tools"][0]["type"] = json!("retrieval"), "tool 1: its type"),
    (|r| r["tools"][0]["type"] = json!(1), "tool 1: its type"),
    (|r| r["tools"][0]["function"] = json!("weather"), "tool 1: its function"),
    (|r| r["tools"][0]["function"]["name"] = json!(""), "tool 1: it has no name"),
    (|r| r["tools"][0]["function"]["name"] = json!(7), "tool 1: it has no name"),
    (|r| r["tools"][0]["function"]["parameters"] = json!("{}"), "tool 1: its parameters"),
    (|r| r["tools"][0]["function"]["parameters"] = json!([]), "tool 1: its parameters"),
    (|r| r["tools"][0]["function"]["description"] = json!([]), "tool 1: its description"),
    (|r| r["chat_template_kwargs"] = json!(["enable_thinking"]), "column \"chat_template_kwargs\""),
    (|r| r["chat_template_kwargs"] = json!("{"), "\"chat_template_kwargs\" is not JSON"),
    (|r| r["chat_template_kwargs"] = json!(1), "column \"chat_template_kwargs\""),
    (|r| r["chat_template_kwargs"]["tools"] = json!([]), "\"chat_template_kwargs\" has \"tools\""),
    (|r| r["documents"] = json!(["text"]), "column \"documents\""),
    (|r| r["messages"][1]["tool_calls"] = json!("weather"), "message 2: its tool_calls"),
    (|r| r["messages"][1]["tool_calls"] = json!({}), "message 2: its tool_calls"),
    (|r| r["messages"][1]["tool_calls"][0] = json!("weather"), "message 2: call 1"),
    (|r| r["messages"][1]["tool_calls"][0]["function"]["name"] = Value::Null, "message 2: call 1"),
    (
        |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = json!("{"),
        "call 1: the arguments of weather",
    ),
    (
        |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = json!("[1]"),
        "call 1: the arguments of weather",
    ),
    (
        |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = json!(1),
        "call 1: the arguments of weather",
    ),
    (
        |r| r["messages"][0]["tool_calls"] = r["messages"][1]["tool_calls"].clone(),
        "message 1: it has tool_calls",
    ),
    (|r| r["messages"][2]["content"] = json!({ "rain": true }), "message 3: its content"),
];

const HARMLESS: [fn(&mut Value); 7] = [
    |_| (),
    // The forms that data sets have: text of JSON, functions without their wrapping.
    |r| r["tools"] = json!(r["tools"].to_string()),
    |r| r["tools"][0] = r["tools"][0]["function"].clone(),
    |r| r["chat_template_kwargs"] = json!(r["chat_template_kwargs"].to_string()),
    |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = json!("{\"city\": \"Oslo\"}"),
    // A table of fixed columns has null where a record does not give a key.
    |r| r["chat_template_kwargs"]["depth"] = Value::Null,
    |r| r["documents"] = json!([]),
];

#[test]
fn tools_with_one_fault() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tools.jsonl");
    let read = |change: fn(&mut Value)| {
        let mut changed = record();
        change(&mut changed);
        // The fault stands in the second line.
        fs::write(&path, format!("{}\n{changed}\n", record())).unwrap();
        caught(|| {
            let found = Examples::read(&[TextSource::new(&path)], &ReadOptions::default());
            let found = found.map_err(|e| e.to_string())?.examples;
            Ok(format!("{:?} {:?}", found[1].body, found[1].supplied))
        })
    };
    let right = read(|_| ()).unwrap();
    let mut round = Round::default();
    for (number, change) in HARMLESS.into_iter().enumerate() {
        round.take(&format!("harmless {number}"), read(change), &[], &right);
    }
    for (number, (change, place)) in REFUSED.into_iter().enumerate() {
        let found = read(change);
        // Every error names the line as well.
        let named = found.map_err(|e| match e.contains("tools.jsonl: line 2") {
            true => e,
            false => format!("without its line: {}", e.replace(place, "…")),
        });
        round.refused(&format!("refused {number}"), named, &[place]);
    }
    round.end(37);
}
