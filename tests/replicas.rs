//! What `deploy/` says of the program: metrics, endpoints, options, the files of options, the build.
#![cfg(unix)]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tritforge_config::ModelConfig;
use tritforge_export::{ExportOptions, synth_gguf};

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

fn read(path: &str) -> String {
    let path = Path::new(ROOT).join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// All files of `deploy/`, by their path in it, with their text.
fn files() -> Vec<(String, String)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true if !path.ends_with("__pycache__") => walk(&path, found),
                true => {}
                false => found.push(path),
            }
        }
    }
    let top = Path::new(ROOT).join("deploy");
    let mut found = Vec::new();
    walk(&top, &mut found);
    let text = |path: PathBuf| {
        let name = path.strip_prefix(&top).unwrap().to_str().unwrap().to_string();
        (name, fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(text).collect()
}

/// A service of a small model, with the options of a file of `deploy/` or without.
struct Served {
    child: Child,
    address: String,
    _dir: TempDir,
}

impl Served {
    fn start(config: Option<&str>) -> Self {
        let dir = TempDir::new().unwrap();
        let shape = ModelConfig::from_toml(&read("configs/tiny.toml")).unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
        synth_gguf(&shape, path("model.gguf").as_ref(), &ExportOptions::default(), 1, None).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tritforge"));
        // What a file says of the machine that it is for does not hold here; all else does.
        command.args(["serve", &path("model.gguf"), "--host", "127.0.0.1", "--port", "0"]);
        command.args(["--access-log", &path("access.jsonl"), "--history", &path("history.json")]);
        if let Some(config) = config {
            command.args(["--config", Path::new(ROOT).join(config).to_str().unwrap()]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let Some(rest) = line.split("http://").nth(1) else {
            let mut errors = String::new();
            child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
            panic!("{config:?}: {line}{errors}");
        };
        let address = rest.split('/').next().unwrap().to_string();
        Self { child, address, _dir: dir }
    }

    /// The status and the body of the answer to a GET.
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_string())
    }

    fn ready(self) -> Self {
        let begin = Instant::now();
        while self.get("/ready").0 != 200 {
            assert!(begin.elapsed() < Duration::from_secs(60), "not ready");
            std::thread::sleep(Duration::from_millis(5));
        }
        self
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of metrics in a text.
fn metrics(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("tritforge_") || word.starts_with("vllm:"))
}

/// Paths of the service that a file of `deploy/` asks for.
fn paths<'a>(name: &str, text: &'a str) -> Vec<&'a str> {
    let after = |marks: &[&str], ends: &[char]| {
        let found = marks.iter().flat_map(|mark| text.split(mark).skip(1));
        found
            .filter_map(|rest| rest.split(ends).next())
            .filter(|path| path.starts_with('/') && !path.starts_with("/spec/"))
            .collect()
    };
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "yaml" => after(&[" path: ", "prometheus.io/path: "], &['\n']),
        "cfg" => after(&[" uri "], &[' ']),
        "py" => after(&[".get(\""], &['"']),
        "sh" => after(&["curl -sf localhost:8080", "curl -sS --fail-with-body localhost:8080"], &[' ', ';']),
        _ if name == "Dockerfile" => after(&["'GET "], &[' ']),
        _ => Vec::new(),
    }
}

/// The number behind a key, such as `drain-delay = 10` or `terminationGracePeriodSeconds: 75`.
fn number(text: &str, key: &str) -> u64 {
    let line = text.lines().find(|line| line.trim_start().starts_with(key));
    let line = line.unwrap_or_else(|| panic!("no {key}"));
    line.rsplit(['=', ':']).next().unwrap().trim().parse().unwrap_or_else(|e| panic!("{line}: {e}"))
}

#[test]
fn every_metric_and_every_endpoint_exists() {
    let served = Served::start(None).ready();
    let shown = served.get("/metrics").1;
    let known: BTreeSet<&str> =
        shown.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let mut named = BTreeSet::new();
    let mut asked = BTreeSet::new();
    let files = files();
    for (name, text) in &files {
        for metric in metrics(text) {
            assert!(known.contains(metric), "deploy/{name}: {metric} is not in /metrics");
            named.insert(metric);
        }
        for path in paths(name, text) {
            // Of a completion, which is a POST.
            let allowed = if path == "/v1/completions" { 405 } else { 200 };
            assert_eq!(served.get(path).0, allowed, "deploy/{name}: GET {path}");
            asked.insert((name.as_str(), path));
        }
    }
    // The test itself finds what it should look for.
    for metric in [
        "tritforge_requests_waiting",
        "tritforge_prefix_cache_hit_tokens_total",
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
    ] {
        assert!(named.contains(metric), "{metric}: {named:?}");
    }
    for place in [
        ("Dockerfile", "/health"),
        ("haproxy/haproxy.cfg", "/ready"),
        ("haproxy/test.py", "/metrics"),
        ("check_image.sh", "/v1/completions"),
        ("kubernetes/base/deployment.yaml", "/ready"),
        ("kubernetes/base/deployment.yaml", "/health"),
        ("kubernetes/base/deployment.yaml", "/metrics"),
        ("kubernetes/kserve/inferenceservice.yaml", "/ready"),
    ] {
        assert!(asked.contains(&place), "{place:?}: {asked:?}");
    }
    assert!(read("deploy/kubernetes/inference-gateway/httproute.yaml").contains("value: /v1\n"));
    assert_eq!(served.get("/v1/models").0, 200);
}

