//! Experiments that are right, and what is said about those that are not.

use std::path::Path;

use super::*;

const SMALL: &str = r#"question = "Does it help?"
base = "r.toml"
seeds = [1, 2, 3]

[[arms]]
name = "with"

[[arms]]
name = "without"
set = { "model.use_sub_norm" = false, "quant.scale" = "twn", "optim.betas" = [0.9, 0.95] }
"#;

fn parse(text: &str) -> Result<Experiment, AblateError> {
    Experiment::from_toml(Path::new("dir/e.toml"), text)
}

fn faults(text: &str) -> Vec<String> {
    match parse(text) {
        Err(AblateError::Experiment(faults)) => faults.iter().map(ToString::to_string).collect(),
        other => panic!("expected faults, found {other:?}"),
    }
}

#[test]
fn defaults_are_filled_in() {
    let e = parse(SMALL).unwrap();
    assert_eq!((e.metric, e.baseline, &e.seeds[..]), (Metric::BitsPerByte, 0, &[1, 2, 3][..]));
    assert_eq!(e.outputs.dir, Path::new("runs/ablations/e"));
    assert_eq!(e.outputs.runs, Path::new("runs/cache"));
    assert!(e.outputs.export && !e.outputs.engine_speed && e.outputs.checkpoints);
    assert_eq!((e.tune.as_ref(), e.budget, e.margin), (None, None, None));
    let set: Vec<String> = e.arms[1].set.iter().map(Setting::text).collect();
    assert_eq!(set, ["model.use_sub_norm=false", "optim.betas=[0.9, 0.95]", "quant.scale=\"twn\""]);
    assert_eq!(e.points(1), [vec![]; 1]);
}

#[test]
fn everything_can_be_given() {
    let e = parse(
        &(SMALL.replace("seeds =", "metric = \"held_out_loss\"\nbaseline = \"without\"\nbudget = \"2 min\"\nmargin = 0.01\nseeds =")
            + "base = \"other.toml\"\ntune = { \"optim.lr\" = [1e-4, 3e-4] }\n[tune]\n\"optim.lr\" = [1e-3, 2e-3]\n\
               \"optim.kind, optim.weight_decay\" = [[\"adamw\", 0.1], [\"lion\", 1.0], [\"muon\", 0]]\nseeds = [101, 102]\n\
               [outputs]\ndir = \"d\"\nruns = \"r\"\nexport = false\nengine_speed = true\ncheckpoints = false\n"),
    )
    .unwrap();
    assert_eq!((e.metric, e.baseline, e.budget, e.margin), (Metric::HeldOutLoss, 1, Some(120.0), Some(0.01)));
    assert_eq!(e.arms[1].base.as_deref(), Some(Path::new("other.toml")));
    let tune = e.tune.as_ref().unwrap();
    assert_eq!((tune.points.len(), &tune.seeds[..]), (6, &[101, 102][..]));
    let text: Vec<String> = tune.points[1].iter().map(Setting::text).collect();
    assert_eq!(text, ["optim.kind=\"adamw\"", "optim.weight_decay=0.1", "optim.lr=0.002"]);
    assert_eq!((e.points(0).len(), e.points(1).len()), (6, 2));
    assert!(!e.outputs.export && e.outputs.engine_speed && !e.outputs.checkpoints);
}

#[test]
fn a_grid_multiplies_the_arms() {
    let grid =
        "[grid]\n\"optim.lr\" = [1e-3, 2e-3]\n\"train.batch_size, train.steps\" = [[4, 100], [8, 50]]\n";
    let e = parse(&(SMALL.to_string() + grid)).unwrap();
    assert_eq!(e.arms.len(), 8);
    assert_eq!(e.arms[1].name, "with, lr=0.001, batch_size=8, steps=50");
    let alone = SMALL.split("[[arms]]").next().unwrap().to_string() + grid;
    let e = parse(&alone).unwrap();
    assert_eq!(e.arms.len(), 4);
    assert_eq!(e.arms[0].name, "lr=0.001, batch_size=4, steps=100");
}

/// The same points as on the command line, in the order in which keys stand there.
#[test]
fn points_are_drawn_as_on_the_command_line() {
    let random = "[random]\ntrials = 6\nseed = 3\n\"optim.lr\" = \"log_uniform(1e-4, 1e-2)\"\n\
                  \"model.hidden_act\" = [\"silu\", \"relu2\"]\n\
                  \"data.seq_len, train.batch_size\" = [[32, 4], [64, 2]]\n\"train.steps\" = [9]\n";
    let alone = SMALL.split("[[arms]]").next().unwrap().to_string() + random;
    let e = parse(&alone).unwrap();
    let axes = [
        "optim.lr=log_uniform(1e-4,1e-2)",
        "model.hidden_act=silu,relu2",
        "data.seq_len,train.batch_size=(32,4),(64,2)",
        "train.steps=9",
    ]
    .map(str::to_string);
    let trials = Some(crate::Trials { count: 6, seed: 3 });
    let sweep = crate::of_recipe(Path::new("r.toml"), &axes, trials, 1, Metric::BitsPerByte).unwrap();
    assert_eq!((e.arms.len(), &e.arms), (6, &sweep.arms));
    assert!(e.arms[0].name.starts_with("lr=") && !e.arms[0].name.contains("steps="), "{}", e.arms[0].name);
    // Every arm with every point.
    let both = parse(&(SMALL.to_string() + random)).unwrap();
    assert_eq!(both.arms.len(), 12);
    assert_eq!(both.arms[7].name, format!("without, {}", e.arms[1].name));
    assert_eq!(both.arms[7].set.len(), 3 + 5);
    // A seed of 0 is that of the command line without one.
    let other = parse(&alone.replace("seed = 3\n", "")).unwrap();
    assert_ne!(other.arms, e.arms);
    assert_eq!(other.arms, parse(&alone.replace("seed = 3", "seed = 0")).unwrap().arms);
}

