//! Experiments through the binary: planned, run, killed, shared, reported.

mod project;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use project::Project;
use serde_json::Value;

/// Changes of the project's recipe that make a run one of a second.
const TINY: &str = "\"model.hidden_size\" = 128, \"model.intermediate_size\" = 128, \"sample.tokens\" = 0, \
                    \"data.seq_len\" = 16, \"tokenizer.vocab_size\" = 280, \"train.steps\" = 6, \"train.eval_every\" = 3";

const EXPERIMENT: &str = r#"question = "Do sub-norms help?"
base = "recipe.toml"
seeds = [1, 2, 3]

[[arms]]
name = "sub-norm"
set = { TINY }

[[arms]]
name = "pre-norm"
set = { TINY, "model.use_sub_norm" = false }
"#;

const TUNE: &str = "[tune]\n\"optim.lr\" = [1e-3, 4e-3]\nseed = 9\n";

fn project(more: &str) -> Project {
    let project = Project::new();
    write(&project, "e.toml", &(EXPERIMENT.to_string() + more));
    project
}

fn write(project: &Project, name: &str, text: &str) {
    let long = TINY.replace("steps\" = 6", "steps\" = 40");
    fs::write(project.path(name), text.replace("TINY", TINY).replace("LONG", &long)).unwrap();
}

fn read(project: &Project, name: &str) -> String {
    fs::read_to_string(project.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The rows of a table of a report, by column.
fn rows(project: &Project, name: &str) -> Vec<BTreeMap<String, String>> {
    let text = read(project, name);
    let mut lines = text.lines().map(cells);
    let header = lines.next().unwrap();
    lines.map(|row| header.iter().cloned().zip(row).collect()).collect()
}

fn cells(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            c => cells.last_mut().unwrap().push(c),
        }
    }
    cells
}

