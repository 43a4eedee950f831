//! Runs that are interrupted: killed, asked to end, out of disk, out of patience, without numbers. Whatever
//! happens, the last good checkpoint stays, and a run that goes on reaches the same bits as one that was left
//! alone.

mod project;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use project::Project;

/// Makes the project's model tiny: these tests are about the loop.
const TINY: [&str; 4] =
    ["model.hidden_size=128", "model.intermediate_size=128", "sample.tokens=2", "data.seq_len=16"];

/// Everything that a checkpoint can hold beside weights and AdamW's moments.
const ALL_STATE: [&str; 8] = [
    "optim.kind=muon",
    "optim.state_dtype=bf16",
    "optim.master_dtype=bf16",
    "optim.schedule=two-stage",
    "ema.decay=0.9",
    "train.keep_best=true",
    "train.patience=100",
    "train.spike_threshold=20",
];

fn train(project: &Project, set: &[&str], flags: &[&str]) -> Command {
    let mut command = project.command(&["train", "recipe.toml", "--quiet"]);
    TINY.iter().chain(set).for_each(|key| {
        command.args(["--set", key]);
    });
    command.args(flags);
    command
}

fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}:\n{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn fails(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(!status.success() && !stderr.contains("panicked"), "{command:?}:\n{stderr}");
    stderr
}

/// Every file of a checkpoint.
fn files(project: &Project, step: u64) -> BTreeMap<String, Vec<u8>> {
    let dir = project.path(&format!("runs/tiny/step-{step:06}"));
    let entries = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let file =
        |path: &Path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap());
    entries.map(|entry| file(&entry.unwrap().path())).collect()
}

fn same(a: &Project, b: &Project, step: u64) {
    let (a, b) = (files(a, step), files(b, step));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, bytes) in &a {
        assert!(bytes == &b[name], "{name} differs at step {step}");
    }
}

/// Names of the checkpoints that a run kept, in order.
fn checkpoints(project: &Project) -> Vec<String> {
    let entries = fs::read_dir(project.path("runs/tiny")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("step-")).collect();
    names.sort();
    names
}

/// Numbers that look random, from 0 to 1; the same in every run of the test.
fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f64 / (1u64 << 24) as f64
    }
}

/// Kills a run at `kills` moments all over it, goes on each time, and compares the end with that of a run
/// left alone.
fn killed_and_resumed(set: &[&str], steps: u64, kills: u32, seed: u64) {
    let (whole, killed) = (Project::new(), Project::new());
    let steps_key = format!("train.steps={steps}");
    let set = [&[steps_key.as_str(), "train.save_every=3"], set].concat();
    let begin = Instant::now();
    ok(&mut train(&whole, &set, &[]));
    let duration = begin.elapsed();
    let begin = Instant::now();
    ok(&mut train(&whole, &set, &["--resume"]));
    let start = begin.elapsed();
    // On average as long as it takes to start and make one `kills`th of the way; checkpoints are lost on top.
    let mut random = random(seed);
    for _ in 0..kills {
        let mut child = train(&killed, &set, &["--resume"]).stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_secs_f64(
            random() * 2.0 * (start.as_secs_f64() * 0.5 + duration.as_secs_f64() / f64::from(kills)),
        ));
        child.kill().unwrap(); // SIGKILL on Unix
        child.wait().unwrap();
    }
    ok(&mut train(&killed, &set, &["--resume"]));
    same(&whole, &killed, steps);
    assert_eq!(checkpoints(&whole), checkpoints(&killed));
    // Every step was logged once.
    let lines = fs::read_to_string(killed.path("runs/tiny/metrics.jsonl")).unwrap();
    let logged: Vec<u64> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .filter(|event| event["event"] == "train")
        .map(|event| event["step"].as_u64().unwrap())
        .collect();
    assert_eq!(logged, (1..=steps).collect::<Vec<_>>());
}

#[test]
fn a_run_killed_at_twenty_moments_goes_on_to_the_same_bits() {
    killed_and_resumed(&[], 60, 20, 1);
}

#[test]
fn all_state_survives_kills() {
    killed_and_resumed(&ALL_STATE, 40, 5, 2);
}

