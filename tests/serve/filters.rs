//! `--filters`: a file that is read at the start, when it changes, and that may be wrong.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{PATIENCE, Served, model};

#[test]
fn a_changed_file_is_read_and_a_wrong_one_is_not() {
    let (dir, path) = model();
    let file = dir.path().join("filters.toml");
    let filter = |pattern: &str| {
        format!(
            "[[filters]]\nname = \"test\"\npattern = '{pattern}'\nwhere = \"prompt\"\naction = \"block\"\n"
        )
    };
    fs::write(&file, filter("first")).unwrap();
    let log = dir.path().join("access.jsonl");
    let args = ["--port", "0", "--filters", file.to_str().unwrap(), "--access-log", log.to_str().unwrap()];
    let served =
        Served::run(tempfile::tempdir().unwrap(), &[&[path.to_str().unwrap()], args.as_slice()].concat());
    let ask = |prompt: &str| {
        let body = format!("{{\"prompt\": \"{prompt}\", \"max_tokens\": 1}}");
        let (status, _, body) = served.post("/v1/completions", "", &body);
        let answer: Value = serde_json::from_str(&body).unwrap();
        (status, answer["error"]["code"].clone())
    };
    assert_eq!(ask("the first"), (400, "CONTENT_FILTERED".into()));
    assert_eq!(ask("a second").0, 200);
    fs::write(&file, "this is no TOML").unwrap();
    served.signal("HUP");
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(ask("the first").0, 400);
    fs::write(&file, filter("second") + "# another length").unwrap();
    let begin = Instant::now();
    while ask("a second").0 != 400 {
        assert!(begin.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(ask("the first").0, 200);
    // Every answer: whatever the model says, it is withheld.
    fs::write(
        &file,
        "[[filters]]\nname = \"all\"\npattern = '(?s).'\nwhere = \"answer\"\naction = \"block\"\n",
    )
    .unwrap();
    // Greedy: a random continuation may have no whole character before its last token.
    let body = r#"{"prompt": "fine", "max_tokens": 20, "ignore_eos": true, "temperature": 0}"#;
    let ask = || -> Value {
        let (_, _, answer) = served.post("/v1/completions", "", body);
        serde_json::from_str(&answer).unwrap()
    };
    let choice = loop {
        let answer = ask();
        if answer["choices"][0]["finish_reason"] == "content_filter" {
            // The file may have been read while that answer ran. The next ones end before the limit, once the thread that
            // filters is not too late to say so.
            let answer = ask();
            assert_eq!(answer["choices"][0]["finish_reason"], "content_filter", "{answer}");
            if answer["usage"]["completion_tokens"].as_u64().unwrap() < 20 {
                break answer["choices"][0].clone();
            }
        }
        assert!(begin.elapsed() < PATIENCE, "{answer}");
    };
    assert_eq!(
        (&choice["text"], &choice["content_filter"]["code"]),
        (&"".into(), &"RESPONSE_FILTERED".into())
    );
    loop {
        let text = fs::read_to_string(&log).unwrap();
        if text.contains("\"code\":\"RESPONSE_FILTERED\"") {
            assert!(text.contains("\"code\":\"CONTENT_FILTERED\"") && !text.contains("the first"), "{text}");
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn what_is_wrong_with_a_file_is_named_at_the_start() {
    let (dir, path) = model();
    let file = dir.path().join("filters.toml");
    for (text, expected) in [
        ("", "no filters"),
        ("[[filters]]\nname = \"x\"\npattern = '('\naction = \"block\"", "pattern \"(\""),
    ] {
        fs::write(&file, text).unwrap();
        let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", path.to_str().unwrap(), "--filters", file.to_str().unwrap()])
            .output()
            .unwrap();
        let message = String::from_utf8(ran.stderr).unwrap();
        assert!(
            !ran.status.success() && message.contains("filters.toml") && message.contains(expected),
            "{message}"
        );
    }
}