#[test]
fn every_file_of_options_serves() {
    let found = files().into_iter().map(|(name, _)| name).filter(|name| name.ends_with("serve.toml"));
    let mut found: Vec<String> = found.map(|name| format!("deploy/{name}")).collect();
    found.sort();
    assert_eq!(found, ["deploy/kubernetes/base/serve.toml", "deploy/systemd/serve.toml"]);
    for file in found {
        let served = Served::start(Some(&file)).ready();
        assert_eq!(served.get("/health").0, 200, "{file}");
    }
}

#[test]
fn every_option_exists() {
    let ran = Command::new(env!("CARGO_BIN_EXE_tritforge")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(ran.stdout).unwrap();
    let known: BTreeSet<&str> =
        help.split([' ', '\n', ',', '=']).filter(|word| word.starts_with("--")).collect();
    let mut given = Vec::new();
    for (name, text) in files() {
        let lines: Vec<&str> = match name.as_str() {
            "Dockerfile" => text.lines().filter(|line| line.starts_with("CMD [\"serve\"")).collect(),
            "systemd/tritforge.service" => {
                text.lines().filter(|line| line.starts_with("ExecStart=")).collect()
            }
            "haproxy/test.py" => {
                text.split("self.command = [").skip(1).map(|rest| rest.split(']').next().unwrap()).collect()
            }
            _ if name.ends_with(".yaml") => text.lines().filter(|line| line.contains("- --")).collect(),
            _ => Vec::new(),
        };
        let words = lines.iter().flat_map(|line| line.split([' ', '"', ',', '=', '\n']));
        given
            .extend(words.filter(|word| word.starts_with("--")).map(|word| (name.clone(), word.to_string())));
    }
    for (file, option) in &given {
        assert!(known.contains(option.as_str()), "deploy/{file}: {option} is no option of serve");
    }
    for file in
        ["Dockerfile", "systemd/tritforge.service", "haproxy/test.py", "kubernetes/base/deployment.yaml"]
    {
        assert!(given.iter().any(|(name, _)| name == file), "{file} gives no option: {given:?}");
    }
}

#[test]
fn a_replica_has_the_time_to_drain() {
    for (options, unit, key) in [
        (
            "deploy/kubernetes/base/serve.toml",
            "deploy/kubernetes/base/deployment.yaml",
            "terminationGracePeriodSeconds",
        ),
        (
            "deploy/kubernetes/base/serve.toml",
            "deploy/kubernetes/kserve/inferenceservice.yaml",
            "terminationGracePeriodSeconds",
        ),
        ("deploy/systemd/serve.toml", "deploy/systemd/tritforge.service", "TimeoutStopSec"),
    ] {
        let text = read(options);
        let needed = number(&text, "drain-delay") + number(&text, "shutdown-timeout");
        let given = number(&read(unit), key);
        assert!(given >= needed + 5, "{unit}: {key} {given}, but {options} takes {needed} s");
    }
}

#[test]
fn the_image_is_built_of_what_is_here() {
    let dockerfile = read("deploy/Dockerfile");
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let version = workspace["workspace"]["package"]["rust-version"].as_str().unwrap();
    assert!(
        dockerfile.contains(&format!("/rust:{version}-slim-")),
        "the Dockerfile's toolchain is not {version}"
    );
    let cli: toml::Table = toml::from_str(&read("crates/cli/Cargo.toml")).unwrap();
    let build = dockerfile.lines().find(|line| line.contains("cargo build")).unwrap();
    let words: Vec<&str> = build.split(' ').collect();
    let after =
        |flag: &str| words.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1]).collect::<Vec<_>>();
    assert_eq!(after("-p"), [cli["package"]["name"].as_str().unwrap()]);
    assert!(words.contains(&"--locked") && words.contains(&"--no-default-features"), "{build}");
    assert!(cli["features"].as_table().unwrap().contains_key("default"));
    for feature in after("--features").iter().flat_map(|list| list.split(',')) {
        assert!(cli["features"].as_table().unwrap().contains_key(feature), "no feature {feature}");
    }
    // What the image copies is there, and the build sees it.
    let ignored = read(".dockerignore");
    let seen: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    for path in seen.iter().filter(|path| !path.contains('*')) {
        assert!(Path::new(ROOT).join(path).exists(), ".dockerignore: {path}");
    }
    for line in dockerfile.lines().filter(|line| line.starts_with("COPY ") && !line.contains("--from")) {
        let sources: Vec<&str> = line.split(' ').skip(1).collect();
        for source in &sources[..sources.len() - 1] {
            let known =
                *source == "." || seen.iter().any(|path| source.starts_with(path.trim_end_matches('*')));
            assert!(known && Path::new(ROOT).join(source).exists(), "{line}: {source}");
        }
    }
}
