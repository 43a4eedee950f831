//! `tritforge chat` through a pipe and `tritforge generate --batch`, on a small model with random weights.

use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A directory with a model in it.
struct Place {
    dir: TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let shape = "vocab_size = 257\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 2\n\
                     num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 16384";
        fs::write(dir.path().join("shape.toml"), shape).unwrap();
        let place = Self { dir };
        place.ok(&["synth", "shape.toml", "-o", "m.gguf"], "");
        place
    }

    fn spawn(&self, args: &[&str]) -> Child {
        Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut child = self.spawn(args);
        // A program that refuses its options reads nothing.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn ok(&self, args: &[&str], input: &str) -> (String, String) {
        let output = self.run(args, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{args:?} failed:\n{stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    }

    fn fails(&self, args: &[&str], input: &str) -> String {
        let output = self.run(args, input);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{args:?} succeeded");
        assert!(!stderr.contains("panicked"), "{args:?} panicked:\n{stderr}");
        stderr
    }

    fn chat(&self, options: &[&str], input: &str) -> (String, String) {
        self.ok(&[&["chat", "m.gguf", "--template", "chatml", "-n", "12"], options].concat(), input)
    }

    fn messages(&self, file: &str) -> Vec<Value> {
        let bytes = fs::read(self.dir.path().join(file)).unwrap();
        serde_json::from_slice::<Vec<Value>>(&bytes).unwrap()
    }
}

/// The number before ` new tokens` in each `/stats`.
fn prefilled(printed: &str) -> Vec<usize> {
    let lines = printed.lines().filter_map(|l| l.strip_prefix("prefill  "));
    lines.map(|l| l.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn a_turn_runs_only_what_is_new_and_says_what_a_fresh_run_would() {
    let place = Place::new();
    let long = "a long message ".repeat(20);
    let input = format!("{long}\n/stats\nshort\n/stats\n/save all.json\n");
    let (printed, _) = place.chat(&["--temperature", "0", "--system", "Be brief."], &input);
    let prefilled = prefilled(&printed);
    assert!(prefilled[0] > 300 && prefilled[1] < 80, "{prefilled:?}");
    let all = place.messages("all.json");
    let roles: Vec<_> = all.iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "user", "assistant"]);
    // An answer after a shared prefix, after the whole prompt, and after nothing.
    let history =
        json!([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]);
    fs::write(place.dir.path().join("history.json"), history.to_string()).unwrap();
    let greedy = ["--temperature", "0", "--ignore-eos"];
    place.chat(
        &greedy,
        "/load history.json\nsh, other\n/undo\nshort\n/save a.json\n/undo\nshort\n/save b.json\n",
    );
    place.chat(&greedy, "/load history.json\nshort\n/save c.json\n");
    let fresh = place.messages("c.json");
    assert_eq!(fresh.len(), 4);
    assert_eq!(place.messages("a.json"), fresh);
    assert_eq!(place.messages("b.json"), fresh);
}

#[test]
fn commands_change_what_the_model_sees() {
    let place = Place::new();
    let input = "one\n/undo\n/system Be kind.\ntwo\n/save a.json\n/reset\n/save b.json\n/system\n/save c.json\n\
                 /help\n/exit\nlost\n";
    let (printed, _) = place.chat(&[], input);
    assert!(printed.contains("/save FILE"), "{printed}");
    let a = place.messages("a.json");
    assert_eq!((a.len(), &a[0]["content"], &a[1]["content"]), (3, &json!("Be kind."), &json!("two")));
    assert_eq!(place.messages("b.json").len(), 1);
    assert_eq!(place.messages("c.json").len(), 0);
    // Faults are named, do not end the conversation, and make the exit code of a script.
    fs::write(place.dir.path().join("bad.json"), r#"[{"role": "assistant", "content": ""}]"#).unwrap();
    let input = "/resett\n/undo\n/load absent.json\n/load bad.json\n/save d.json\n";
    let errors = place.fails(&["chat", "m.gguf", "--template", "plain"], input);
    for part in ["/resett", "/undo", "absent.json", "bad.json: message 1", "saved d.json"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
}

#[test]
fn a_full_context_leaves_out_the_oldest_turns_or_says_so() {
    let place = Place::new();
    let input = "a message of some length\n".repeat(6) + "/stats\n/save all.json\n";
    let (printed, notices) = place.chat(&["--context", "256", "--system", "Be brief."], &input);
    assert!(notices.contains("oldest messages]"), "{notices}");
    assert!(printed.contains("12 messages") && !printed.contains(" 0 dropped"), "{printed}");
    assert_eq!(place.messages("all.json").len(), 13);
    let args =
        ["chat", "m.gguf", "--template", "chatml", "-n", "12", "--context", "256", "--no-context-shift"];
    let errors = place.fails(&args, &input);
    assert!(errors.contains("context of 256 tokens is full") && errors.contains("/reset"), "{errors}");
    let errors = place.fails(&args[..8], &"x".repeat(300));
    assert!(errors.contains("shorten the message"), "{errors}");
    // An answer that runs into the end goes on without the oldest turn.
    let args = ["chat", "m.gguf", "--template", "chatml", "-n", "200", "--context", "512", "--ignore-eos"];
    let (printed, notices) = place.ok(&args, "one\n/stats\ntwo\n/stats\n");
    assert!(notices.contains("dropped the 2 oldest messages"), "{notices}");
    assert_eq!(notices.matches("[stopped at --max-tokens]").count(), 2, "{notices}");
    // The last pass over the prompt was the one in the middle of the answer.
    let prefilled = prefilled(&printed);
    assert!(prefilled[1] > 200, "{prefilled:?}");
}

#[test]
fn a_template_comes_from_a_name_or_a_file_or_is_missed() {
    let place = Place::new();
    let errors = place.fails(&["chat", "m.gguf"], "");
    assert!(errors.contains("--template") && errors.contains("chatml"), "{errors}");
    let errors = place.fails(&["chat", "m.gguf", "--template", "chatmll"], "");
    assert!(errors.contains("chatmll") && errors.contains("chatml, llama3, plain"), "{errors}");
    let template =
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}{{ nothing.at.all }}\n";
    fs::write(place.dir.path().join("t.jinja"), template).unwrap();
    let errors = place.fails(&["chat", "m.gguf", "--template", "t.jinja"], "Hello\n");
    assert!(errors.contains("line 2"), "{errors}");
    fs::write(place.dir.path().join("t.jinja"), template.replace("{{ nothing.at.all }}", "[assistant]"))
        .unwrap();
    place.ok(&["chat", "m.gguf", "--template", "t.jinja", "-n", "4", "--kv", "f32"], "Hello\n");
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_not_the_program() {
    let place = Place::new();
    let args = ["chat", "m.gguf", "--template", "chatml", "-n", "1000000", "--ignore-eos"];
    let mut child = place.spawn(&args);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Hello\n").unwrap();
    let mut first = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    stdin.write_all(b"/save after.json\n").unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.contains("[stopped]"), "{stderr}");
    assert_eq!(place.messages("after.json").len(), 2);

    let mut child = place.spawn(&["generate", "m.gguf", "-p", "x", "-n", "1000000", "--ignore-eos"]);
    let mut first = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let kill = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Cancelled"));
}

#[test]
fn a_prompt_gets_the_same_text_in_any_batch() {
    let place = Place::new();
    let lines: Vec<Value> = (0..11)
        .map(|i| {
            let prompt = format!("prompt {i} ").repeat(1 + i * 17 % 90);
            let max_tokens = 3 + i * 7 % 40;
            json!({"id": format!("n{i}"), "prompt": prompt, "max_tokens": max_tokens, "seed": i, "temperature": 0.9})
        })
        .collect();
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(place.dir.path().join("p.jsonl"), text).unwrap();
    let run = |parallel: &str, extra: &[&str]| {
        let args = ["generate", "m.gguf", "--batch", "p.jsonl", "--quiet", "--parallel", parallel];
        place.ok(&[&args[..], extra].concat(), "").0
    };
    let one = run("1", &[]);
    assert_eq!(one, run("4", &[]));
    assert_eq!(one, run("32", &["--threads", "1"]));
    run("3", &["-o", "out.jsonl"]);
    assert_eq!(one, fs::read_to_string(place.dir.path().join("out.jsonl")).unwrap());
    for (line, result) in lines.iter().zip(one.lines()) {
        let result: Value = serde_json::from_str(result).unwrap();
        assert_eq!(result["id"], line["id"]);
        // The command for a single prompt says the same.
        let prompt = line["prompt"].as_str().unwrap();
        let (n, seed) = (line["max_tokens"].to_string(), line["seed"].to_string());
        let args =
            ["generate", "m.gguf", "-p", prompt, "-n", &n, "--seed", &seed, "--temperature", "0.9", "-q"];
        let alone = place.ok(&args, "").0;
        assert_eq!(alone, format!("{prompt}{}\n", result["text"].as_str().unwrap()));
        if result["finish_reason"] == "length" {
            assert_eq!(result["completion_tokens"], line["max_tokens"]);
        }
    }
}

#[test]
fn wrong_lines_are_named_or_skipped() {
    let place = Place::new();
    let cases = [
        (r#"{"prompt": 3}"#, "expected a string"),
        (r#"{"prompt": "x", "max_token": 3}"#, "Unrecognized request argument supplied: max_token"),
        (r#"{"prompt": "x", "stop": 3}"#, "a list of strings"),
        (r#"{"prompt": "x", "messages": []}"#, "messages is empty"),
        (r#"{"prompt": "x", "messages": [{"role": "user", "content": "x"}]}"#, "both"),
        (r#"{"id": 1}"#, "neither"),
        (r#"{"prompt": ""}"#, "`prompt` is empty"),
        (r#"{"prompt": "x", "temperature": -1}"#, "temperature = -1"),
        (r#"{"messages": [{"role": "user", "content": "x"}]}"#, "--template"),
        (r#"{"prompt": "x""#, "column"),
    ];
    let batch = ["generate", "m.gguf", "--batch", "-", "-n", "3", "--quiet"];
    for (line, message) in cases {
        let input = format!("{{\"prompt\": \"x\"}}\n\n{line}\n");
        let errors = place.fails(&batch, &input);
        assert!(errors.contains("standard input:3: ") && errors.contains(message), "{line}: {errors}");
    }
    let input: String = cases.iter().map(|(line, _)| format!("{line}\n{{\"prompt\": \"x\"}}\n")).collect();
    let (printed, _) = place.ok(&[&batch[..], &["--skip-errors"]].concat(), &input);
    let results: Vec<Value> = printed.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(results.len(), 2 * cases.len());
    for (i, pair) in results.chunks(2).enumerate() {
        assert_eq!(pair[0]["line"], 2 * i + 1);
        assert!(pair[0]["error"].as_str().unwrap().contains(cases[i].1), "{}", pair[0]);
        assert!(pair[1]["text"].is_string());
    }
    assert_eq!(results[10]["id"], 1);
    let (printed, _) =
        place.ok(&[&batch[..], &["--template", "chatml"]].concat(), &format!("{}\n", cases[8].0));
    assert!(printed.contains("finish_reason"), "{printed}");
}

#[test]
fn faults_of_a_single_prompt_are_named() {
    let place = Place::new();
    let cases: [(&[&str], &str); 7] = [
        (&["-p", ""], "empty"),
        (&["--prompt-file", "absent.txt"], "absent.txt"),
        (&["-p", "x", "--batch", "p.jsonl"], "cannot be used with"),
        (&["-p", "x", "--kv", "f8"], "f8"),
        (&["-p", "0123456789", "--context", "5"], "context of 5"),
        (&["-p", "x", "--promt", "y"], "--promt"),
        (&[], "--prompt"),
    ];
    for (args, message) in cases {
        let errors = place.fails(&[&["generate", "m.gguf"], args].concat(), "");
        assert!(errors.contains(message), "{args:?}: {errors}");
    }
    let from = |args: &[&str], input: &str| {
        place.ok(&[&["generate", "m.gguf", "-n", "5", "--quiet"], args].concat(), input).0
    };
    assert_eq!(from(&["--prompt-file", "-"], "fn main"), from(&["-p", "fn main"], ""));
}

#[test]
fn a_batch_takes_the_services_fields_or_refuses_them_by_name() {
    let place = Place::new();
    let batch = ["generate", "m.gguf", "--batch", "-", "-n", "6", "--quiet", "--template", "chatml"];
    let run = |line: &Value| {
        let (printed, _) = place.ok(&batch, &format!("{line}\n"));
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    // Greedy, and never an end: what comes depends on the prompt alone.
    let greedy = |mut line: Value| {
        line["temperature"] = json!(0);
        line["ignore_eos"] = json!(true);
        line
    };
    let text = run(&greedy(json!({"prompt": "ab"})));
    assert_eq!(text["completion_tokens"], 6);
    let forms = [json!(["ab"]), json!([[97, 98]]), json!([97, 98])];
    // The vocabulary is that of the bytes; a token more stands before the text if sequences begin with one.
    if text["prompt_tokens"] == 2 {
        for prompt in &forms {
            assert_eq!(run(&greedy(json!({"prompt": prompt})))["text"], text["text"], "{prompt}");
        }
    } else {
        assert_eq!(run(&greedy(json!({"prompt": forms[0]})))["text"], text["text"]);
    }
    let message = |content: Value| greedy(json!({"messages": [{"role": "user", "content": content}]}));
    let part = |text: &str| json!({"type": "text", "text": text});
    let parts = run(&message(json!([part("a"), part("b")])));
    assert_eq!(parts, run(&message(json!("ab"))));
    let neutral = json!({
        "n": 1, "stream": false, "user": "me", "tools": [], "logprobs": false, "echo": false, "max_tokens": null, "top_k": -1,
        "frequency_penalty": 0, "logit_bias": {}, "response_format": {"type": "text"}, "grammar": "", "best_of": 1,
    });
    let mut line = greedy(json!({"prompt": "ab"}));
    line.as_object_mut().unwrap().extend(neutral.as_object().unwrap().clone());
    assert_eq!(run(&line)["text"], text["text"]);
    let only = greedy(json!({"prompt": "ab", "logit_bias": {"99": 100}, "min_tokens": 6}));
    assert_eq!(run(&only)["completion_tokens"], 6);
    for (field, value) in [
        ("n", json!(2)),
        ("stream", json!(true)),
        ("model", json!("m")),
        ("lora", json!([{"id": 0, "scale": 1}])),
        ("logprobs", json!(2)),
        ("echo", json!(true)),
        ("tools", json!([{"type": "function"}])),
        ("guided_regex", json!("a(")),
        ("frequency_penalty", json!(3)),
        ("logit_bias", json!({"257": 1})),
        ("stop_token_ids", json!([257])),
        ("prompt", json!([257])),
        ("prompt", json!(["a", "b"])),
        ("max_tokens", json!(0)),
        ("Temperature", json!(0)),
    ] {
        let mut line = json!({"prompt": "ab"});
        line[field] = value;
        let errors = place.fails(&batch, &format!("{line}\n"));
        let named = if line["prompt"] == json!([257]) { "257" } else { field };
        assert!(errors.contains("standard input:1: ") && errors.contains(named), "{line}: {errors}");
    }
    let image = json!({"type": "image_url", "image_url": {"url": "data:"}});
    let errors = place.fails(&batch, &format!("{}\n", message(json!([image]))));
    assert!(errors.contains("image_url"), "{errors}");
    let errors = place.fails(&batch, "{\"prompt\": \"a\", \"prompt\": \"b\"}\n");
    assert!(errors.contains("prompt is given twice"), "{errors}");
}
