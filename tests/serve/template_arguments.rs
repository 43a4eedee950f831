//! What a model's chat template was given in training it is given when it is served, unless a request says otherwise.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::Served;
use crate::project::Project;

/// A template that shuts thinking off before the answer, which is what is learned.
const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'assistant' %}\
    A:{% if enable_thinking is defined and not enable_thinking %} off{% endif %}{% generation %} {{ m.content }}\n{% endgeneration %}\
    {% else %}Q: {{ m.content }}\n{% endif %}{% endfor %}\
    {% if add_generation_prompt %}A:{% if enable_thinking is defined and not enable_thinking %} off{% endif %}{% endif %}";

/// A run of a few steps on conversations, with `enable_thinking = false`, and its file `model.gguf`.
fn trained() -> Project {
    let project = Project::new();
    fs::write(project.path("chat.jinja"), TEMPLATE).unwrap();
    let line = |i: usize| {
        let turns = [
            json!({"role": "user", "content": format!("Say {i}")}),
            json!({"role": "assistant", "content": "No."}),
        ];
        format!("{}\n", json!({ "messages": turns }))
    };
    fs::write(project.path("chat.jsonl"), (0..20).map(line).collect::<String>()).unwrap();
    let recipe = fs::read_to_string(project.path("recipe.toml")).unwrap();
    let data = "train = [\"chat.jsonl\"]\nrecords = \"messages\"\ntemplate = \"chat.jinja\"\n\
                chat_template_kwargs = { enable_thinking = false }\n";
    fs::write(project.path("chat.toml"), recipe.replace("train = [\"text.txt\"]\n", data)).unwrap();
    let shown = project.ok(&["data", "preview", "chat.toml"]);
    assert!(shown.contains("A: off"), "{shown}");
    project.ok(&["train", "chat.toml", "--quiet"]);
    project.ok(&["export", "runs/tiny", "-o", "model.gguf"]);
    project
}

/// The prompt that a question becomes, with the template's arguments of a request.
fn prompt(served: &Served, arguments: Option<Value>) -> String {
    let mut body = json!({ "messages": [{ "role": "user", "content": "Say 3" }] });
    if let Some(arguments) = arguments {
        body["chat_template_kwargs"] = arguments;
    }
    let (status, _, answer) = served.post("/apply-template", "", &body.to_string());
    assert_eq!(status, 200, "{answer}");
    serde_json::from_str::<Value>(&answer).unwrap()["prompt"].as_str().unwrap().to_string()
}

#[test]
fn what_was_trained_without_thinking_is_served_so() {
    let project = trained();
    let config = fs::read_to_string(project.path("runs/tiny/step-000012/tokenizer_config.json")).unwrap();
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["chat_template_kwargs"], json!({ "enable_thinking": false }));
    let (off, on) = ("Q: Say 3\nA: off", "Q: Say 3\nA:");

    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("model.gguf");
    fs::copy(project.path("model.gguf"), &file).unwrap();
    let served = Served::run(dir, &[file.to_str().unwrap(), "--port", "0"]);
    assert_eq!(prompt(&served, None), off);
    assert_eq!(prompt(&served, Some(json!({}))), off);
    assert_eq!(prompt(&served, Some(json!({ "other": 1 }))), off);
    assert_eq!(prompt(&served, Some(json!({ "enable_thinking": true }))), on);

    // A conversation is answered as its prompt is continued; the cache of answers tells them apart.
    let answer = |path: &str, body: Value| -> Value {
        let (status, _, answer) = served.post(path, "", &body.to_string());
        assert_eq!(status, 200, "{answer}");
        serde_json::from_str(&answer).unwrap()
    };
    let options = json!({ "max_tokens": 6, "temperature": 0, "ignore_eos": true });
    let with = |more: Value| {
        let mut body = options.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let messages = json!([{ "role": "user", "content": "Say 3" }]);
    for (arguments, text) in [(json!({}), off), (json!({ "enable_thinking": true }), on)] {
        let chat = answer(
            "/v1/chat/completions",
            with(json!({ "messages": messages, "chat_template_kwargs": arguments })),
        );
        let completed = answer("/v1/completions", with(json!({ "prompt": text })));
        assert_eq!(chat["usage"]["prompt_tokens"], completed["usage"]["prompt_tokens"], "{arguments}");
        let (chat, completed) = (&chat["choices"][0]["message"]["content"], &completed["choices"][0]["text"]);
        assert_eq!(chat, completed, "{arguments}");
        let counted = answer("/tokenize", json!({ "messages": messages, "chat_template_kwargs": arguments }));
        let plain = answer("/tokenize", json!({ "prompt": text }));
        assert_eq!(counted["tokens"], plain["tokens"]);
    }
    // A text has no template to be put into.
    let arguments = json!({ "enable_thinking": true });
    for (path, body, expected) in [
        (
            "/tokenize",
            json!({ "prompt": "Say 3", "chat_template_kwargs": arguments }),
            "chat_template_kwargs needs messages",
        ),
        (
            "/v1/generate/batch",
            json!({ "requests": [{ "prompt": "Say 3", "chat_template_kwargs": arguments }] }),
            "Unrecognized request argument supplied: chat_template_kwargs",
        ),
    ] {
        let (_, _, answer) = served.post(path, "", &body.to_string());
        assert!(answer.contains(expected), "{path}: {answer}");
    }
    for (arguments, expected) in
        [(json!(3), "expected an object"), (json!({ "messages": [] }), "no argument may be called")]
    {
        let body = with(json!({ "messages": messages, "chat_template_kwargs": arguments }));
        let (status, _, answer) = served.post("/v1/chat/completions", "", &body.to_string());
        let error: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!((status, &error["error"]["param"]), (400, &json!("chat_template_kwargs")), "{answer}");
        assert!(answer.contains(expected), "{answer}");
    }
}