#[test]
fn a_run_that_was_killed_before_it_removed_old_checkpoints_removes_them_at_its_end() {
    let project = Project::new();
    let set = ["train.steps=6", "train.save_every=3", "train.keep_last=1", "train.keep_best=false"];
    ok(&mut train(&project, &set, &[]));
    let old = project.path("runs/tiny/step-000003");
    fs::create_dir(&old).unwrap();
    for entry in fs::read_dir(project.path("runs/tiny/step-000006")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, old.join(path.file_name().unwrap())).unwrap();
    }
    ok(&mut train(&project, &set, &["--resume"]));
    assert_eq!(checkpoints(&project), ["step-000006"]);
}

#[test]
fn an_average_of_the_weights_is_what_is_exported() {
    let project = Project::new();
    // The packings need wider rows than the tiny model's.
    let wide = ["model.hidden_size=256", "model.intermediate_size=256", "train.steps=6"];
    ok(&mut train(&project, &[&ALL_STATE[..], &wide].concat(), &[]));
    let files = files(&project, 6);
    assert!(files["model.safetensors"].len() > files["latest.safetensors"].len() * 3 / 2, "f32 beside bf16");
    project.ok(&["export", "runs/tiny", "-o", "m.gguf", "--embeddings", "f32"]);
    let printed = project.ok(&["verify", "runs/tiny", "m.gguf", "--bound", "0"]);
    assert!(printed.contains("verified"), "{printed}");
    // Kept beside the model, it is the same average: what is deployed does not change what is trained.
    ok(&mut train(&project, &[&ALL_STATE[..], &wide, &["ema.deploy=false"]].concat(), &["--overwrite"]));
    let beside = self::files(&project, 6);
    assert!(beside["ema.safetensors"] == files["model.safetensors"]);
    assert!(beside["model.safetensors"] == files["latest.safetensors"]);
}

