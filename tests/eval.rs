//! Tasks through the binary: a checkpoint and its file give the same answers; faults are named before the
//! model is loaded.

mod project;

use std::fs;

use project::Project;

const PIQA: &str = r#"{"goal":"keep the work","sol1":"copy it","sol2":"distribute the Work","label":1}
{"goal":"make a licence","sol1":"grant rights","sol2":"sue","label":0}
{"goal":"give notice","sol1":"in writing","sol2":"not","label":0}
"#;
const GSM8K: &str = "{\"question\":\"1 + 1?\",\"answer\":\"#### 2\"}\n";

#[test]
fn a_checkpoint_and_its_file_answer_alike() {
    let project = Project::new();
    project.ok(&["train", "recipe.toml", "--quiet"]);
    project.ok(&["export", "runs/tiny", "-o", "tiny.gguf", "--embeddings", "f32"]);
    fs::create_dir_all(project.path("sets/piqa")).unwrap();
    fs::write(project.path("sets/piqa/validation.jsonl"), PIQA).unwrap();
    fs::write(project.path("sets/gsm8k.jsonl"), GSM8K).unwrap();
    let ask = |model: &str, samples: &str| {
        let args = ["eval", model, "--tasks", "piqa,gsm8k", "--data", "sets", "--max-tokens", "12"];
        let more = ["--json", "--samples", samples, "--output", "result.json"];
        let printed = project.ok(&[&args[..], &more].concat());
        assert_eq!(fs::read_to_string(project.path("result.json")).unwrap(), printed);
        let json: serde_json::Value = serde_json::from_str(&printed).unwrap();
        (json["results"].clone(), fs::read_to_string(project.path(samples)).unwrap())
    };
    let (checkpoint, file) = (ask("runs/tiny", "a.jsonl"), ask("tiny.gguf", "b.jsonl"));
    assert_eq!(checkpoint, file);
    assert_eq!(checkpoint.0["piqa"]["samples"], 3);
    assert_eq!(checkpoint.1.lines().count(), 4);

    let args =
        ["eval", "tiny.gguf", "--tasks", "piqa", "--data", "sets", "--limit", "2", "--num-fewshot", "1"];
    let train = ["--fewshot-file", "piqa=sets/piqa/validation.jsonl"];
    let printed = project.ok(&[&args[..], &train].concat());
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..4], ["task", "shots", "metric", "value"], "{printed}");
    assert_eq!((rows[1][..3].to_vec(), rows[1][5]), (vec!["piqa", "1", "acc"], "2"), "{printed}");

    let second_half =
        ["--text", "text.txt", "--score", "second-half", "--window", "32", "--tokens", "60", "--json"];
    let score = |model: &str| project.ok(&[&["eval", model], &second_half[..]].concat());
    assert_eq!(score("runs/tiny"), score("tiny.gguf"));

    // What a rounded cache costs: f32 is the default, f16 and q8_0 are near and not the same.
    let loss = |kv: &str| {
        let printed = project.ok(&[&["eval", "tiny.gguf", "--kv", kv], &second_half[..]].concat());
        serde_json::from_str::<serde_json::Value>(&printed).unwrap()["loss"].as_f64().unwrap()
    };
    let [exact, half, codes] = ["f32", "f16", "q8_0"].map(loss);
    assert!(half != exact && (half - exact).abs() < 0.01, "{half} {exact}");
    assert!(codes != exact && codes != half && (codes - exact).abs() < 0.05, "{codes} {exact}");
    let stderr = project.fails(&[&["eval", "runs/tiny", "--kv", "f16"], &second_half[..]].concat());
    assert!(stderr.contains("kv = f16: a checkpoint"), "{stderr}");
}

#[test]
fn faults_are_named_before_the_model_is_loaded() {
    let project = Project::new();
    fs::write(project.path("p.jsonl"), PIQA).unwrap();
    for (args, expected) in [
        (&["--tasks", "piqa"][..], "--task-file piqa=FILE"),
        (&["--tasks", "nothing", "--data", "."], "no task \"nothing\": expected one of arc_easy"),
        (
            &["--tasks", "piqa", "--data", "."],
            "no file for the task piqa: expected piqa.jsonl or piqa/test.jsonl",
        ),
        (&["--tasks", "piqa", "--task-file", "piqa=none.jsonl"], "none.jsonl: cannot open"),
        (&["--tasks", "piqa", "--task-file", "piqa=p.jsonl", "--task-file", "x=p.jsonl"], "\"x\""),
        (&["--tasks", "piqa", "--task-file", "p.jsonl"], "expected TASK=FILE"),
        (&["--tasks", "piqa", "--text", "p.jsonl"], "cannot be used with"),
        (&[], "--text"),
    ] {
        let stderr = project.fails(&[&["eval", "model.gguf"], args].concat());
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}
