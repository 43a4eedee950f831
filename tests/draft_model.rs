//! A draft model through the binary: texts and log-probabilities stay the same, what it proposed is counted, one of another
//! vocabulary is refused.

mod project;
#[path = "project/served.rs"]
mod served;

use project::Project;
use serde_json::{Value, json};
use served::Served;

#[test]
fn a_draft_changes_nothing_but_the_passes() {
    let project = Project::new();
    for (out, seed) in [("runs/large", "run.seed=3"), ("runs/small", "run.seed=4")] {
        let out = format!("run.out={out}");
        project.ok(&["train", "recipe.toml", "--quiet", "--set", &out, "--set", seed]);
    }
    for name in ["large", "small"] {
        project.ok(&["export", &format!("runs/{name}"), "-o", &format!("{name}.gguf")]);
    }
    let generate = |temperature: &str, draft: &[&str]| -> Value {
        let args = ["generate", "large.gguf", "-p", "You may", "-n", "24", "--seed", "7", "--temperature"];
        let printed = project.ok(&[&args[..], &[temperature, "--json", "--logprobs", "2"], draft].concat());
        serde_json::from_str(&printed).unwrap()
    };
    for temperature in ["0", "0.9"] {
        let alone = generate(temperature, &[]);
        for draft in ["large.gguf", "small.gguf"] {
            let drafted = generate(temperature, &["--draft-model", draft, "--draft-tokens", "3"]);
            for key in ["text", "tokens", "logprobs", "finish_reason"] {
                assert!(!alone[key].is_null(), "{key}: {alone}");
                assert_eq!(drafted[key], alone[key], "{draft} at temperature {temperature}");
            }
        }
    }
    let error = project.fails(&["generate", "large.gguf", "-p", "You", "--draft-model", "absent.gguf"]);
    assert!(error.contains("--draft-model absent.gguf"), "{error}");
    let config = "vocab_size = 300\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
        num_attention_heads = 4\nnum_key_value_heads = 2\nhead_dim = 64\nmax_position_embeddings = 64\n\
        hidden_act = \"silu\"\nuse_sub_norm = true\n";
    std::fs::write(project.path("shape.toml"), config).unwrap();
    project.ok(&["synth", "shape.toml", "-o", "bytes.gguf"]);
    let error = project.fails(&["generate", "large.gguf", "-p", "You", "--draft-model", "bytes.gguf"]);
    assert!(error.contains("320") && error.contains("expected the same vocabulary"), "{error}");

    let drafting = Served::start(&project, &["large.gguf", "--draft-model", "large.gguf"]);
    let plain = Served::start(&project, &["large.gguf"]);
    let request =
        json!({"prompt": "You may", "max_tokens": 24, "seed": 7, "temperature": 0.9, "logprobs": 2});
    let answers = [&drafting, &plain].map(|service| service.post("/v1/completions", &request));
    assert_eq!((answers[0].0, &answers[0].1["choices"]), (200, &answers[1].1["choices"]));
    let model = answers[1].1["model"].as_str().unwrap();
    assert_eq!(drafting.text(model), plain.text(model));
}