fn journal(project: &Project, name: &str) -> Vec<Value> {
    read(project, name).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The runs that a journal says were started.
fn started(project: &Project, name: &str) -> Vec<String> {
    let runs = journal(project, name).into_iter().filter(|record| record["event"] == "run");
    runs.map(|record| record["id"].as_str().unwrap().to_string()).collect()
}

#[test]
fn a_question_is_planned_run_and_answered() {
    let project = project(TUNE);
    let plan = project.ok(&["ablate", "e.toml", "--dry-run", "--jobs", "2", "--threads", "2"]);
    assert!(
        plan.contains(
            "2 arms × (3 seeds and, for tuning, 2 values × 1 seed): 10 runs, of which 0 made already"
        ),
        "{plan}"
    );
    assert!(plan.contains("measured by dry runs") && plan.contains("runs to make"), "{plan}");
    assert!(started(&project, "runs/ablations/e/journal.jsonl").is_empty());

    let said = project.ok(&["ablate", "e.toml", "--jobs", "2", "--threads", "2"]);
    assert!(said.contains("[4/4]") && said.contains("[6/6]") && said.contains("report.html"), "{said}");
    // What was measured for the plan is not measured again.
    assert!(plan.contains("measuring a run of sub-norm") && !said.contains("measuring a run of"), "{said}");
    // Whole pairs first: both arms of a seed before the next seed.
    let runs = rows(&project, "runs/ablations/e/runs.csv");
    assert_eq!(runs.len(), 6);
    let values = |arm: &str| -> Vec<f64> {
        let own = runs.iter().filter(|row| row["arm"] == arm);
        own.map(|row| row["bits_per_byte"].parse().unwrap()).collect()
    };
    let (sub, pre) = (values("sub-norm"), values("pre-norm"));
    let arms = rows(&project, "runs/ablations/e/report.csv");
    let number = |arm: usize, key: &str| arms[arm][key].parse::<f64>().unwrap();
    assert!((number(0, "mean") - sub.iter().sum::<f64>() / 3.0).abs() < 1e-12);
    let differences: Vec<f64> = pre.iter().zip(&sub).map(|(a, b)| a - b).collect();
    let mean = differences.iter().sum::<f64>() / 3.0;
    let sd = (differences.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / 2.0).sqrt();
    assert!((number(1, "difference") - mean).abs() < 1e-12);
    // Student's t for two degrees of freedom, as tables have it.
    assert!((number(1, "difference_half_width") - 4.302_652_729_911_275 * sd / 3f64.sqrt()).abs() < 1e-9);
    assert!(arms[1]["pairing"].starts_with("paired: initial weights, data and its order are identical"));
    assert!(arms[0]["settings"].starts_with("lr="));
    // The text's one document gives no noise of documents.
    assert_eq!(arms[1]["evaluation_sd"], "");
    for row in &runs {
        assert!(
            row["outcome"] == "finished" && row["file_bytes"].parse::<u64>().unwrap() > 10_000,
            "{row:?}"
        );
    }
    // The same cells as Parquet, with types.
    for name in ["report", "runs"] {
        let path = format!("runs/ablations/e/{name}");
        let records = tritforge_data::read_records(&project.path(&format!("{path}.parquet")), None).unwrap();
        let table = rows(&project, &format!("{path}.csv"));
        assert_eq!(records.len(), table.len());
        for (record, row) in records.iter().zip(&table) {
            assert_eq!(record.fields.len(), row.len());
            for (column, cell) in row {
                match &record.fields[column] {
                    Value::Null => assert_eq!(cell, "", "{column}"),
                    Value::String(text) => assert_eq!(text, cell, "{column}"),
                    number => assert_eq!(number.as_f64(), cell.parse().ok(), "{column}"),
                }
            }
            assert!(record.fields[if name == "runs" { "seconds" } else { "mean" }].is_f64());
        }
    }
    let page = read(&project, "runs/ablations/e/report.html");
    for part in [
        "Do sub-norms help?",
        "Differences",
        "over target tokens",
        "over floating-point operations",
        "bytes of the exported file",
        "use_sub_norm = false",
        "tritforge ablate e.toml",
        "</html>",
    ] {
        assert!(page.contains(part) || page.contains(&part.replace("tritforge ", "")), "{part}");
    }
    assert!(!page.contains("http://") && !page.contains("https://"), "the page needs something from outside");
    let report = read(&project, "runs/ablations/e/report.md");
    assert!(report.starts_with("# Do sub-norms help?\n\n**"), "{report}");

    // Again, and in another experiment with an arm more: nothing is made twice, and every number is the same.
    let before = read(&project, "runs/ablations/e/report.csv");
    let again = project.ok(&["ablate", "e.toml"]);
    assert_eq!(again.matches("reused from").count(), 10, "{again}");
    assert_eq!(read(&project, "runs/ablations/e/report.csv"), before);
    let third = "\n[[arms]]\nname = \"relu2\"\nset = { TINY, \"model.hidden_act\" = \"relu2\", \"optim.lr\" = 4e-3 }\n\
                 tune = { \"optim.lr\" = [4e-3] }\n";
    write(&project, "f.toml", &(EXPERIMENT.to_string() + third + TUNE));
    let shared = project.ok(&["ablate", "f.toml"]);
    assert_eq!(shared.matches("reused from").count(), 10, "{shared}");
    assert_eq!(rows(&project, "runs/ablations/f/report.csv")[1]["difference"], arms[1]["difference"]);

    // Any of the runs, compared by hand.
    let dir = |arm: usize, seed: usize| runs[3 * arm + seed]["directory"].clone();
    let all: Vec<String> = (0..2).flat_map(|arm| (0..3).map(move |seed| dir(arm, seed))).collect();
    let mut args = vec!["compare"];
    args.extend(all.iter().map(String::as_str));
    args.extend(["--html", "compared.html"]);
    let compared = project.ok(&args);
    let shown = format!("{:.4}", mean.abs());
    assert!(compared.contains(&shown) && compared.contains("use_sub_norm=false"), "{compared}");
    assert!(read(&project, "compared.html").contains("How do 6 runs compare?"));
    let message = project.fails(&["compare", &all[0], &all[1]]);
    assert!(message.contains("nothing to compare"), "{message}");
    let message = project.fails(&["compare", "runs/none", &all[0]]);
    assert!(message.contains("runs/none") && message.contains("no such file"), "{message}");
}

/// Numbers that look random, from 0 to 1; the same in every run of the test.
fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// Killed ten times anywhere, with runs in progress, the end is that of an experiment left alone.
#[test]
fn killed_at_any_time_the_same_table_comes_out() {
    let [whole, killed] = [project(""), project("")];
    whole.ok(&["ablate", "e.toml", "--threads", "2"]);
    let mut random = random(7);
    for _ in 0..10 {
        let mut child = killed
            .command(&["ablate", "e.toml", "--jobs", "2", "--threads", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_secs_f64(2.5 * random()));
        child.kill().unwrap(); // SIGKILL on Unix
        child.wait().unwrap();
    }
    killed.ok(&["ablate", "e.toml", "--jobs", "2", "--threads", "2"]);
    assert_eq!(read(&killed, "runs/ablations/e/report.csv"), read(&whole, "runs/ablations/e/report.csv"));
    let losses = |project: &Project| -> Vec<[String; 4]> {
        let rows = rows(project, "runs/ablations/e/runs.csv");
        rows.iter()
            .map(|row| ["arm", "seed", "bits_per_byte", "held_out_loss"].map(|key| row[key].clone()))
            .collect()
    };
    assert_eq!(losses(&killed), losses(&whole));
    // Every line of the journal is whole.
    assert!(journal(&killed, "runs/ablations/e/journal.jsonl").len() > 10);
}

#[test]
fn processes_share_runs_and_not_a_journal() {
    let project = project("");
    let start =
        |args: &[&str]| project.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The same experiment into two directories: both want the same runs at the same time.
    let both = ["one", "two"].map(|out| start(&["ablate", "e.toml", "--out", out, "--threads", "1"]));
    let outputs = both.map(|child| child.wait_with_output().unwrap());
    for output in &outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let mut made = [started(&project, "one/journal.jsonl"), started(&project, "two/journal.jsonl")].concat();
    made.sort();
    let count = made.len();
    made.dedup();
    assert_eq!((made.len(), count), (6, 6), "a run was made twice");
    assert_eq!(read(&project, "one/report.csv"), read(&project, "two/report.csv"));

    // A journal in use: as the second process finds it.
    let file = fs::File::open(project.path("one/journal.jsonl")).unwrap();
    file.lock().unwrap();
    let message = project.fails(&["ablate", "e.toml", "--out", "one"]);
    assert!(message.contains("one/journal.jsonl") && message.contains("another process"), "{message}");
    drop(file);
    project.ok(&["ablate", "e.toml", "--out", "one"]);
}

#[test]
fn arms_that_diverge_are_results_and_runs_that_fail_stop_nothing() {
    let project = project(
        "\n[[arms]]\nname = \"spikes\"\nset = { LONG, \"train.spike_threshold\" = 1.000001, \"train.on_spike\" = \"stop\" }\n",
    );
    let said = project.ok(&["ablate", "e.toml"]);
    assert!(said.contains("diverged at step"), "{said}");
    let arms = rows(&project, "runs/ablations/e/report.csv");
    let [diverged, n] = ["diverged", "n"].map(|key| arms[2][key].parse::<usize>().unwrap());
    assert!(
        diverged > 0
            && n + diverged == 3
            && ["diverged", "no verdict"].contains(&arms[2]["verdict"].as_str())
    );
    assert_eq!(arms[1]["n"], "3");
    // A diverged run is not tried again.
    let again = project.ok(&["ablate", "e.toml"]);
    assert_eq!(again.matches("reused from").count(), 9, "{again}");

    // A run that cannot write its log fails; the others have their results, and it is tried again.
    let runs = rows(&project, "runs/ablations/e/runs.csv");
    let dir = project.path(&runs[1]["directory"]);
    fs::remove_dir_all(&dir).unwrap();
    fs::create_dir_all(dir.join("metrics.jsonl")).unwrap();
    let output = project.run(&["ablate", "e.toml"]);
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{errors}");
    assert!(said.contains("FAILED") && said.contains("metrics.jsonl"), "{said}");
    assert!(errors.contains("sub-norm, seed 2:"), "{errors}");
    let partly = rows(&project, "runs/ablations/e/report.csv");
    assert_eq!([&partly[0]["n"], &partly[0]["failed"], &partly[1]["verdict"]], ["2", "1", "no verdict"]);
    fs::remove_dir(dir.join("metrics.jsonl")).unwrap();
    project.ok(&["ablate", "e.toml"]);
    assert_eq!(rows(&project, "runs/ablations/e/report.csv"), arms);
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_runs() {
    let project = project("");
    let message = project.fails(&["ablate", "e.toml", "--budget", "0.01 s"]);
    assert!(message.contains("budget = 10 ms: 3 seeds of 2 arms take about"), "{message}");
    let message = project.fails(&["ablate", "e.toml", "--budget", "soon"]);
    assert!(message.contains("--budget soon"), "{message}");
    write(&project, "e.toml", &EXPERIMENT.replace("\"model.use_sub_norm\"", "\"model.use_subnorm\""));
    let message = project.fails(&["ablate", "e.toml"]);
    assert!(
        message.contains("arm \"pre-norm\"") && message.contains("did you mean model.use_sub_norm?"),
        "{message}"
    );
    let message = project.fails(&["ablate", "none.toml"]);
    assert!(message.contains("none.toml: cannot read"), "{message}");
    assert!(!Path::new(&project.path("runs/cache")).join("data").join("none").exists());
}

#[test]
fn a_sweep_ranks_its_points() {
    let project = Project::new();
    let mut args = vec!["sweep", "recipe.toml", "optim.lr=1e-3,4e-3", "--seeds", "1"];
    args.extend(["sample.tokens=0", "train.steps=6", "model.hidden_size=128", "model.intermediate_size=128"]);
    let said = project.ok(&args);
    assert!(said.contains("2 arms × (1 seed): 2 runs"), "{said}");
    assert!(said.contains("no verdict"), "{said}");
    let report = read(&project, "runs/sweeps/recipe/report.md");
    assert!(report.contains("compare it on others with `tritforge ablate`"), "{report}");
    // Four, then the better two, then the better one; what was made before is not made again.
    args[2] = "optim.lr=1e-3,4e-3,1e-5,1e-6";
    args[4] = "3";
    args.push("--halving");
    let said = project.ok(&args);
    assert!(said.contains("at most") && said.matches("reused from").count() == 2, "{said}");
    let runs = rows(&project, "runs/sweeps/recipe/runs.csv");
    let of = |arm: &str| runs.iter().filter(|row| row["arm"] == arm).count();
    assert_eq!(["lr=0.001", "lr=0.004", "lr=1e-5", "lr=1e-6"].map(of), [2, 3, 1, 1]);
    assert!(read(&project, "runs/sweeps/recipe/report.md").contains("lr=1e-6: given up after 1 seed"));
    let message = project.fails(&["sweep", "recipe.toml"]);
    assert!(message.contains("nothing to sweep"), "{message}");
}

/// A program that starts runs and is gone leaves none behind.
#[test]
fn a_run_ends_with_the_input_of_who_started_it() {
    let project = Project::new();
    let mut child: Command = project.command(&[
        "train",
        "recipe.toml",
        "--quiet",
        "--stop-on-eof",
        "--set",
        "train.steps=100000",
        "--set",
        "train.save_every=100000",
    ]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    while !project.path("runs/tiny/metrics.jsonl").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("stopped; continue with --resume"), "{said}");
}

/// Losses by document add up to the held-out loss, whose bits do not depend on whether they are kept; and with several
/// documents the noise of the text is told apart from that of the seeds.
#[test]
fn documents_have_losses_of_their_own() {
    let project = Project::new();
    let text = read(&project, "text.txt");
    fs::create_dir(project.path("texts")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    for (i, part) in lines.chunks(lines.len().div_ceil(8)).enumerate() {
        fs::write(project.path(&format!("texts/{i}.txt")), part.join("\n")).unwrap();
    }
    let own = [
        "data.train=[\"texts\"]",
        "data.held_out=0.5",
        "sample.tokens=0",
        "train.steps=6",
        "train.eval_every=3",
    ];
    let train = |name: &str, flags: &[&str]| {
        let name = format!("run.name={name}");
        let mut args = vec!["train", "recipe.toml", "--quiet", "--set", &name];
        own.iter().for_each(|key| args.extend(["--set", key]));
        args.extend(flags);
        project.ok(&args);
    };
    train("plain", &[]);
    train("kept", &["--document-losses", "--data-dir", "shared"]);
    assert!(project.path("shared/tokenizer.json").exists() && !project.path("runs/kept/data").exists());
    let evaluations = |name: &str| -> Vec<Value> {
        let lines = read(&project, &format!("runs/{name}/metrics.jsonl"));
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        events.filter(|event| event["event"] == "eval").collect()
    };
    let found = evaluations("kept");
    assert_eq!((found.len(), &found), (2, &evaluations("plain")));
    assert!(!project.path("runs/plain/documents.csv").exists());
    let documents = rows(&project, "runs/kept/documents.csv");
    assert!(documents.len() >= 4, "{documents:?}");
    let sum = |key: &str| documents.iter().map(|row| row[key].parse::<f64>().unwrap()).sum::<f64>();
    let [loss, bits] = ["loss", "bits_per_byte"].map(|key| found[1][key].as_f64().unwrap());
    assert!((sum("nats") / sum("targets") - loss).abs() < 1e-9);
    // Bits a byte take the bytes that a token stands for in the mean, and the first token is no target.
    assert!((sum("nats") / std::f64::consts::LN_2 / sum("bytes") / bits - 1.0).abs() < 0.01);

    let set = own.map(|key| format!("\"{}", key.replacen('=', "\" = ", 1))).join(", ");
    let experiment = "question = \"q?\"\nbase = \"recipe.toml\"\nseeds = [1, 2, 3]\n[[arms]]\nname = \"a\"\nset = { SET }\n\
                      [[arms]]\nname = \"b\"\nset = { SET, \"optim.lr\" = 4e-3 }\n";
    fs::write(project.path("e.toml"), experiment.replace("SET", &set)).unwrap();
    project.ok(&["ablate", "e.toml"]);
    let arms = rows(&project, "runs/ablations/e/report.csv");
    let noise: f64 = arms[1]["evaluation_sd"].parse().unwrap();
    assert!(noise > 0.0 && noise < 1.0, "{noise}");
}
