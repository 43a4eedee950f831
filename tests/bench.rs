//! `tritforge bench` through the binary, on a small random model: the rows asked for, in every format; real
//! prompts; faults.

use std::fs;

use serde_json::Value;

mod project;
use project::Project;

const CONFIG: &str = include_str!("../configs/tiny.toml");

/// A directory with a random model, `m.gguf`.
fn with_model() -> Project {
    let project = Project::new();
    fs::write(project.path("config.toml"), CONFIG).unwrap();
    project.ok(&["synth", "config.toml", "-o", "m.gguf"]);
    project
}

fn words(line: &str) -> Vec<&str> {
    ["bench"].into_iter().chain(line.split_whitespace()).collect()
}

#[test]
fn every_format_holds_the_rows_asked_for() {
    let project = with_model();
    let asked = "m.gguf -p 8,16 -n 4 --depth 0,8 --batch 1,3 --thread-counts 1 -r 2";
    let expected =
        ["pp8", "pp16", "tg4", "tg4x3", "pp8@d8", "pp16@d8", "tg4@d8", "tg4x3@d8"].map(str::to_string);

    let json = project.ok(&words(&format!("{asked} -o json")));
    let json: Value = serde_json::from_str(&json).unwrap();
    let model = &json["models"][0];
    let rows = model["rows"].as_array().unwrap();
    let mut names: Vec<_> = rows.iter().map(|row| row["test"].as_str().unwrap().to_string()).collect();
    let mut sorted = expected.to_vec();
    names.sort();
    sorted.sort();
    assert_eq!(names, sorted);
    for row in rows {
        let samples = row["tokens_per_second"].as_array().unwrap();
        assert_eq!(samples.len(), 2);
        assert!(samples.iter().all(|sample| sample.as_f64().unwrap() > 0.0), "{row}");
    }
    assert_eq!(model["file_bytes"], fs::metadata(project.path("m.gguf")).unwrap().len());
    // Multiplications of a token: the ternary matrices of two blocks.
    assert_eq!(model["macs_a_token"], 4 * (256 * 256 * 2 + 256 * 128 * 2 + 256 * 768 * 3));

    let csv = project.ok(&words(&format!("{asked} -o csv")));
    let mut lines = csv.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let header = lines.next().unwrap();
    let column = |name: &str| header.iter().position(|cell| *cell == name).unwrap();
    let mut names: Vec<_> = lines
        .map(|cells| {
            assert!(cells[column("median")].parse::<f64>().unwrap() > 0.0);
            cells[column("test")].to_string()
        })
        .collect();
    names.sort();
    assert_eq!(names, sorted);

    let table = project.ok(&words(asked));
    for name in &expected {
        assert_eq!(table.matches(&format!("| {name} |")).count(), 1, "{name} in\n{table}");
    }
}

#[test]
fn real_prompts_run_at_every_setting() {
    let project = with_model();
    fs::write(project.path("p.txt"), "one two\n\none two three\nfour\none two six\n").unwrap();
    let json = project.ok(&words("m.gguf --patterns p.txt -n 5 -o json"));
    let json: Value = serde_json::from_str(&json).unwrap();
    let settings = json.as_array().unwrap();
    let names: Vec<_> = settings.iter().map(|setting| setting["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["baseline", "optimized", "aggressive"]);
    for setting in settings {
        assert_eq!(setting["requests"], 4);
        for key in ["first_token_p50", "first_token_p95", "tokens_per_second", "requests_a_minute"] {
            assert!(setting[key].as_f64().unwrap() > 0.0, "{key} of {setting}");
        }
    }
}

#[test]
fn other_threads_for_decoding_give_the_same_text() {
    let project = with_model();
    let asked =
        ["generate", "m.gguf", "--prompt", "one two", "-n", "16", "--ignore-eos", "--temperature", "0"];
    let text = project.ok(&asked);
    for options in [["--decode-threads", "1"], ["--decode-threads", "64"], ["--threads", "1"]] {
        assert_eq!(project.ok(&[&asked[..], &options[..]].concat()), text, "{options:?}");
    }
    let zero = project.fails(&[&asked[..], &["--decode-threads", "0"]].concat());
    assert!(zero.contains("'0' for '--decode-threads <N>'"), "{zero}");
    let bench = project.fails(&["bench", "m.gguf", "--decode-threads", "1"]);
    assert!(bench.contains("--thread-counts"), "{bench}");
}

#[test]
fn faults_say_what_is_wrong() {
    let project = with_model();
    fs::write(project.path("empty.txt"), "\n").unwrap();
    fs::write(project.path("long.txt"), "x".repeat(600)).unwrap();
    for (line, message) in [
        ("m.gguf -p 0 -n 0", "nothing to measure"),
        ("m.gguf -o xml", "possible values: md, csv, json"),
        ("m.gguf -p 0 -n 32 --depth 500", "532 tokens of context, the model has 512"),
        ("m.gguf --thread-counts 0", "'0' for '--thread-counts"),
        ("none.gguf -p 8 -n 8", "none.gguf"),
        ("empty.txt -p 8 -n 8", "empty.txt"),
        ("m.gguf --patterns empty.txt", "empty.txt"),
        ("m.gguf --patterns none.txt", "none.txt: cannot read"),
        ("m.gguf --patterns long.txt -n 8", "long.txt"),
    ] {
        let error = project.fails(&words(line));
        assert!(error.contains(message), "{line}: {error}");
    }
}
