//! What runs and reports leave for trackers, through the binary: event files with hyperparameters, and an MLflow server that is
//! not there. What servers make of it is checked by `tests/interop/tensorboard_hparams.py` and `mlflow_run.py`.

use std::fs;
use std::net::TcpListener;
use std::path::Path;

use serde_json::Value;

mod project;

use project::Project;

const TAGS: [&str; 3] =
    ["_hparams_/experiment", "_hparams_/session_start_info", "_hparams_/session_end_info"];

/// How often each of [`TAGS`] stands in the event files of a directory.
fn tags(dir: &Path) -> [usize; 3] {
    let files = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let files = files.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let all: Vec<u8> = files.flat_map(|path| fs::read(path).unwrap()).collect();
    TAGS.map(|tag| all.windows(tag.len()).filter(|window| *window == tag.as_bytes()).count())
}

/// The lines of a run's log of one kind.
fn events(project: &Project, run: &str, kind: &str) -> Vec<Value> {
    let text = fs::read_to_string(project.path(run).join("metrics.jsonl")).unwrap();
    let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    all.filter(|event| event["event"] == kind).collect()
}

#[test]
fn a_run_says_what_it_is_and_how_it_ended() {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    assert_eq!(tags(&project.path("runs/tiny/tensorboard")), [1, 1, 1]);
    let end = events(&project, "runs/tiny", "end");
    assert_eq!((end.len(), &end[0]["ending"], &end[0]["step"]), (1, &"finished".into(), &12.into()));
    // It goes on, and ends once more.
    project.ok(&["train", "recipe.toml", "--quiet", "--resume", "--set", "train.steps=14"]);
    assert_eq!(tags(&project.path("runs/tiny/tensorboard")), [1, 1, 1]);
    let end = events(&project, "runs/tiny", "end");
    assert_eq!((end.len(), &end[0]["step"]), (1, &14.into()));
    // Codes are -1, 0 or 1.
    let health = events(&project, "runs/tiny", "health");
    let matrix = &health.last().unwrap()["matrices"][0];
    let [zero, positive] = ["zero", "positive"].map(|key| matrix[key].as_f64().unwrap());
    assert!(zero > 0.0 && positive > 0.0 && zero + positive < 1.0, "{matrix}");
    // A run that cannot go on has failed.
    let spike =
        ["train.spike_threshold=1.0000001", "train.on_spike=stop", "optim.lr=0.5", "optim.warmup_steps=0"];
    let mut args =
        vec!["train", "recipe.toml", "--quiet", "--set", "run.name=bad", "--set", "train.steps=200"];
    spike.iter().for_each(|key| args.extend(["--set", *key]));
    assert_eq!(project.run(&args).status.code(), Some(3));
    let end = events(&project, "runs/bad", "end");
    assert_eq!(end[0]["ending"], "failed");
    assert!(end[0]["reason"].as_str().unwrap().contains("spike"), "{}", end[0]);
    assert_eq!(tags(&project.path("runs/bad/tensorboard")), [1, 1, 1]);
}

