//! Extreme values of every option of every subcommand: each is refused at the command line, by the option's
//! name, or works.

use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_checkpoint, synth_gguf};
use tritforge_ternary::Packing;
use tritforge_text::{ChatTemplate, SpecialTokens, Tokenizer};

const VALUES: [&str; 12] = [
    "0",
    "-1",
    "1e308",
    "nan",
    "inf",
    "-inf",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "",
    "abc",
    "1.5",
];
/// Time after which a process hangs.
const HANG: Duration = Duration::from_secs(10);

/// A process that could be started and ended by itself.
struct Ended {
    code: Option<i32>,
    errors: String,
    took: Duration,
}

fn run(directory: &Path, args: &[String]) -> Ended {
    let begin = Instant::now();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tritforge"))
        .args(args)
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if begin.elapsed() > HANG {
            let _ = child.kill();
            child.wait().unwrap();
            return Ended { code: None, errors: "it does not end".to_string(), took: begin.elapsed() };
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    Ended { code: status.code(), errors: reader.join().unwrap(), took: begin.elapsed() }
}

fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_tritforge")).args(args).arg("--help").output().unwrap();
    assert!(output.status.success(), "{args:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let list =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = list.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    names
        .filter_map(|line| line.split_whitespace().next())
        .filter(|n| *n != "help")
        .map(str::to_string)
        .collect()
}

/// The options with a value that a help text lists: `--name`, and what its value is called.
fn options(help: &str) -> Vec<(String, String)> {
    let option = |line: &str| {
        let start = line.find("--")?;
        if !line.starts_with("  ")
            || !line[..start].trim().trim_end_matches(',').trim_start_matches('-').len().le(&1)
        {
            return None;
        }
        let (name, rest) = line[start..].split_once(' ')?;
        let value = rest.strip_prefix('<')?.split('>').next()?;
        Some((name.to_string(), value.to_string()))
    };
    help.lines().filter_map(option).collect()
}

/// What values of options that are no numbers are called: names and texts, of which every one may be meant.
fn is_text(value: &str) -> bool {
    ["FILE", "DIR", "PATH", "TEXT", "KEY", "TASK", "HOST", "NAME", "PROMPT", "ORIGIN"]
        .iter()
        .any(|word| value.contains(word))
}

/// A subcommand's arguments with which it works and ends soon, and whether it does: others end with an error
/// about a file that is not there, behind all checks of the command line.
fn arguments(subcommand: &str) -> (Vec<&'static str>, bool) {
    match subcommand {
        "quickstart" => (vec!["--data", "missing.txt"], false),
        "train" => (vec!["missing.toml"], false),
        "recipes list" | "recipes reference" | "recipes schema" => (vec![], true),
        "recipes show" | "recipes copy" => (vec!["missing"], false),
        "data preview" | "data lint" => (vec!["missing.toml"], false),
        "report" => (vec!["missing"], false),
        "eval" => (vec!["model.gguf", "--text", "text.txt"], true),
        "diff" => (vec!["model.gguf", "model.gguf"], true),
        "verify" => (vec!["checkpoint", "checkpoint", "--tokens", "4", "--greedy-tokens", "1"], true),
        "import" => (vec!["missing", "-o", "imported"], false),
        "merge" => (vec!["missing", "-o", "merged"], false),
        "export" => (vec!["checkpoint", "-o", "exported.gguf"], false),
        "chat" => (vec!["model.gguf"], true),
        "generate" => (vec!["model.gguf", "--prompt", "a", "-n", "4"], true),
        "inspect" => (vec!["model.gguf"], true),
        "serve" => (vec!["missing.gguf"], false),
        "bench" => (vec!["model.gguf", "-p", "4", "-n", "2", "-r", "1"], true),
        "synth" => (vec!["shape.toml", "-o", "made.gguf", "--format", "i2_s"], true),
        "tokenize" => (vec!["model.gguf"], true),
        "ablate" | "sweep" => (vec!["missing.toml"], false),
        "selfcheck" => (vec![], true),
        other => (vec!["missing"], other.is_empty()),
    }
}

const SHAPE: &str = "vocab_size = 257\nhidden_size = 128\nintermediate_size = 128\nnum_hidden_layers = 1\n\
    num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 32\nmax_position_embeddings = 32\nhidden_act = \"relu2\"\n";

fn project() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let config = ModelConfig::from_toml(SHAPE).unwrap();
    let tokenizer = Tokenizer::train_bpe([""], 257, &SpecialTokens::default()).unwrap();
    let tokenizer = tokenizer.with_chat_template(ChatTemplate::named("plain").as_ref());
    let options = ExportOptions { packing: Packing::I2S, ..ExportOptions::default() };
    synth_gguf(&config, &path("model.gguf"), &options, 1, Some(&tokenizer)).unwrap();
    synth_checkpoint(&config, &path("checkpoint"), 1, Some(&tokenizer)).unwrap();
    fs::write(path("text.txt"), "Some words to predict, not many of them.\n").unwrap();
    fs::write(path("shape.toml"), SHAPE).unwrap();
    directory
}

#[test]
fn extreme_values_of_every_option_are_refused_by_its_name_or_work() {
    let directory = project();
    let mut paths: Vec<Vec<String>> = Vec::new();
    for name in subcommands(&help(&[])) {
        match subcommands(&help(&[&name])) {
            nested if nested.is_empty() => paths.push(vec![name]),
            nested => paths.extend(nested.into_iter().map(|inner| vec![name.clone(), inner])),
        }
    }
    assert!(paths.len() >= 20, "{paths:?}");
    let (mut tried, mut faults) = (0, Vec::new());
    for path in &paths {
        let words: Vec<&str> = path.iter().map(String::as_str).collect();
        let (base, works) = arguments(&path.join(" "));
        let base = base.into_iter();
        let options = options(&help(&words));
        assert!(options.iter().any(|(name, _)| name == "--threads"), "{path:?}: {options:?}");
        for (option, _) in options.iter().filter(|(_, value)| !is_text(value)) {
            // Given once: what the subcommand needs to be quick is given up for the value that is tried.
            let short = match option.as_str() {
                "--prompt" => "-p",
                "--max-tokens" | "--generate" => "-n",
                "--repetitions" => "-r",
                other => other,
            };
            let mut kept: Vec<&str> = base.clone().collect();
            if let Some(at) = kept.iter().position(|arg| *arg == short || arg == option) {
                kept.drain(at..at + 2);
            }
            for value in VALUES {
                let given = format!("{option}={value}");
                let args: Vec<String> =
                    words.iter().chain(&kept).map(ToString::to_string).chain([given.clone()]).collect();
                let ended = run(directory.path(), &args);
                tried += 1;
                let name = option.trim_start_matches('-');
                let named = ended.errors.contains(name) || ended.errors.contains(&name.replace('-', "_"));
                let fine = match ended.code {
                    Some(0) => true,
                    Some(2) => named,
                    // A limit that depends on the model; or on a file that is not there.
                    Some(1) => named || !works,
                    _ => false,
                };
                if !fine || ended.errors.contains("panicked") {
                    let first = ended.errors.lines().next().unwrap_or_default();
                    faults.push(format!("{args:?}: {:?} in {:?}: {first}", ended.code, ended.took));
                }
            }
        }
    }
    assert!(tried > 500, "{tried} tried");
    assert!(faults.is_empty(), "{} of {tried}:\n{}", faults.len(), faults.join("\n"));
}
