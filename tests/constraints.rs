//! `--json-schema`, `--grammar`, `--regex` and `--json` of `tritforge generate` and `chat`, on a small model with random
//! weights.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a model and a schema in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        let shape = "vocab_size = 257\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
                     num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 1024";
        let schema = json!({
            "type": "object",
            "properties": { "age": { "type": "integer", "minimum": 0, "maximum": 99 } },
            "required": ["age"], "additionalProperties": false,
        });
        place.write("shape.toml", shape);
        place.write("person.json", &schema.to_string());
        place.write("greeting.lark", "start: (\"hello\" | \"hi\") \"!\"\n");
        place.ok(&["synth", "shape.toml", "-o", "m.gguf"], "");
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn run(&self, args: &[&str], input: &str) -> (bool, String, String) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(args)
            .current_dir(self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }

    fn ok(&self, args: &[&str], input: &str) -> String {
        let (success, stdout, stderr) = self.run(args, input);
        assert!(success, "{args:?} failed:\n{stderr}");
        stdout
    }

    fn fails(&self, args: &[&str]) -> String {
        let (success, _, stderr) = self.run(args, "");
        assert!(!success && !stderr.contains("panicked"), "{args:?}:\n{stderr}");
        stderr
    }

    /// What `generate` adds to the prompt `x`.
    fn text(&self, options: &[&str]) -> String {
        let out = self.ok(&[&["generate", "m.gguf", "-p", "x", "-q", "-n", "300"], options].concat(), "");
        out.strip_prefix('x').unwrap().strip_suffix('\n').unwrap().to_string()
    }
}

fn age(text: &str) -> u64 {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
    let age = value["age"].as_u64().unwrap();
    assert!(age <= 99 && value.as_object().unwrap().len() == 1, "{text}");
    age
}

#[test]
fn texts_fit_what_the_options_say() {
    let place = Place::new();
    for seed in ["1", "2", "3"] {
        age(&place.text(&["--json-schema", "person.json", "--temperature", "1", "--seed", seed]));
        let number = place.text(&["--regex", "[0-9]{3}", "--temperature", "1", "--seed", seed]);
        assert!(number.len() == 3 && number.parse::<u16>().is_ok(), "{number}");
    }
    assert!(["hello!", "hi!"].contains(&place.text(&["--grammar", "greeting.lark"]).as_str()));
    // Each answer of a conversation begins its grammar anew.
    let chat =
        ["chat", "m.gguf", "--template", "chatml", "--json-schema", "person.json", "--temperature", "1"];
    let answers = place.ok(&chat, "one\ntwo\n");
    let answers: Vec<&str> =
        answers.split_inclusive('}').map(str::trim).filter(|text| !text.is_empty()).collect();
    assert_eq!(answers.len(), 2, "{answers:?}");
    for answer in answers {
        age(answer);
    }
    // A line of a batch has the command's constraint, or its own.
    place.write(
        "b.jsonl",
        "{\"prompt\": \"a\"}\n{\"prompt\": \"b\", \"regex\": \"(yes|no)\", \"temperature\": 0}\n",
    );
    let out =
        place.ok(&["generate", "m.gguf", "--batch", "b.jsonl", "-q", "--json-schema", "person.json"], "");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    age(lines[0]["text"].as_str().unwrap());
    assert!(["yes", "no"].contains(&lines[1]["text"].as_str().unwrap()));
    assert_eq!(lines[1]["finish_reason"], "stop");
}

#[test]
fn what_is_wrong_is_said() {
    let place = Place::new();
    place.write("bad.json", "{\"type\": \"strong\"}");
    place.write("list.json", "[]");
    place.write("bad.lark", "root ::= \"a\"");
    let fails = |options: &[&str]| place.fails(&[&["generate", "m.gguf", "-p", "x"], options].concat());
    for (options, parts) in [
        (["--json-schema", "bad.json"], ["bad.json", "strong"]),
        (["--json-schema", "list.json"], ["list.json", "object"]),
        (["--json-schema", "greeting.lark"], ["greeting.lark", "not JSON"]),
        (["--json-schema", "none.json"], ["none.json", "cannot read"]),
        (["--grammar", "bad.lark"], ["bad.lark", "GBNF"]),
        (["--regex", "a("], ["--regex", "a("]),
    ] {
        let stderr = fails(&options);
        assert!(parts.iter().all(|part| stderr.contains(part)), "{options:?}: {stderr}");
    }
    assert!(fails(&["--regex", "a", "--grammar", "greeting.lark"]).contains("cannot be used with"));
    assert!(fails(&["--logprobs", "3"]).contains("--json"));
}

#[test]
fn one_object_has_everything_about_a_generation() {
    let place = Place::new();
    let args = ["generate", "m.gguf", "-p", "x", "-n", "6", "--temperature", "0", "--ignore-eos", "--json"];
    let object: Value =
        serde_json::from_str(&place.ok(&[&args[..], &["--logprobs", "2"]].concat(), "")).unwrap();
    assert_eq!((&object["prompt"], &object["finish_reason"]), (&json!("x"), &json!("length")));
    assert_eq!((&object["prompt_tokens"], &object["completion_tokens"]), (&json!(1), &json!(6)));
    let tokens = object["logprobs"].as_array().unwrap();
    assert_eq!(tokens.len(), 6);
    let mut bytes = Vec::new();
    for (token, id) in tokens.iter().zip(object["tokens"].as_array().unwrap()) {
        assert_eq!(&token["id"], id);
        // Greedy: the token is the most probable one.
        assert_eq!((&token["top"][0]["id"], token["top"].as_array().unwrap().len()), (id, 2));
        assert!(token["logprob"].as_f64().unwrap() <= 0.0);
        bytes.extend(token["bytes"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap() as u8));
    }
    assert_eq!(String::from_utf8_lossy(&bytes), object["text"].as_str().unwrap());
    assert!(object["memory"]["weight_bytes"].as_u64().unwrap() > 0);
    // Without log-probabilities the text is the same, and they are not there.
    let plain: Value = serde_json::from_str(&place.ok(&args, "")).unwrap();
    assert_eq!((&plain["text"], plain.get("logprobs")), (&object["text"], None));
}
