//! `tritforge deploy`: plans on the command line, and the service that runs with what they write.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};

fn model(dir: &Path) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/tiny.toml");
    let config = ModelConfig::from_toml(&fs::read_to_string(path).unwrap()).unwrap();
    synth_gguf(&config, &dir.join("model.gguf"), &ExportOptions::default(), 1, None).unwrap();
}

fn tritforge(dir: &Path, args: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tritforge")).args(args.split(' ')).current_dir(dir).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_service_starts_with_every_plan() {
    let dir = TempDir::new().unwrap();
    model(dir.path());
    for (target, kv) in [("mobile", "q8_0"), ("edge", "f16"), ("server", "f32"), ("cloud", "f16")] {
        let plan = format!("deploy plan model.gguf --target {target} --kv {kv} -o serve.toml");
        let ran = tritforge(dir.path(), &plan);
        let (shown, errors) = (text(&ran.stdout), text(&ran.stderr));
        assert!(ran.status.success(), "{errors}");
        for part in [
            &format!("keys and values, {kv}")[..],
            "under full load",
            "upper bound",
            "kv-memory",
            "tritforge serve --config",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        let mut served = Command::new(env!("CARGO_BIN_EXE_tritforge"))
            .args(["serve", "--config", "serve.toml", "--port", "0"])
            .current_dir(dir.path())
            // The log of requests of a replica goes to standard output, all else to standard error.
            .args(if target == "cloud" { &["--access-log", "access.jsonl"][..] } else { &[] })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(served.stdout.take().unwrap()).read_line(&mut line).unwrap();
        served.kill().unwrap();
        let errors = text(&served.wait_with_output().unwrap().stderr);
        assert!(line.contains("model.gguf at http://127.0.0.1:"), "{target}: {line}{errors}");
    }
}

#[test]
fn a_plan_is_json_and_a_target_may_be_a_file() {
    let dir = TempDir::new().unwrap();
    model(dir.path());
    let shown = tritforge(dir.path(), "deploy targets edge");
    assert!(shown.status.success());
    fs::write(dir.path().join("board.toml"), &shown.stdout).unwrap();
    let plan = |target: &str| -> serde_json::Value {
        let ran =
            tritforge(dir.path(), &format!("deploy plan model.gguf --target {target} --context 256 --json"));
        assert!(ran.status.success(), "{}", text(&ran.stderr));
        serde_json::from_slice(&ran.stdout).unwrap()
    };
    let (file, built_in) = (plan("board.toml"), plan("edge"));
    assert_eq!(file["target"]["name"], "board");
    assert_eq!(file["target"]["isa"], "neon-dot");
    assert_eq!(file["memory"], built_in["memory"]);
    assert_eq!(file["context"], 256);
    let memory = file["memory"].as_object().unwrap();
    let serving: u64 =
        memory.iter().filter(|(key, _)| *key != "loading").map(|(_, v)| v.as_u64().unwrap()).sum();
    assert_eq!(file["peak"].as_u64(), Some(serving.max(memory["loading"].as_u64().unwrap())));
    let listed = text(&tritforge(dir.path(), "deploy targets").stdout);
    for name in ["mobile", "edge", "server", "cloud"] {
        assert!(listed.contains(name), "{listed}");
    }
}

#[test]
fn what_cannot_be_planned_is_refused_and_nothing_is_written() {
    let dir = TempDir::new().unwrap();
    model(dir.path());
    fs::write(dir.path().join("bad.toml"), "cores = 1\n").unwrap();
    for (args, expected) in [
        ("model.gguf --target nowhere", "expected mobile, edge, server, cloud, here or a TOML file"),
        ("model.gguf --target bad.toml", "missing field"),
        ("model.gguf --target edge --memory 1000000", "does not fit target edge"),
        ("model.gguf --target edge --context 513", "--context 513: expected 1 to 512"),
        ("nothing.gguf --target edge", "nothing.gguf"),
        ("bad.toml --target edge", "bad.toml"),
    ] {
        let ran = tritforge(dir.path(), &format!("deploy plan {args} --out serve.toml"));
        let message = text(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{args}: {message}");
        assert!(message.contains(expected), "{args}: {message}");
        assert!(!dir.path().join("serve.toml").exists(), "{args}");
    }
}
