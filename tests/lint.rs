//! `tritforge data lint` on a recipe and on files: what is found, how it is told, and how it exits.

use std::fs;

use serde_json::Value;

mod project;

use project::Project;

const QUESTION: &str = "A farmer has 17 sheep and all but 9 of them run away to the hills before dawn";

/// A recipe for conversations with what lint finds, and a set that is evaluated.
fn project() -> Project {
    let project = Project::new();
    let recipe = fs::read_to_string(project.path("recipe.toml")).unwrap();
    let data = "train = [\"chat.jsonl\"]\nrecords = \"messages\"\ntemplate = \"chatml\"\nheld_out = 0.3";
    let recipe = recipe.replace("train = [\"text.txt\"]\nheld_out = 0.1", data);
    fs::write(
        project.path("sft.toml"),
        recipe
            .replace("split = \"contiguous\"\n", "")
            .replace("seq_len = 32", "seq_len = 100")
            .replace("embeddings = 64", "embeddings = 128"),
    )
    .unwrap();
    let record = |question: &str, answer: &str| {
        let message = |role: &str, content: &str| serde_json::json!({"role": role, "content": content});
        let messages = [message("user", question), message("assistant", answer)];
        serde_json::json!({ "messages": messages }).to_string()
    };
    let mut lines: Vec<String> =
        (0..30).map(|i| record(&format!("what is {i} + 1"), &format!("{}.", i + 1))).collect();
    lines.push(record("what is 3 + 1", "4."));
    lines.push(record("echo", "Echo"));
    lines.push(record("tell a story", &"Once upon a time. ".repeat(40)));
    lines.push(record(QUESTION, "9."));
    lines.push("no json".to_string());
    lines.push(r#"{"messages":[{"role":"user","content":"q"}]}"#.to_string());
    fs::write(project.path("chat.jsonl"), lines.join("\n") + "\n").unwrap();
    fs::write(
        project.path("test.jsonl"),
        format!("{{\"question\":\"{QUESTION}, how many?\",\"answer\":\"#### 9\"}}\n"),
    )
    .unwrap();
    project
}

fn kinds(json: &Value) -> Vec<(String, String)> {
    let findings = json["findings"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    findings.iter().map(|finding| (text(&finding["kind"]), text(&finding["source"]))).collect()
}

#[test]
fn a_recipe_is_checked_with_its_template_and_tokenizer() {
    let project = project();
    let args = ["data", "lint", "sft.toml", "--against", "test.jsonl"];
    let json = |more: &[&str]| -> Value {
        let printed = project.ok(&[&args[..], more, &["--json"]].concat());
        serde_json::from_str(&printed).unwrap()
    };
    let found = json(&[]);
    assert_eq!(found, json(&["--threads", "1"]));
    assert_eq!(found, json(&["--threads", "4"]));
    let told: Vec<(String, String)> = kinds(&found);
    let at = |kind: &str| -> Vec<&str> {
        told.iter()
            .filter(|(k, _)| k == kind)
            .map(|(_, source)| source.rsplit(": ").next().unwrap())
            .collect()
    };
    assert_eq!(at("malformed"), ["line 35"]);
    assert_eq!(at("nothing-to-learn"), ["line 36"]);
    assert_eq!(at("answer-is-question"), ["line 32"]);
    assert_eq!(at("too-long"), ["line 33"]);
    assert_eq!(at("duplicate"), ["line 31"]);
    assert_eq!((at("no-end").len(), at("refused").len()), (0, 0));
    assert_eq!(
        (found["records"].as_u64(), found["counts"]["too-long"]["count"].as_u64()),
        (Some(36), Some(1))
    );
    assert!(found["held_out"].as_u64().unwrap() > 0, "{found}");
    // The farmer is looked for where he is trained on.
    let held_out = found["notes"].to_string().contains("0 of 1 item");
    assert_eq!(at("leak").len(), usize::from(!held_out));
    assert!(!project.path("runs").exists());

    // A template that marks the answers without their end.
    let template = "{% for m in messages %}{{ m.role }}: {% if m.role == 'assistant' %}{% generation %}\
                    {{ m.content }}{% endgeneration %}<|end|>{% else %}{{ m.content }}<|end|>{% endif %}{% endfor %}";
    fs::write(project.path("open.jinja"), template).unwrap();
    let found = json(&["--set", "data.template=open.jinja"]);
    let ends = kinds(&found).iter().filter(|(kind, _)| kind == "no-end").count();
    assert_eq!(ends, 34, "{}", found["counts"]);
    // Without a tokenizer the rest is checked, and it is said.
    let recipe = fs::read_to_string(project.path("sft.toml")).unwrap();
    let recipe =
        recipe.replace("kind = \"bpe\"\nvocab_size = 320", "kind = \"file\"\npath = \"missing.json\"");
    fs::write(project.path("missing.toml"), recipe).unwrap();
    let printed = project.ok(&["data", "lint", "missing.toml", "--json"]);
    let found: Value = serde_json::from_str(&printed).unwrap();
    assert!(found["notes"].to_string().contains("were not checked"), "{}", found["notes"]);
    assert_eq!(found["counts"]["duplicate"]["count"].as_u64(), Some(1));
}

#[test]
fn files_are_checked_alone_and_strict_fails() {
    let project = project();
    fs::write(project.path("qa.csv"), "question,answer\nwhat is 3 + 1,4.\nwho,\"\"\n").unwrap();
    let columns = ["--column", "instruction=question", "--column", "output=answer"];
    let mut args = vec!["data", "lint", "qa.csv"];
    args.extend(columns);
    let printed = project.ok(&args);
    assert!(printed.contains("2 records from 1 file") && printed.contains("qa.csv: line 3"), "{printed}");
    assert!(printed.contains("empty-answer") && printed.contains("50.00 %"), "{printed}");
    args.push("--strict");
    let output = project.run(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.is_empty() && !output.stdout.is_empty());
    fs::write(project.path("held.jsonl"), "{\"instruction\":\"what is 3 + 1\",\"output\":\"4.\"}\n").unwrap();
    fs::write(project.path("train.jsonl"), "{\"instruction\":\"what is 3 + 1\",\"output\":\"4.\"}\n")
        .unwrap();
    let printed = project.ok(&["data", "lint", "train.jsonl", "--held-out", "held.jsonl"]);
    assert!(
        printed.contains("held-out-duplicate")
            && printed.contains("held.jsonl: line 1: as train.jsonl: line 1")
    );
    let printed = project.ok(&["data", "lint", "train.jsonl", "--strict"]);
    assert!(printed.contains("nothing found"), "{printed}");
    // A recipe that learns text whole.
    let printed = project.ok(&["data", "lint", "recipe.toml", "--against", "test.jsonl"]);
    assert!(
        printed.contains("1 for training and 1 held out") && printed.contains("0 of 1 item"),
        "{printed}"
    );
}

#[test]
fn what_contradicts_is_named() {
    let project = project();
    for (args, place) in [
        (vec!["recipe.toml", "chat.jsonl"], "one recipe"),
        (vec!["sft.toml", "--held-out", "chat.jsonl"], "--held-out"),
        (vec!["sft.toml", "--column", "output=answer"], "--column"),
        (vec!["sft.toml", "--records", "messages"], "--records"),
        (vec!["chat.jsonl", "--set", "data.seq_len=3"], "--set"),
        (vec!["chat.jsonl", "--records", "chat"], "prompt-completion"),
        (vec!["chat.jsonl", "--column", "answer=output"], "NAME=COLUMN"),
        (vec!["missing.jsonl"], "missing.jsonl"),
        (vec!["chat.jsonl", "--against", "missing.jsonl"], "missing.jsonl"),
    ] {
        let message = project.fails(&[&["data", "lint"], &args[..]].concat());
        assert!(message.contains(place), "{args:?}: {message}");
    }
}