#[cfg(unix)]
fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until a run has begun to train, and with it to listen for signals.
fn wait_for_metrics(project: &Project, child: &mut Child) {
    while !project.path("runs/tiny/metrics.jsonl").exists() {
        assert_eq!(child.try_wait().unwrap(), None, "the run ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[cfg(unix)]
#[test]
fn a_run_that_is_asked_to_end_writes_a_checkpoint_and_goes_on_later() {
    let (whole, asked) = (Project::new(), Project::new());
    let set = ["train.steps=40", "train.save_every=1000", "train.eval_every=1000"];
    ok(&mut train(&whole, &set, &[]));
    for name in ["TERM", "INT"] {
        let mut command = train(&asked, &set, &["--resume"]);
        let _ = fs::remove_file(asked.path("runs/tiny/metrics.jsonl"));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        wait_for_metrics(&asked, &mut child);
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{name}: {:?}", output.status);
        let printed = String::from_utf8(output.stdout).unwrap();
        // A fast machine may have been done already.
        assert!(printed.contains("stopped; continue with --resume") || printed.contains("trained 40 steps"));
        assert_eq!(checkpoints(&asked).len().min(1), 1);
    }
    ok(&mut train(&asked, &set, &["--resume"]));
    same(&whole, &asked, 40);
}

#[cfg(unix)]
#[test]
fn a_second_signal_ends_a_run_at_once() {
    let project = Project::new();
    // A step that takes longer than anybody waits.
    let mut command = train(&project, &["train.gradient_accumulation=100000"], &[]);
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    wait_for_metrics(&project, &mut child);
    signal(&child, "INT");
    signal(&child, "TERM");
    // Where both arrive at once, either may be the second.
    let code = child.wait().unwrap().code();
    assert!([Some(128 + 2), Some(128 + 15)].contains(&code), "{code:?}");
    assert_eq!(checkpoints(&project), [] as [String; 0]);
}

#[cfg(unix)]
#[test]
fn a_full_disk_costs_no_checkpoint() {
    let (whole, full) = (Project::new(), Project::new());
    ok(&mut train(&whole, &["train.steps=8"], &[]));
    ok(&mut train(
        &full,
        &["train.steps=8", "train.patience=1", "train.min_delta=100", "train.eval_every=2"],
        &[],
    ));
    let before = checkpoints(&full);
    let last = before.last().unwrap().clone();
    // No file may grow beyond 64 KiB: the logs may, the tensors may not. The signal that comes with it is
    // ignored, so that a write fails as on a full disk.
    let train_again = train(&full, &["train.steps=8"], &["--resume"]);
    let mut limited = Command::new("sh");
    limited.current_dir(full.path("")).args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$@\"", "sh"]);
    limited.arg(train_again.get_program()).args(train_again.get_args());
    let message = fails(&mut limited);
    assert!(message.contains(".safetensors: cannot write"), "{message}");
    assert_eq!(checkpoints(&full), before);
    let leftovers = fs::read_dir(full.path("runs/tiny")).unwrap();
    assert!(leftovers.map(|e| e.unwrap().file_name().into_string().unwrap()).all(|n| !n.starts_with(".tmp")));
    // With room again it goes on from there.
    ok(&mut train(&full, &["train.steps=8"], &["--resume"]));
    assert!(checkpoints(&full) > before, "{last}");
    for name in ["model.safetensors", "optimizer.safetensors"] {
        assert!(files(&whole, 8)[name] == files(&full, 8)[name], "{name}");
    }
}

#[test]
fn a_run_without_progress_ends_early_and_keeps_its_best() {
    let project = Project::new();
    let set = [
        "train.patience=2",
        "train.min_delta=100",
        "train.eval_every=2",
        "train.keep_best=true",
        "train.keep_last=1",
    ];
    let printed = ok(&mut train(&project, &set, &[]));
    assert!(printed.contains("trained 6 steps") && printed.contains("stopped early"), "{printed}");
    let state: serde_json::Value = serde_json::from_slice(&files(&project, 6)["training.json"]).unwrap();
    let best = format!("step-{:06}", state["best_step"].as_u64().unwrap());
    let mut expected = vec![best, "step-000006".to_string()];
    expected.dedup();
    assert_eq!(checkpoints(&project), expected);
    // It stays ended until it is given more patience.
    assert!(ok(&mut train(&project, &set, &["--resume"])).contains("trained 6 steps"));
    let printed = ok(&mut train(&project, &[&set[..], &["train.patience=3"]].concat(), &["--resume"]));
    assert!(printed.contains("trained 8 steps"), "{printed}");
}

#[test]
fn numbers_that_are_none_stop_a_run_and_keep_the_checkpoint() {
    for on_nonfinite in ["stop", "skip"] {
        let project = Project::new();
        let verdict = format!("train.on_nonfinite={on_nonfinite}");
        // Weights are multiplied by 1 − lr · decay = −9 at every step, until they overflow: skipping cannot
        // help.
        let set =
            ["optim.lr=10", "optim.weight_decay=1", "optim.schedule=constant", "train.steps=90", &verdict];
        let message = fails(&mut train(&project, &set, &[]));
        assert!(message.contains("training stopped") && message.contains("step-0000"), "{message}");
        let newest = checkpoints(&project).pop().unwrap();
        // What is kept is made of numbers.
        let model = &files(&project, newest["step-".len()..].parse().unwrap())["model.safetensors"];
        let header = 8 + u64::from_le_bytes(model[..8].try_into().unwrap()) as usize;
        let (values, _) = model[header..].as_chunks();
        assert!(values.iter().all(|bytes| f32::from_le_bytes(*bytes).is_finite()));
    }
}

#[test]
fn a_run_goes_on_only_with_what_it_began_with() {
    let project = Project::new();
    ok(&mut train(&project, &["train.steps=4"], &[]));
    for (key, message) in [
        ("optim.kind=lion", "optim.kind is \"lion\", but the run was started with \"adamw\""),
        ("optim.state_dtype=bf16", "optim.state_dtype is \"bf16\", but the run was started with \"f32\""),
        ("model.num_hidden_layers=1", "model.num_hidden_layers is 1"),
        ("data.held_out=0.2", "data.held_out is 0.2"),
        ("data.seq_len=8", "data.seq_len is 8, but the run was started with 16"),
        ("data.packing=documents", "data.packing is \"documents\""),
        ("run.seed=77", "run.seed is 77"),
        (
            "tokenizer.vocab_size=290",
            "a different model than the checkpoint's config.json (tokenizer.vocab_size is 290",
        ),
    ] {
        let found = fails(&mut train(&project, &[key, "train.steps=6"], &["--resume"]));
        assert!(found.contains("cannot resume") && found.contains(message), "{key}: {found}");
    }
    // A longer run, another schedule and an average from here on are no contradiction.
    let set = ["train.steps=6", "optim.schedule=wsd", "ema.decay=0.9"];
    ok(&mut train(&project, &set, &["--resume"]));
}

#[test]
fn a_run_draws_its_report_and_several_are_drawn_together() {
    let (one, two) = (Project::new(), Project::new());
    ok(&mut train(&one, &["run.name=one"], &[]));
    ok(&mut train(&two, &["run.name=two", "train.steps=8", "train.gradient_checkpointing=true"], &[]));
    let other = two.path("runs/two").display().to_string();
    let html = fs::read_to_string(one.path("runs/one/report.html")).unwrap();
    assert!(html.contains("Ternary health of one") && html.contains("steps = 12"));
    one.ok(&["report", "runs/one", &other, "-o", "both.html"]);
    let html = fs::read_to_string(one.path("both.html")).unwrap();
    assert!(html.contains("one held-out") && html.contains("two held-out"));
    assert!(one.fails(&["report", "runs/one", &other]).contains("give the output file"));
    assert!(one.fails(&["report", "runs"]).contains("metrics.jsonl: no such file"));
    // Every step once, in order, in all three forms; checkpointing changed no bit.
    let table = fs::read_to_string(two.path("runs/two/metrics.csv")).unwrap();
    let steps: Vec<&str> = table.lines().skip(1).map(|row| row.split(',').next().unwrap()).collect();
    assert_eq!(steps, ["1", "2", "3", "4", "5", "6", "6", "7", "8", "8"]);
    assert_eq!(fs::read_dir(two.path("runs/two/tensorboard")).unwrap().count(), 1);
    ok(&mut train(&one, &["run.name=two", "train.steps=8"], &[]));
    let model = |project: &Project| fs::read(project.path("runs/two/step-000008/model.safetensors")).unwrap();
    assert!(model(&one) == model(&two));
}

#[test]
fn a_recipe_is_upgraded_in_place() {
    let project = Project::new();
    let old = "# Mine.\n\n[quant]\nbackward = \"exact\"  # in f32\n";
    fs::write(project.path("old.toml"), old).unwrap();
    let output = project.command(&["recipes", "upgrade", "old.toml", "--check"]).output().unwrap();
    let expected = "old.toml:3: + version = 1\nold.toml:4: - backward = \"exact\"  # in f32\n\
                    old.toml:4: + backward = \"f32\"  # in f32\n";
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stdout).as_ref()), (Some(1), expected));
    assert_eq!(fs::read_to_string(project.path("old.toml")).unwrap(), old);
    assert_eq!(project.ok(&["recipes", "upgrade", "old.toml"]), expected);
    let new = "# Mine.\n\nversion = 1\n\n[quant]\nbackward = \"f32\"  # in f32\n";
    assert_eq!(fs::read_to_string(project.path("old.toml")).unwrap(), new);
    let again = project.ok(&["recipes", "upgrade", "old.toml", "--check"]);
    assert!(again.contains("old.toml: nothing to change, it is of version 1"), "{again}");
    assert!(project.fails(&["recipes", "upgrade", "missing.toml"]).contains("missing.toml: cannot read"));
}

