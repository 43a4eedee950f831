//! Every quantizer trains: a small model for 300 steps, whose loss falls and whose export is verified.

mod project;

use std::fs;

use project::Project;

const RECIPE: &str = r#"
[run]
name = "small"
seed = 3
[model]
hidden_size = 64
intermediate_size = 128
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 1
max_position_embeddings = 32
[tokenizer]
kind = "bpe"
vocab_size = 300
[data]
train = ["text.txt"]
split = "contiguous"
seq_len = 32
[optim]
lr = 3e-3
[train]
steps = 300
batch_size = 4
eval_every = 300
save_every = 300
log_every = 1
[sample]
tokens = 0
"#;

/// Trains, and verifies the export to the bit.
fn trains(project: &Project, name: &str, set: &[&str]) {
    let (out, file) = (format!("run.out=runs/{name}"), format!("{name}.gguf"));
    let set = set.iter().copied().chain([out.as_str()]).flat_map(|key| ["--set", key]);
    let args: Vec<&str> = ["train", "small.toml", "--quiet"].into_iter().chain(set).collect();
    project.ok(&args);
    let run = format!("runs/{name}");
    let metrics = fs::read_to_string(project.path(&format!("{run}/metrics.jsonl"))).unwrap();
    let losses: Vec<f64> = metrics
        .lines()
        .filter_map(|line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            (event["event"] == "train").then(|| event["loss"].as_f64().unwrap())
        })
        .collect();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    let (first, last) = (mean(&losses[..5]), mean(&losses[losses.len() - 20..]));
    println!("{name}: {first:.3} to {last:.3}");
    assert!(losses.len() == 300 && last < first - 0.5, "{name}: {first} to {last}");
    project.ok(&["export", &run, "-o", &file, "--format", "q2_0", "--embeddings", "f32"]);
    let printed = project.ok(&["verify", &run, &file, "--text", "text.txt", "--bound", "0"]);
    assert!(printed.contains("verified"), "{printed}");
}

fn project() -> Project {
    let project = Project::new();
    fs::write(project.path("small.toml"), RECIPE).unwrap();
    project
}

#[test]
fn every_quantizer_learns_and_verifies() {
    let project = project();
    for (name, set) in [
        ("absmean", &[][..]),
        ("absmedian", &["quant.scale=absmedian", "quant.ste=clip"]),
        ("twn", &["quant.scale=twn", "quant.granularity=row", "quant.ste=trust"]),
        ("rms", &["quant.scale=rms", "quant.granularity=64", "quant.ste=damp"]),
        ("least_squares", &["quant.scale=least_squares"]),
        ("threshold", &["quant.scale=threshold", "quant.threshold=0.4"]),
        ("binary", &["quant.scale=binary"]),
        ("sherry", &["quant.scale=sherry", "quant.granularity=64"]),
        ("sparse", &["quant.sparsity=2:4"]),
        ("lsq", &["quant.scale=lsq"]),
        ("seq", &["quant.scale=seq", "quant.granularity=row"]),
        ("pull", &["quant.pull=1"]),
        ("stochastic", &["quant.codes=stochastic"]),
        ("soft", &["quant.codes=soft"]),
        ("hestia", &["quant.codes=soft", "quant.hessian_alpha=0.4"]),
        ("arenas", &["quant.codes=residual", "quant.scale=sherry"]),
        ("dqt", &["quant.scale=dqt", "optim.lr=3e-4"]),
        ("tequila", &["quant.dead_zone_bias=0.001", "model.norm=pre"]),
    ] {
        trains(&project, name, set);
    }
}

/// Weights of 2, 3 or 4 bits do not exist: who asks for them is told why, and what there is.
#[test]
fn bits_that_no_kernel_multiplies_are_refused_with_the_reason() {
    let project = project();
    for set in ["quant.scale=int4", "quant.weights=int2", "quant.weights=3bit", "quant.bits=3"] {
        let error = project.fails(&["train", "small.toml", "--quiet", "--set", set]);
        let key = set.split('=').next().unwrap();
        assert!(error.contains(key) && error.contains("the kernels multiply codes -1, 0 and 1"), "{error}");
        assert!(error.contains("quant.scale = \"binary\""), "{error}");
    }
    let error = project.fails(&["train", "small.toml", "--quiet", "--set", "quant.scale=median"]);
    assert!(error.contains("\"binary\"") && error.contains("\"seq\""), "{error}");
}

/// All quantizers with all granularities, sparsities, estimators and optimizers that go together: minutes.
#[test]
#[ignore = "minutes: cargo test --release --workspace --test quantizers -- --ignored"]
fn every_combination_learns_and_verifies() {
    let project = project();
    let scales = [
        "absmean",
        "absmedian",
        "twn",
        "rms",
        "least_squares",
        "threshold",
        "binary",
        "sherry",
        "lsq",
        "seq",
    ];
    for scale in scales {
        for granularity in ["tensor", "row", "64"] {
            for (extra, set) in [
                ("plain", &[][..]),
                ("sparse", &["quant.sparsity=3:4"]),
                ("pull", &["quant.pull=0.5"]),
                ("muon", &["optim.kind=muon"]),
                ("trust", &["quant.ste=trust"]),
                ("stochastic", &["quant.codes=stochastic"]),
                ("soft", &["quant.codes=soft"]),
                ("hestia", &["quant.codes=soft", "quant.hessian_alpha=0.4"]),
                ("residual", &["quant.codes=residual"]),
                ("tequila", &["quant.dead_zone_bias=0.01", "model.norm=pre"]),
            ] {
                let learned = ["lsq", "seq"].contains(&scale);
                let signs = ["binary", "sherry"].contains(&scale);
                let refused = learned
                    && ["trust", "stochastic", "soft", "hestia", "residual"].contains(&extra)
                    || signs && ["stochastic", "soft", "hestia"].contains(&extra)
                    || scale == "binary" && extra == "tequila";
                if refused {
                    continue;
                }
                let own = [format!("quant.scale={scale}"), format!("quant.granularity={granularity}")];
                let set: Vec<&str> = own.iter().map(String::as_str).chain(set.iter().copied()).collect();
                trains(&project, &format!("{scale}-{granularity}-{extra}"), &set);
            }
        }
    }
}
