//! A run of a few steps of a project's recipe, and the proof that a file is what was trained.

use crate::project::Project;

/// Trains six steps into the run `out`, with these keys.
pub(crate) fn train(project: &Project, out: &str, set: &[&str]) {
    let out = format!("run.out={out}");
    let set = set.iter().copied().chain([out.as_str(), "train.steps=6"]).flat_map(|key| ["--set", key]);
    let args: Vec<&str> = ["train", "recipe.toml", "--quiet"].into_iter().chain(set).collect();
    project.ok(&args);
}

/// Expects codes, scales, activations, sums and logits of a model and a file to be the same bits.
pub(crate) fn verified(project: &Project, reference: &str, file: &str) {
    let printed = project.ok(&["verify", reference, file, "--text", "text.txt", "--bound", "0"]);
    assert!(printed.contains("verified") && !printed.contains("NOT"), "{printed}");
}