#[test]
fn embedded_recipes_are_listed_shown_and_copied() {
    let project = Project::new();
    let printed = project.ok(&["recipes", "list"]);
    assert!(printed.contains("pretrain-english") && printed.contains("quickstart"), "{printed}");
    assert!(project.ok(&["recipes", "show", "quickstart"]).contains("rust-sources"));
    project.ok(&["recipes", "copy", "pretrain-english", "mine"]);
    let set = "data.train=[\"text.txt\"]";
    let printed = project.ok(&["train", "mine/pretrain-english.toml", "--dry-run", "--set", set]);
    assert!(printed.contains("hidden_size = 512"), "{printed}");
    let schema: serde_json::Value = serde_json::from_str(&project.ok(&["recipes", "schema"])).unwrap();
    assert_eq!(schema["properties"]["optim"]["properties"]["lr"]["type"], "number");
    assert!(project.ok(&["recipes", "reference"]).contains("## [optim]"));
    assert!(project.fails(&["recipes", "show", "quick"]).contains("no recipe named quick"));
    assert!(project.fails(&["recipes", "copy", "quickstart", "text.txt"]).contains("text.txt"));
    let twice = project.fails(&["recipes", "copy", "pretrain-english", "mine"]);
    assert!(twice.contains("already exists"), "{twice}");
}
