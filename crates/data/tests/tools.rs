//! Tools and their calls in records: every way in which data sets write them becomes OpenAI's form, and what is wrong with
//! them is said with its place.

use std::fs;

use serde_json::{Value, json};
use tritforge_data::{Body, ChatTurn, Example, Examples, ReadOptions, TextSource};

fn read(text: &str) -> Result<Vec<Example>, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    fs::write(&path, text).unwrap();
    Examples::read(&[TextSource::new(path)], &ReadOptions::default())
        .map(|found| found.examples)
        .map_err(|e| e.to_string())
}

fn one(record: &Value) -> Example {
    read(&record.to_string()).unwrap_or_else(|e| panic!("{record}: {e}")).remove(0)
}

fn turns(example: &Example) -> &[ChatTurn] {
    let Body::Turns(said) = &example.body else { panic!("{example:?}") };
    said
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]})
}

/// A record with a call, changed.
fn record(change: impl Fn(&mut Value)) -> Value {
    let mut record = json!({
        "messages": [
            {"role": "user", "content": "Warm?"},
            {"role": "assistant", "content": null, "tool_calls": [
                {"type": "function", "id": "1", "function": {"name": "weather", "arguments": {"city": "Paris"}}}]},
            {"role": "tool", "tool_call_id": "1", "content": "18"},
            {"role": "assistant", "content": "Yes."},
        ],
        "tools": [{"type": "function", "function": {"name": "weather", "parameters": schema()}}],
    });
    change(&mut record);
    record
}

