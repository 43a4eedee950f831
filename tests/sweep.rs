//! Sweeps through the binary: drawn points, and rungs whose runs go on from each other's checkpoints.

mod project;

use std::fs;
use std::path::{Path, PathBuf};

use project::Project;
use serde_json::Value;

/// Keys that make a run one of a fraction of a second.
const TINY: [&str; 5] = [
    "sample.tokens=0",
    "train.steps=24",
    "train.eval_every=6",
    "model.hidden_size=128",
    "model.intermediate_size=128",
];
const DRAWN: &str = "optim.lr=log_uniform(1e-4,1e-2)";

fn sweep(project: &Project, more: &[&str]) -> String {
    let mut args = vec!["sweep", "recipe.toml", "--threads", "2"];
    args.extend(TINY);
    args.extend(more);
    project.ok(&args)
}

fn read(project: &Project, name: &str) -> String {
    fs::read_to_string(project.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Arm, value and directory of every run of a sweep's report.
fn runs(project: &Project) -> Vec<(String, String, PathBuf)> {
    let text = read(project, "runs/sweeps/recipe/runs.csv");
    let of = |line: &str| {
        let cells: Vec<&str> = line.split(',').collect();
        (cells[0].to_string(), cells[3].to_string(), PathBuf::from(cells[cells.len() - 1]))
    };
    text.lines().skip(1).map(of).collect()
}

/// The tensors of a run's last checkpoint, by name of their file.
fn tensors(project: &Project, dir: &Path) -> Vec<(String, Vec<u8>)> {
    let checkpoint = project.path(&dir.join("step-000024").to_string_lossy());
    let files = fs::read_dir(checkpoint).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<(String, Vec<u8>)> = files
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap()))
        .collect();
    files.sort();
    assert!(files.len() >= 2, "{files:?}");
    files
}

/// What came of the last rung is, to the bit, what the same run reaches from its beginning, and bears the same name.
#[test]
fn a_rung_goes_on_to_the_bits_of_a_run_from_the_beginning() {
    // The step from which the second and the third rung go on: all of a constant rate, all but the decay of a fifth of
    // warm-up, stable, decay (the first step of a decay still has the peak's rate); a rate that falls all the way shares
    // nothing but the warm-up.
    for (schedule, steps) in [("constant", [6, 12]), ("wsd", [6, 11]), ("cosine", [0, 0])] {
        let [halved, whole] = [Project::new(), Project::new()];
        let schedule = format!("optim.schedule={schedule}");
        let drawn = [DRAWN, "--trials", "4", "--trials-seed", "3", schedule.as_str()];
        let rungs = [&drawn[..], &["--min-steps", "6", "--eta", "2"]].concat();
        let said = sweep(&halved, &rungs);
        assert!(
            said.contains("4 arms of 6 steps, then 2 arms of 12 steps, then 1 arm of 24 steps"),
            "{said}"
        );
        let goes_on = |step: u64| said.matches(&format!("goes on from step {step} of")).count();
        match steps {
            [0, 0] => assert!(!said.contains("goes on from"), "{said}"),
            [second, third] => assert_eq!((goes_on(second), goes_on(third)), (2, 1), "{said}"),
        }
        let found = runs(&halved);
        assert_eq!(found.len(), 1, "only what was trained to the end is compared");
        sweep(&whole, &drawn);
        let all = runs(&whole);
        assert_eq!(all.len(), 4);
        let same = all.iter().find(|run| run.0 == found[0].0).unwrap();
        assert_eq!(
            (same, tensors(&halved, &found[0].2)),
            (&found[0], tensors(&whole, &same.2)),
            "{schedule}"
        );
        // The log of a run that went on has every step once.
        let log = read(&halved, &found[0].2.join("metrics.jsonl").to_string_lossy());
        let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let logged: Vec<u64> =
            events.filter(|e| e["event"] == "train").map(|e| e["step"].as_u64().unwrap()).collect();
        assert_eq!(logged, (1..=24).collect::<Vec<u64>>());
        // Nothing is left of what was kept for longer runs, and everything is found again.
        for run in fs::read_dir(halved.path("runs/cache")).unwrap().map(|entry| entry.unwrap().path()) {
            let steps = fs::read_dir(run)
                .unwrap()
                .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("step-"));
            assert!(steps.count() <= 1);
        }
        let report = read(&halved, "runs/sweeps/recipe/report.md");
        assert!(report.contains("| arm | 6 steps | 12 steps | 24 steps |"), "{report}");
        assert!(read(&halved, "runs/sweeps/recipe/report.html").contains("Rungs"));
        assert_eq!(sweep(&halved, &rungs).matches("reused from").count(), 7);
        assert_eq!(read(&halved, "runs/sweeps/recipe/report.md").lines().next(), report.lines().next());
        // A sweep of whole runs shares those of the last rung.
        assert_eq!(sweep(&halved, &drawn).matches("reused from").count(), 1);
    }
}