#[test]
fn a_report_has_a_session_for_each_run() {
    let project = Project::new();
    let tiny = "\"sample.tokens\" = 0, \"train.steps\" = 4, \"train.eval_every\" = 2";
    let experiment = format!(
        "question = \"Which?\"\nbase = \"recipe.toml\"\nseeds = [1, 2]\n\
         [[arms]]\nname = \"sub/norm: on\"\nset = {{ \"model.use_sub_norm\" = true, {tiny} }}\n\
         [[arms]]\nname = \"..\"\nset = {{ \"model.use_sub_norm\" = false, {tiny} }}\n\
         [[arms]]\nname = \"full\"\nset = {{ \"quant.weights\" = \"none\", \"quant.activations\" = \"none\", {tiny} }}\n"
    );
    fs::write(project.path("e.toml"), experiment).unwrap();
    project.ok(&["ablate", "e.toml", "--threads", "2"]);
    let report = project.path("runs/ablations/e");
    let board = report.join("tensorboard");
    assert_eq!(tags(&board), [1, 0, 0]);
    // The name of the second arm is no name of a directory.
    for arm in ["sub-norm- on", "-2", "full"] {
        for seed in [1, 2] {
            assert_eq!(tags(&board.join(format!("{arm}/seed-{seed}"))), [0, 1, 1], "{arm}");
        }
    }
    let markdown = fs::read_to_string(report.join("report.md")).unwrap();
    let table = &markdown[markdown.find("## Ternary health").unwrap()..];
    assert!(table.contains("| arm | −1 | 0 | +1 | flips a step | scale | distance |"), "{table}");
    assert!(table.contains("| full | – | – | – | – | – | – |"), "{table}");
    let page = fs::read_to_string(report.join("report.html")).unwrap();
    for text in [
        "Ternary: −1",
        "Ternary: 0",
        "Ternary: +1",
        "Ternary: flips a step",
        "Ternary: scale",
        "Ternary: distance",
    ] {
        assert!(page.contains(text), "{text}");
    }
    // Any runs have the same.
    let runs = fs::read_to_string(report.join("runs.csv")).unwrap();
    let dirs: Vec<&str> = runs.lines().skip(1).map(|line| line.rsplit(',').next().unwrap()).collect();
    let args = [&["compare"][..], &dirs, &["--out", "compared"]].concat();
    project.ok(&args);
    assert_eq!(tags(&project.path("compared/tensorboard")), [1, 0, 0]);
    for file in ["report.html", "report.md", "report.csv", "runs.parquet"] {
        assert!(project.path("compared").join(file).is_file(), "{file}");
    }
}

/// The server is away: what the run reaches has the same bits, one warning says so, and one says what is missing there.
#[test]
fn a_server_that_is_away_changes_nothing() {
    let project = Project::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let log = format!("log.mlflow=http://127.0.0.1:{port}");
    project.ok(&["train", "recipe.toml", "--quiet", "--set", "run.name=alone"]);
    let output = project.run(&["train", "recipe.toml", "--quiet", "--set", &log, "--tag", "a=b"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // When it is first asked and at the end, or only then if training was faster.
    assert!((1..=2).contains(&said.matches("does not answer").count()), "{said}");
    assert!(said.contains("numbers did not reach") && said.contains("metrics.jsonl"), "{said}");
    for kind in ["train", "eval"] {
        let losses =
            |run: &str| events(&project, run, kind).iter().map(|e| e["loss"].clone()).collect::<Vec<_>>();
        assert_eq!(losses("runs/tiny"), losses("runs/alone"));
    }
    for (wrong, says) in [
        ("log.mlflow=127.0.0.1:5000", "expected the address of a server"),
        ("log.mlflow=http://", "expected the address of a server"),
        ("log.mlflow=http://me:secret@host", "MLFLOW_TRACKING_USERNAME"),
        ("log.mlflow=me:secret@host:5000", "MLFLOW_TRACKING_USERNAME"),
        ("log.mlflow=\"http://me:secret@host", "neither TOML nor a bare string"),
        ("log={mlflow=\"http://me:secret@host\"}", "with one dot in the key"),
        ("log.mlflow_experiment=x", "needs log.mlflow"),
        ("log.mlfow=http://me:secret@host", "did you mean log.mlflow?"),
    ] {
        let message = project.fails(&["train", "recipe.toml", "--set", wrong, "--dry-run"]);
        assert!(message.contains(says), "{wrong}: {message}");
        assert!(!message.contains("secret"), "{message}");
    }
    let message = project.fails(&["train", "recipe.toml", "--tag", "a=b"]);
    assert!(message.contains("--tag needs a server") && message.contains("recipe.toml"), "{message}");
    let message = project.fails(&["train", "recipe.toml", "--tag", "nothing"]);
    assert!(message.contains("expected KEY=VALUE"), "{message}");
}