#[test]
fn faults_have_their_place_and_say_what_to_do() {
    let with = |from: &str, to: &str| {
        assert!(SMALL.contains(from), "{from}");
        faults(&SMALL.replace(from, to))
    };
    let table: toml::Table = include_str!("tests/faults.toml").parse().unwrap();
    for fault in table["fault"].as_array().unwrap() {
        let [from, to, expected] = ["replace", "by", "says"].map(|key| fault[key].as_str().unwrap());
        let found = with(from, to).join("\n");
        assert!(found.contains(expected), "{to}: {found}");
    }
    let after = |text: &str| faults(&(SMALL.to_string() + text)).join("\n");
    for (text, expected) in [
        ("[tune]\n\"optim.lr\" = [1e-3, 2e-3]\n", "tune.seed is missing"),
        ("[tune]\n\"optim.lr\" = [1e-3, 2e-3]\nseed = 2\n", "e.toml:13:8: tune.seed: 2 is among seeds"),
        ("[tune]\nseed = 101\n", "[tune]: expected a key with several values"),
        ("[tune]\n\"optim.lr\" = 3\nseed = 101\n", "tune.\"optim.lr\" = 3: expected an array of values"),
        ("[tune]\n\"optim.lr\" = [1, 1]\nseed = 101\n", "is given twice"),
        ("[grid]\n\"a.b, c.d\" = [[1, 2], [3]]\n", "expected an array of 2 values for each point"),
        ("tune = { \"optim.lr\" = [1, 2] }\n", "arms.tune of \"without\": expected [tune] with a seed"),
        ("[random]\n\"optim.lr\" = [1, 2]\n", "e.toml:11:2: random.trials is missing"),
        (
            "[random]\ntrials = 1\n",
            "e.toml:12:10: random.trials = 1: found an integer, expected an integer from 2 to 5000",
        ),
        ("[random]\ntrials = 9999\n\"optim.lr\" = [1, 2]\n", "random.trials = 9999"),
        ("[random]\ntrials = 4\n", "[random]: expected keys with distributions or lists"),
        (
            "[random]\ntrials = 4\n\"optim.lr\" = [1, 2]\n",
            "[random]: 4 trials: only 2 different points were found",
        ),
        (
            "[random]\ntrials = 2\n\"optim.lr\" = 3\n",
            "e.toml:13:14: random.\"optim.lr\" = 3: expected a distribution",
        ),
        (
            "[random]\ntrials = 2\n\"optim.lr\" = \"uniform(2, 1)\"\n",
            "uniform(2, 1)\": expected two numbers, the lower one first",
        ),
        ("[random]\ntrials = 2\n\"optim.lr\" = \"loguniform(1, 2)\"\n", "did you mean log_uniform?"),
        ("[random]\ntrials = 2\n\"run.seed\" = \"int_uniform(1, 9)\"\n", "seeds are those of the experiment"),
        ("[random]\ntrials = 2\n\"a.b, c.d\" = \"uniform(1, 2)\"\n", "expected \"section.key\""),
        ("[random]\ntrials = 2\nseed = -1\n\"optim.lr\" = [1, 2]\n", "random.seed = -1"),
        (
            "[grid]\n\"a.b\" = [1, 2]\n[random]\ntrials = 2\n\"optim.lr\" = [1, 2]\n",
            "[random] and [grid]: expected one",
        ),
        ("[rnadom]\ntrials = 2\n", "[rnadom]: unknown section; did you mean [random]?"),
        ("[outptus]\ndir = \"x\"\n", "[outptus]: unknown section; did you mean [outputs]?"),
        ("[optim]\nlr = 1\n", "keys of recipes go into arms"),
        ("[outputs]\nexport = 1\n", "outputs.export = 1: found an integer, expected true or false"),
    ] {
        let found = after(text);
        assert!(found.contains(expected), "{text}: {found}");
    }
    // More runs than memory holds, of a short text.
    let keys: String = (0..12).map(|i| format!("\"a.k{i}\" = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]\n")).collect();
    let found = after(&format!("[grid]\n{keys}"));
    assert!(found.contains("[grid]: 2000000000000 combinations: expected at most 10000"), "{found}");
    // All of them at once.
    let many = faults("question = 1\nseeds = 0.5\nnonsense = 2\n");
    assert!(many.len() >= 4, "{many:?}");
    assert!(faults("question = \"x\"\nbase = ").iter().any(|f| f.contains("not TOML")));
    assert!(faults(SMALL.split("[[arms]]").next().unwrap()).join("").contains("expected at least two"));
    assert!(faults("arms = 3\nquestion = \"q\"\nbase = \"b\"\nseeds = [1]\n").join("").contains("[[arms]]"));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let message = Experiment::load(Path::new("no/such.toml")).unwrap_err().to_string();
    assert!(message.contains("no/such.toml") && message.contains("read"), "{message}");
}
