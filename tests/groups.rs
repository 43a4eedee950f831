//! Groups of parameters with learning rates and weight decays of their own, and frozen ones, through the binary.

mod project;

use std::fs;

use project::Project;
use tritforge_checkpoint::{Checkpoint, MODEL};

/// The project's recipe with groups, with the tokenizer of `model.base`, which has to be given.
fn with_groups(project: &Project, groups: &str) -> String {
    let recipe = fs::read_to_string(project.path("recipe.toml")).unwrap();
    let recipe = recipe.replace("kind = \"bpe\"\nvocab_size = 320", "kind = \"base\"");
    fs::write(project.path("groups.toml"), recipe.replace("[train]\n", &format!("{groups}[train]\n")))
        .unwrap();
    "groups.toml".to_string()
}

fn group(pattern: &str, rest: &str) -> String {
    format!("[[optim.groups]]\npattern = '{pattern}'\n{rest}\n")
}

fn train<'a>(recipe: &'a str, set: &[&'a str]) -> Vec<&'a str> {
    let set = set.iter().flat_map(|key| ["--set", *key]);
    ["train", recipe, "--quiet"].into_iter().chain(set).collect()
}

/// A tensor of a checkpoint.
fn tensor(project: &Project, checkpoint: &str, name: &str, shape: &[usize]) -> Vec<f32> {
    let checkpoint = Checkpoint::open(&project.path(checkpoint)).unwrap();
    checkpoint.tensors(MODEL).unwrap().f32(name, shape).unwrap().into_owned()
}

#[test]
fn frozen_parameters_keep_every_bit_with_every_optimizer_and_engine() {
    let project = Project::new();
    project.ok(&train("recipe.toml", &["run.out=base", "train.steps=2", "optim.warmup_steps=1"]));
    let norm = |run: &str, layer: usize| {
        tensor(&project, run, &format!("model.layers.{layer}.input_layernorm.weight"), &[256])
    };
    let matrix = |run: &str, layer: usize| {
        tensor(&project, run, &format!("model.layers.{layer}.mlp.up_proj.weight"), &[256, 256])
    };
    let embedding = |run: &str| tensor(&project, run, "model.embed_tokens.weight", &[320, 256]);
    let base = "base/step-000002";
    let recipe = with_groups(&project, &group(r"embed_tokens|layers\.0\.", "freeze = true"));
    for (i, set) in [
        &["optim.kind=adamw"][..],
        &["optim.kind=lion", "ema.decay=0.9"],
        &["optim.kind=muon", "train.gradient_checkpointing=true"],
        &["train.engine=candle"],
    ]
    .into_iter()
    .enumerate()
    {
        let out = format!("runs/frozen-{i}");
        let run_out = format!("run.out={out}");
        let set = [set, &["model.base=base", run_out.as_str(), "train.steps=4"]].concat();
        project.ok(&train(&recipe, &set));
        let end = format!("{out}/step-000004");
        assert_eq!((norm(&end, 0), matrix(&end, 0)), (norm(base, 0), matrix(base, 0)), "{set:?}");
        assert_eq!(embedding(&end), embedding(base), "{set:?}");
        assert_ne!(norm(&end, 1), norm(base, 1), "{set:?}");
        assert_ne!(matrix(&end, 1), matrix(base, 1), "{set:?}");
    }
    // Both engines agree on what is trained, and a run that is resumed on every bit.
    let (fused, tape) = (matrix("runs/frozen-0/step-000004", 1), matrix("runs/frozen-3/step-000004", 1));
    let furthest = fused.iter().zip(&tape).map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
    assert!(furthest < 2e-3, "{furthest}");
    let part = ["model.base=base", "run.out=runs/part"];
    project.ok(&train(&recipe, &[&part[..], &["train.steps=4", "optim.warmup_steps=2"]].concat()));
    let whole = ["run.out=runs/whole", "train.steps=6", "optim.warmup_steps=2"];
    project.ok(&train(&recipe, &[&part[..1], &whole[..]].concat()));
    let resumed = [&part[..], &["train.steps=6", "optim.warmup_steps=2"]].concat();
    let mut resumed = train(&recipe, &resumed);
    resumed.push("--resume");
    // The rate of the first four steps depends on the length of the run: go on from the longer run's checkpoint.
    fs::remove_dir_all(project.path("runs/part")).unwrap();
    fs::create_dir(project.path("runs/part")).unwrap();
    copy(&project.path("runs/whole/step-000004"), &project.path("runs/part/step-000004"));
    project.ok(&resumed);
    for file in ["model.safetensors", "optimizer.safetensors"] {
        let read = |run: &str| fs::read(project.path(&format!("runs/{run}/step-000006/{file}"))).unwrap();
        assert!(read("whole") == read("part"), "{file}");
    }
    // What was frozen has no state: another group is told, not ignored.
    let thawed = with_groups(&project, &group(r"layers\.0\.", "freeze = true"));
    let mut args = train(&thawed, &part);
    args.push("--resume");
    let error = project.fails(&args);
    assert!(error.contains("no longer freezes model.embed_tokens.weight"), "{error}");
    // More may be frozen.
    let more = with_groups(&project, &group(r"embed_tokens|layers\.0\.|norm", "freeze = true"));
    let mut args = train(&more, &[&part[..], &["train.steps=8"]].concat());
    args.push("--resume");
    project.ok(&args);
    assert_eq!(norm("runs/part/step-000008", 1), norm("runs/part/step-000006", 1));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// AdamW moves a weight whose gradient keeps its sign by about the learning rate: after the first step by the rate itself.
#[test]
fn the_first_step_of_a_group_is_as_long_as_its_learning_rate() {
    let project = Project::new();
    let groups = group("q_proj", "lr = 0.25") + &group(r"layers\.0\.", "lr = 1e-3\nweight_decay = 0.0");
    let recipe = with_groups(&project, &groups);
    project.ok(&train("recipe.toml", &["run.out=base", "train.steps=1", "optim.warmup_steps=1"]));
    let common = ["model.base=base", "optim.warmup_steps=0", "optim.schedule=constant"];
    project.ok(&train(&recipe, &[&common[..], &["run.out=moved", "train.steps=1"]].concat()));
    let moved = |name: &str, rows: usize| {
        let at = |run: &str| tensor(&project, &format!("{run}/step-000001"), name, &[rows, 256]);
        let mut moves: Vec<f32> = at("base").iter().zip(at("moved")).map(|(a, b)| (a - b).abs()).collect();
        moves.sort_by(f32::total_cmp);
        moves[moves.len() / 2]
    };
    for (name, rows, rate) in [
        ("model.layers.0.self_attn.q_proj.weight", 256, 0.25),
        ("model.layers.0.self_attn.k_proj.weight", 128, 1e-3),
        ("model.layers.1.self_attn.k_proj.weight", 128, 2e-3),
    ] {
        let moved = moved(name, rows);
        assert!((moved / rate - 1.0).abs() < 0.05, "{name}: {moved} of {rate}");
    }
    let printed = project.ok(&["train", &recipe, "--dry-run", "--set", "model.base=base"]);
    assert!(printed.contains("optim.groups: 'q_proj': 131072 parameters in 2 tensors, lr 0.25"), "{printed}");
    assert!(printed.contains(", lr 0.001, weight decay 0\n"), "{printed}");
}

#[test]
fn groups_that_mean_nothing_are_refused() {
    let project = Project::new();
    project.ok(&train("recipe.toml", &["run.out=base", "train.steps=1", "optim.warmup_steps=1"]));
    // No names are made of blocks that no model has.
    let recipe = with_groups(&project, &group("norm", "lr = 1e-3"));
    let error =
        project.fails(&train(&recipe, &["tokenizer.kind=characters", "model.num_hidden_layers=268435456"]));
    assert!(error.contains("expected at most 16384 blocks"), "{error}");
    for (groups, expected) in [
        (group("q_porj", "lr = 1e-3"), "the nearest names are model.layers.0.self_attn.q_proj.weight"),
        (group("(", "lr = 1e-3"), "optim.groups.pattern = '(': expected a regular expression"),
        (group("norm", ""), "without any the group changes nothing"),
        (group("norm", "lr = 0"), "optim.groups.lr = 0: expected a number above 0"),
        (group("norm", "learning_rate = 1e-3"), "did you mean lr?"),
        (group("norm", "freeze = true\nlr = 1e-3"), "contradicts lr"),
        (group(".", "freeze = true"), "all parameters are frozen"),
        (group("proj", "lr = 1e-3") + &group("q_proj", "lr = 1e-2"), "earlier groups have all parameters"),
        ("[[optim.groups]]\nlr = 1e-3\n".to_string(), "optim.groups.pattern is missing"),
    ] {
        let recipe = with_groups(&project, &groups);
        let error = project.fails(&train(&recipe, &["model.base=base"]));
        assert!(error.contains(expected), "{groups}\n{error}");
        assert!(error.contains("groups.toml:"), "{error}");
    }
}