#[test]
fn drawn_points_are_kept_in_the_plan() {
    let [one, two] = [Project::new(), Project::new()];
    let args = [DRAWN, "model.hidden_act=silu,relu2", "--trials", "3", "--dry-run"];
    let arms = |project: &Project| {
        let plan = read(project, "runs/sweeps/recipe/plan.toml");
        plan.lines().filter(|line| line.starts_with("set = ")).map(str::to_string).collect::<Vec<_>>()
    };
    for project in [&one, &two] {
        sweep(project, &args);
    }
    assert_eq!((arms(&one).len(), arms(&one)), (3, arms(&two)));
    sweep(&two, &[&args[..], &["--trials-seed", "1"]].concat());
    assert_ne!(arms(&one), arms(&two));
    // The plan is an experiment: the same runs.
    sweep(&one, &args[..4]);
    let again = one.ok(&["sweep", "runs/sweeps/recipe/plan.toml", "--out", "again", "--threads", "2"]);
    assert_eq!(again.matches("reused from").count(), 3, "{again}");
}

/// A file draws what the command line draws: the same runs.
#[test]
fn a_file_draws_the_same_points() {
    let project = Project::new();
    let args = [DRAWN, "model.hidden_act=silu,relu2", "--trials", "2", "--trials-seed", "5"];
    sweep(&project, &args);
    let tiny = TINY.map(|key| format!("\"{}]", key.replacen('=', "\" = [", 1))).join("\n");
    let file = format!(
        "question = \"Which?\"\nbase = \"recipe.toml\"\nseeds = [1]\n[random]\ntrials = 2\nseed = 5\n{tiny}\n\
         \"optim.lr\" = \"log_uniform(1e-4, 1e-2)\"\n\"model.hidden_act\" = [\"silu\", \"relu2\"]\n"
    );
    fs::write(project.path("r.toml"), file).unwrap();
    for command in ["sweep", "ablate"] {
        let said = project.ok(&[command, "r.toml", "--threads", "2"]);
        assert_eq!(said.matches("reused from").count(), 2, "{command}: {said}");
        let plan = read(&project, "runs/ablations/r/plan.toml");
        assert!(plan.matches("[[arms]]").count() == 2 && !plan.contains("[random]"), "{plan}");
    }
}

#[test]
fn what_cannot_be_halved_or_drawn_is_refused() {
    let project = Project::new();
    let fails = |more: &[&str]| {
        let mut args = vec!["sweep", "recipe.toml"];
        args.extend(TINY);
        args.extend(more);
        project.fails(&args)
    };
    let message = fails(&[DRAWN]);
    assert!(message.contains("optim.lr has a distribution") && message.contains("--trials"), "{message}");
    let message = fails(&["optim.lr=log_normal(1,2)", "--trials", "3"]);
    assert!(
        message.contains("did you mean log_uniform?") || message.contains("expected one of"),
        "{message}"
    );
    let message = fails(&["optim.lr=1e-3,2e-3", "--trials", "3"]);
    assert!(message.contains("only 2 different points"), "{message}");
    let message = fails(&["optim.lr=1e-3,2e-3", "--min-steps", "20"]);
    assert!(message.contains("expected at most train.steps / eta = 24 / 3"), "{message}");
    let message = fails(&["optim.lr=1e-3,2e-3", "--min-steps", "6", "--halving"]);
    assert!(message.contains("cannot be used with"), "{message}");
    let message = fails(&["train.batch_size=1,2", "train.steps=24,48", "--min-steps", "6"]);
    assert!(message.contains("train.steps"), "{message}");
    let message = fails(&["optim.lr=1e-3,2e-3", "optim.warmup_steps=9", "--min-steps", "6"]);
    assert!(message.contains("for 8 steps") && message.contains("warmup_steps = 9"), "{message}");
}