#[test]
fn chat_and_generate_write_what_they_write_of_the_prompt() {
    let project = trained();
    let line = |more: Value| {
        let mut line = json!({ "max_tokens": 6, "ignore_eos": true });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    };
    let messages = json!([{ "role": "user", "content": "Say 3" }]);
    let lines = [
        json!({ "messages": messages }),
        json!({ "prompt": "Q: Say 3\nA: off" }),
        json!({ "messages": messages, "chat_template_kwargs": { "enable_thinking": true } }),
        json!({ "prompt": "Q: Say 3\nA:" }),
    ];
    fs::write(project.path("batch.jsonl"), lines.map(line).concat()).unwrap();
    let options = ["--temperature", "0"];
    project
        .ok(&[&["generate", "model.gguf", "--batch", "batch.jsonl", "-o", "out.jsonl"], &options[..]]
            .concat());
    let written = fs::read_to_string(project.path("out.jsonl")).unwrap();
    let texts: Vec<Value> =
        written.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["text"].clone()).collect();
    assert_eq!(texts.len(), 4, "{written}");
    assert_eq!((&texts[0], &texts[2]), (&texts[1], &texts[3]), "{written}");

    let mut command = project.command(&["chat", "model.gguf", "-n", "6", "--temperature", "0"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"Say 3\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).unwrap();
    let whole = project.ok(&[
        "generate",
        "model.gguf",
        "--prompt",
        "Q: Say 3\nA: off",
        "-n",
        "6",
        "--temperature",
        "0",
    ]);
    let text = whole.trim_end().rsplit("A: off").next().unwrap();
    assert!(said.trim_end().ends_with(text.trim_end()), "{said:?} {whole:?}");

    // What is trained on top has the same arguments, unless its recipe has others.
    let recipe = fs::read_to_string(project.path("chat.toml")).unwrap();
    let recipe =
        recipe.replace("template = \"chat.jinja\"\nchat_template_kwargs = { enable_thinking = false }\n", "");
    let shape = recipe.find("[model]").unwrap()..recipe.find("[data]").unwrap();
    fs::write(project.path("more.toml"), recipe.replace(&recipe[shape], "[model]\nbase = \"runs/tiny\"\n"))
        .unwrap();
    let shown = project.ok(&["data", "preview", "more.toml"]);
    assert!(shown.contains("A: off"), "{shown}");
    let shown = project.ok(&[
        "data",
        "preview",
        "more.toml",
        "--set",
        "data.chat_template_kwargs.enable_thinking=true",
    ]);
    assert!(!shown.contains("A: off"), "{shown}");
    let refused =
        project.fails(&["data", "preview", "more.toml", "--set", "data.chat_template_kwargs.depth=3"]);
    assert!(refused.contains("data.chat_template_kwargs.depth: data.template does not use it"), "{refused}");
}
