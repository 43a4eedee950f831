//! A full-precision model to a ternary one through the binary: quantization that sets in gradually, a
//! teacher, and the proof that what comes out is what was trained.

#[path = "project/on_base.rs"]
mod on_base;
mod project;
#[path = "project/refused.rs"]
mod refused;

use std::fs;

use on_base::on_base;
use project::Project;
use refused::refused;

fn recipe() -> String {
    on_base(
        "converted",
        "1e-3",
        "[quant]\nweights = \"absmean\"\nactivations = \"absmax\"\n[convert]\nschedule = \"linear\"\nsteps = 4\n",
    )
}

/// A project with a full-precision base and the recipe of its conversion.
fn project() -> Project {
    let project = Project::new();
    let plain = ["--set", "quant.weights=none", "--set", "quant.activations=none"];
    project.ok(&[&["train", "recipe.toml", "--quiet"], &plain[..]].concat());
    fs::write(project.path("convert.toml"), recipe()).unwrap();
    project
}

fn convert(project: &Project, out: &str, set: &[&str], flags: &[&str]) {
    let out = format!("run.out={out}");
    let set = set.iter().flat_map(|key| ["--set", *key]);
    let args: Vec<&str> =
        ["train", "convert.toml", "--quiet", "--set", &out].into_iter().chain(set).collect();
    project.ok(&[&args[..], flags].concat());
}

/// What a run's last weights are, in a word.
fn weights(project: &Project, run: &str) -> String {
    let manifest = fs::read(project.path(&format!("{run}/step-000008/manifest.json"))).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
    manifest["files"]["model.safetensors"]["sha256"].as_str().unwrap().to_string()
}

fn loss(project: &Project, run: &str) -> f64 {
    let printed = project.ok(&["eval", run, "--text", "text.txt", "--tokens", "300", "--json"]);
    serde_json::from_str::<serde_json::Value>(&printed).unwrap()["loss"].as_f64().unwrap()
}

#[test]
fn a_converted_model_is_ternary_and_verified() {
    let project = project();
    for schedule in ["none", "linear", "exponential", "sigmoid"] {
        let (out, file) = (format!("runs/{schedule}"), format!("{schedule}.gguf"));
        convert(&project, &out, &[&format!("convert.schedule={schedule}"), "convert.order=layers"], &[]);
        project.ok(&["export", &out, "-o", &file, "--embeddings", "f32"]);
        let printed = project.ok(&["verify", &out, &file, "--text", "text.txt", "--bound", "0"]);
        assert!(printed.contains("verified"), "{printed}");
    }
    assert_ne!(weights(&project, "runs/none"), weights(&project, "runs/linear"));
}

#[test]
fn a_conversion_that_is_cut_in_the_middle_of_the_rise_goes_on_to_the_same_bits() {
    let project = project();
    convert(&project, "runs/whole", &["train.save_every=2"], &[]);
    convert(&project, "runs/parts", &["train.save_every=2", "train.keep_last=9"], &[]);
    for step in [4, 6, 8] {
        fs::remove_dir_all(project.path(&format!("runs/parts/step-00000{step}"))).unwrap();
    }
    convert(&project, "runs/parts", &["train.save_every=2", "train.keep_last=9"], &["--resume"]);
    assert_eq!(weights(&project, "runs/whole"), weights(&project, "runs/parts"));
}

#[test]
fn weights_and_inputs_set_in_apart_and_the_optimizer_begins_anew() {
    let project = project();
    let apart = ["convert.start=2", "convert.steps=2", "convert.input_start=4", "convert.input_steps=3"];
    let reset =
        [&apart[..], &["convert.optimizer=reset", "train.save_every=1", "train.keep_last=9"]].concat();
    convert(&project, "runs/kept", &apart, &[]);
    convert(&project, "runs/apart", &reset, &[]);
    let together = ["convert.start=2", "convert.steps=2"];
    convert(&project, "runs/together", &together, &[]);
    let ends = ["runs/kept", "runs/apart", "runs/together"].map(|run| weights(&project, run));
    assert!(ends[0] != ends[1] && ends[0] != ends[2], "{ends:?}");
    project.ok(&["export", "runs/apart", "-o", "apart.gguf", "--embeddings", "f32"]);
    let printed = project.ok(&["verify", "runs/apart", "apart.gguf", "--text", "text.txt", "--bound", "0"]);
    assert!(printed.contains("verified"), "{printed}");
    // Cut where the state has just begun anew, and one step later.
    for cut in [2, 3] {
        convert(&project, "runs/cut", &[&reset[..], &["run.seed=5"]].concat(), &["--overwrite"]);
        for step in cut + 1..=8 {
            fs::remove_dir_all(project.path(&format!("runs/cut/step-00000{step}"))).unwrap();
        }
        convert(&project, "runs/cut", &reset, &["--resume"]);
        assert_eq!(weights(&project, "runs/cut"), ends[1], "cut at step {cut}");
    }
}