#[test]
fn tools_and_calls_are_the_same_however_they_are_written() {
    let plain = one(&record(|_| ()));
    assert_eq!(plain.supplied.tools, [record(|_| ())["tools"][0].clone()]);
    let said = turns(&plain);
    assert_eq!(said.iter().map(|turn| turn.learn).collect::<Vec<_>>(), [false, true, false, true]);
    let call = &said[1].message["tool_calls"][0]["function"];
    assert_eq!((&call["name"], &call["arguments"]), (&"weather".into(), &json!({"city": "Paris"})));
    assert!(!said[1].message.contains_key("content") && said[2].message["tool_call_id"] == "1");
    let ways: [fn(&mut Value); 4] = [
        |r| r["tools"] = r["tools"].to_string().into(),
        |r| r["tools"] = json!([r["tools"][0]["function"]]),
        |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = r#"{"city": "Paris"}"#.into(),
        |r| {
            r["messages"][1]["tool_calls"] =
                json!([{"id": "1", "name": "weather", "arguments": {"city": "Paris"}}]);
        },
    ];
    for way in ways {
        let found = one(&record(way));
        // Equal in every key, whatever their order.
        assert_eq!((&found.supplied, turns(&found)), (&plain.supplied, said), "{}", record(way));
    }
    // No calls at all are none; no arguments are an object without keys.
    let none = one(&record(|r| r["messages"][3]["tool_calls"] = json!([])));
    assert!(!turns(&none)[3].message.contains_key("tool_calls"));
    let bare = one(&record(|r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = "".into()));
    assert_eq!(turns(&bare)[1].message["tool_calls"][0]["function"]["arguments"], json!({}));
    // LLaMA-Factory's.
    let factory = one(&json!({
        "conversations": [
            {"from": "human", "value": "Warm?"},
            {"from": "function_call", "value": r#"{"name": "weather", "arguments": {"city": "Paris"}}"#},
            {"from": "observation", "value": "18"},
            {"from": "gpt", "value": "Yes."},
        ],
        "tools": json!([{"name": "weather", "parameters": schema()}]).to_string(),
    }));
    assert_eq!(factory.supplied, plain.supplied);
    let factory = turns(&factory);
    assert_eq!(
        factory.iter().map(ChatTurn::role).collect::<Vec<_>>(),
        ["user", "assistant", "tool", "assistant"]
    );
    assert_eq!(&factory[1].message["tool_calls"][0]["function"], call);
    assert!(factory[1].learn && factory[1].answer);
    // Salesforce's.
    let xlam = one(&json!({
        "id": 7,
        "query": "Warm?",
        "tools": json!([{"name": "weather", "description": "", "parameters": {
            "city": {"description": "c", "type": "str"},
            "days": {"description": "d", "type": "int, optional", "default": 1},
        }}]).to_string(),
        "answers": json!([{"name": "weather", "arguments": {"city": "Paris"}}]).to_string(),
    }));
    let properties = json!({
        "city": {"description": "c", "type": "string"},
        "days": {"description": "d", "type": "integer", "default": 1},
    });
    let expected = json!({"type": "object", "properties": properties, "required": ["city"]});
    assert_eq!(xlam.supplied.tools[0]["function"]["parameters"], expected);
    assert_eq!((turns(&xlam).len(), &turns(&xlam)[1].message["tool_calls"][0]["function"]), (2, call));
}

#[test]
fn arguments_of_the_template_belong_to_the_example() {
    let plain = one(&record(|_| ()));
    let with = |change: fn(&mut Value)| one(&record(change));
    let found = with(|r| {
        r["chat_template_kwargs"] = json!({"enable_thinking": false, "unused": null});
        r["documents"] = r#"[{"title": "t", "text": "x"}]"#.into();
    });
    let expected = json!({"documents": [{"title": "t", "text": "x"}], "enable_thinking": false});
    assert_eq!(Value::Object(found.supplied.arguments.clone()), expected);
    // An example with other tools is another one; without any it is the one that it always was.
    let others = [found, with(|r| r["tools"][0]["function"]["name"] = "w".into())];
    assert!(others.iter().all(|other| other.digest() != plain.digest()));
    let none = with(|r| r["tools"] = Value::Null);
    assert_eq!(none.digest(), Example::new("x".to_string(), none.body.clone()).digest());
}

/// What a case changes in a record.
type Change = fn(&mut Value);

#[test]
fn what_is_wrong_with_tools_is_said_with_its_place() {
    let cases: [(Change, &str); 16] = [
        (|r| r["tools"] = 3.into(), "column \"tools\": found a number, expected a list of tools"),
        (|r| r["tools"] = "[{".into(), "column \"tools\" is not JSON"),
        (|r| r["tools"] = json!(["f"]), "column \"tools\": tool 1: found a string"),
        (
            |r| r["tools"][0]["type"] = "retrieval".into(),
            "tool 1: its type is \"retrieval\", expected \"function\"",
        ),
        (|r| r["tools"][0]["function"]["name"] = "".into(), "tool 1: it has no name"),
        (
            |r| r["tools"][0]["function"]["parameters"] = "{}".into(),
            "tool 1: its parameters is a string, expected an object",
        ),
        (
            |r| r["tools"] = json!([r["tools"][0], r["tools"][0]]),
            "tool 2: another tool is called \"weather\"",
        ),
        (
            |r| r["functions"] = json!([{}]),
            "column \"functions\" is an array: OpenAI's older form is not supported",
        ),
        (
            |r| r["messages"][1]["tool_calls"] = "x".into(),
            "message 2: its tool_calls is a string, expected a list of calls",
        ),
        (|r| r["messages"][1]["tool_calls"] = json!([{"id": 1}]), "message 2: call 1: it has no name"),
        (
            |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = "{\"city\"".into(),
            "message 2: call 1: the arguments of weather are not JSON",
        ),
        (
            |r| r["messages"][1]["tool_calls"][0]["function"]["arguments"] = "[]".into(),
            "message 2: call 1: the arguments of weather are the text of an array, expected that of an object",
        ),
        (
            |r| r["messages"][0]["tool_calls"] = r["messages"][1]["tool_calls"].clone(),
            "message 1: it has tool_calls, but its role is user: only assistant calls tools",
        ),
        (|r| r["documents"] = json!(["x"]), "column \"documents\": expected a list of objects"),
        (
            |r| r["chat_template_kwargs"] = json!([1]),
            "column \"chat_template_kwargs\" is an array, expected an object",
        ),
        (
            |r| r["chat_template_kwargs"] = json!({"tools": []}),
            "column \"chat_template_kwargs\" has \"tools\"",
        ),
    ];
    for (change, expected) in cases {
        let error = read(&record(change).to_string()).unwrap_err();
        assert!(
            error.contains("a.jsonl: line 1: ") && error.contains(expected),
            "{error}\nexpected {expected}"
        );
    }
    let call = r#"{"conversations":[{"from":"human","value":"a"},{"from":"function_call","value":"f(1)"}]}"#;
    let error = read(call).unwrap_err();
    assert!(error.contains("line 1: message 2: its function call is not JSON"), "{error}");
}
