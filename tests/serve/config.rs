//! `--config`, and the files that come with Tritforge.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Served, model};

const PRESETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/serve");

/// What the process says that does not start.
fn refused(config: &Path, args: &[&str]) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(["serve", "--config", config.to_str().unwrap()])
        .args(args)
        .output()
        .unwrap();
    let message = String::from_utf8(ran.stderr).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{message}");
    assert!(message.contains("--config") && message.contains("serve.toml"), "{message}");
    message
}

#[test]
fn a_file_has_every_option_and_the_command_line_wins() {
    let (dir, path) = model();
    let config = dir.path().join("serve.toml");
    let text = format!(
        "model = {:?}\nport = 1\nrate_limit = 1\nmax-body = 90\nthreads = 1\n",
        path.to_str().unwrap()
    );
    fs::write(&config, text).unwrap();
    let served =
        Served::run(dir, &["--config", config.to_str().unwrap(), "--port", "0", "--rate-limit", "3"]);
    let body = r#"{"prompt": "a", "max_tokens": 1}"#;
    for status in [200, 200] {
        assert_eq!(served.post("/v1/completions", "", body).0, status);
    }
    // The limit on bodies is the file's, that of requests is the command line's.
    assert_eq!(
        served.post("/v1/completions", "", &body.replace("\"a\"", &format!("{:?}", "a".repeat(80)))).0,
        413
    );
    assert_eq!(served.post("/v1/completions", "", body).0, 429);
}

#[test]
fn what_is_wrong_with_a_file_is_named() {
    let (dir, model) = model();
    let config = dir.path().join("serve.toml");
    for (text, expected) in [
        ("concurency = 2", "did you mean \"concurrency\""),
        ("concurrency = 0", "--concurrency"),
        ("concurrency = \"many\"", "--concurrency"),
        ("[limits]\nqueue = 1", "limits"),
        ("concurrency = ", "TOML"),
        ("config = \"serve.toml\"", "unknown key \"config\""),
    ] {
        fs::write(&config, text).unwrap();
        let message = refused(&config, &[model.to_str().unwrap()]);
        assert!(message.contains(expected), "{message}");
    }
    let message = refused(&dir.path().join("absent/serve.toml"), &[]);
    assert!(message.contains("No such file"), "{message}");
    // A file without a model, and none on the command line.
    fs::write(&config, "port = 0").unwrap();
    let ran = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(["serve", "--config", config.to_str().unwrap()])
        .output();
    let message = String::from_utf8(ran.unwrap().stderr).unwrap();
    assert!(message.contains("no model"), "{message}");
}

#[test]
fn the_presets_serve() {
    let mut names: Vec<String> = fs::read_dir(PRESETS)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["cloud.toml", "edge.toml", "mobile.toml", "server.toml"]);
    for name in names {
        let path = format!("{PRESETS}/{name}");
        let served = Served::start(&["--config", &path]);
        assert!(served.complete().contains("200 OK"), "{name}");
        assert!(served.ready().contains("ready"), "{name}");
    }
}