#[test]
fn norms_before_the_outputs_can_be_put_in() {
    let project = Project::new();
    let plain = ["quant.weights=none", "quant.activations=none", "model.use_sub_norm=false"];
    let set: Vec<&str> = plain.iter().flat_map(|key| ["--set", *key]).collect();
    project.ok(&[&["train", "recipe.toml", "--quiet"], &set[..]].concat());
    fs::write(project.path("convert.toml"), recipe()).unwrap();
    convert(&project, "runs/normed", &["model.use_sub_norm=true"], &[]);
    let printed = project.ok(&["inspect", "runs/normed", "--tensors"]);
    assert!(printed.contains("ffn_sub_norm"), "{printed}");
}

#[test]
fn a_teacher_is_a_checkpoint_or_a_gguf_file_and_is_asked_once() {
    let project = project();
    project.ok(&["export", "runs/tiny", "-o", "teacher.gguf", "--format", "f32", "--embeddings", "f32"]);
    let common = ["distill.kl=2", "distill.temperature=2", "distill.top_k=20"];
    let with = |out: &str, more: &[&str]| convert(&project, out, &[&common[..], more].concat(), &[]);
    with("runs/checkpoint", &["distill.teacher=runs/tiny", "distill.cache=words"]);
    let cached = fs::read_dir(project.path("words")).unwrap().next().unwrap().unwrap().path();
    assert_eq!(fs::read_dir(&cached).unwrap().count(), 16, "one file a micro-batch");
    with("runs/gguf", &["distill.teacher=teacher.gguf"]);
    // The engine sums a full-precision model's products in another order: the student learns the same up to
    // that.
    let apart = loss(&project, "runs/checkpoint") - loss(&project, "runs/gguf");
    assert!(apart.abs() < 1e-3, "{apart}");
    with("runs/again", &["distill.teacher=runs/tiny", "distill.cache=words"]);
    assert_eq!(weights(&project, "runs/checkpoint"), weights(&project, "runs/again"));
    with("runs/alone", &["distill.teacher=runs/tiny", "distill.kl=0"]);
    convert(&project, "runs/untaught", &[], &[]);
    let apart = loss(&project, "runs/alone") - loss(&project, "runs/untaught");
    assert!(apart.abs() < 1e-3, "without the divergence it is plain training: {apart}");
    assert_ne!(weights(&project, "runs/checkpoint"), weights(&project, "runs/untaught"));

    let set =
        ["run.out=runs/other", "tokenizer.vocab_size=300", "quant.weights=none", "quant.activations=none"];
    let set: Vec<&str> = set.iter().flat_map(|key| ["--set", *key]).collect();
    project.ok(&[&["train", "recipe.toml", "--quiet"], &set[..]].concat());
    let refused = project.fails(&["train", "convert.toml", "--quiet", "--set", "distill.teacher=runs/other"]);
    assert!(refused.contains("300 tokens, but the student has 320"), "{refused}");
}

#[test]
fn sections_that_contradict_each_other_are_refused() {
    let project = project();
    let refused = |set: &[&str]| refused(&project, "convert.toml", set);
    assert!(refused(&["convert.steps=9"]).contains("only partly ternary"));
    assert!(refused(&["convert.input_steps=9"]).contains("only partly quantized"));
    assert!(
        refused(&["convert.input_start=1", "quant.activations=none"]).contains("no inputs are quantized")
    );
    assert!(refused(&["convert.optimizer=reset"]).contains("expected convert.start above 0"));
    assert!(refused(&["quant.weights=none"]).contains("quant.weights"));
    assert!(refused(&["lora.rank=4"]).contains("[lora]"));
    assert!(refused(&["distill.teacher=runs/tiny", "distill.ce=0", "distill.kl=0"]).contains(
        "at least one loss \
                                                                                          is needed"
    ));
    assert!(refused(&["distill.teacher=nowhere"]).contains("nowhere"));
}
