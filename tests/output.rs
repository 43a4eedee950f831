//! Standard output and standard error that cannot be written: a reader that has gone, a full device.
#![cfg(target_os = "linux")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::process::{Output, Stdio};

mod project;

use project::Project;

/// Commands that print, and a directory with what they need.
fn commands() -> (Project, Vec<Vec<&'static str>>) {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet", "--set", "train.steps=4"]);
    project.ok(&["export", "runs/tiny", "-o", "m.gguf"]);
    fs::write(project.path("batch.jsonl"), "{\"prompt\": \"You may \", \"max_tokens\": 4}\n".repeat(3))
        .unwrap();
    fs::write(project.path("shape.toml"), SHAPE).unwrap();
    let commands = [
        "--help",
        "--version",
        "train --help",
        "train recipe.toml --overwrite --set train.steps=4",
        "train recipe.toml --dry-run",
        "data preview recipe.toml",
        "data lint recipe.toml",
        "data lint recipe.toml --json",
        "inspect m.gguf --tensors",
        "inspect m.gguf --json",
        "tokenize m.gguf --text text.txt",
        "tokenize m.gguf --text text.txt --json",
        "generate m.gguf --prompt You --quiet -n 8",
        "generate m.gguf --batch batch.jsonl --quiet",
        "chat m.gguf --template chatml -n 8",
        "diff runs/tiny m.gguf --tolerance 1",
        "verify runs/tiny m.gguf --text text.txt",
        "eval m.gguf --text text.txt --tokens 100",
        "export runs/tiny -o again.gguf",
        "recipes list",
        "synth shape.toml -o s.gguf",
    ];
    (project, commands.iter().map(|line| line.split(' ').collect()).collect())
}

const SHAPE: &str = "vocab_size = 257\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
                     num_attention_heads = 4\nnum_key_value_heads = 2\nmax_position_embeddings = 64";

/// Runs a command with the standard output that is given; `chat` hears two messages.
fn run(project: &Project, args: &[&str], stdout: impl Into<Stdio>, stderr: impl Into<Stdio>) -> Output {
    let mut command = project.command(args);
    let mut child = command.stdin(Stdio::piped()).stdout(stdout).stderr(stderr).spawn().unwrap();
    // Most commands read nothing.
    let _ = child.stdin.take().unwrap().write_all(b"Hello\nAnd now?\n");
    child.wait_with_output().unwrap()
}

/// The end of a pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").unwrap()
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let (project, commands) = commands();
    for args in &commands {
        let output = run(&project, args, closed(), Stdio::piped());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
        assert!(!stderr.contains("panicked") && !stderr.contains("error"), "{args:?}: {stderr}");
    }
    // What they write elsewhere is whole.
    project.ok(&["diff", "m.gguf", "again.gguf"]);
    project.ok(&["inspect", "s.gguf"]);
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let (project, commands) = commands();
    for args in &commands {
        let output = run(&project, args, full(), Stdio::piped());
        let stderr = String::from_utf8_lossy(&output.stderr);
        let trouble = if args[0] == "diff" { 2 } else { 1 };
        assert_eq!(output.status.code(), Some(trouble), "{args:?}: {stderr}");
        let told = stderr.matches("standard output: cannot write: No space left on device").count();
        assert_eq!(told, 1, "{args:?}: {stderr}");
    }
    project.ok(&["diff", "m.gguf", "again.gguf"]);
}

#[test]
fn nothing_depends_on_standard_error() {
    let (project, commands) = commands();
    for args in commands.iter().filter(|args| args[0] != "train") {
        let heard = run(&project, args, Stdio::piped(), Stdio::piped());
        for stderr in [closed(), full().into()] {
            let output = run(&project, args, Stdio::piped(), stderr);
            assert_eq!(output.status.code(), heard.status.code(), "{args:?}");
            let timed = ["eval", "verify"].contains(&args[0]) || args.contains(&"--dry-run");
            assert!(timed || output.stdout == heard.stdout, "{args:?}");
        }
    }
    // An error keeps its exit code where its message cannot be read.
    assert_eq!(run(&project, &["inspect", "absent.gguf"], Stdio::piped(), full()).status.code(), Some(1));
    assert_eq!(run(&project, &["inspect"], Stdio::piped(), full()).status.code(), Some(2));
}

#[test]
fn a_broken_pipe_elsewhere_is_an_error() {
    let (project, _) = commands();
    let pipe = project.path("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let command = |fifo: &std::path::Path| {
        // It opens the pipe, and ends without reading it.
        let fifo = fifo.to_owned();
        std::thread::spawn(move || drop(File::open(fifo).unwrap()))
    };
    let reader = command(&pipe);
    fs::write(project.path("long.jsonl"), "{\"prompt\": \"You may \", \"max_tokens\": 8}\n".repeat(40))
        .unwrap();
    let message = project.fails(&["generate", "m.gguf", "--batch", "long.jsonl", "-o", "pipe", "--quiet"]);
    reader.join().unwrap();
    assert!(message.contains("pipe: cannot write the results: Broken pipe"), "{message}");
}
