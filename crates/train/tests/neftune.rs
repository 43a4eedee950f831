//! Recipes with noise on the embeddings: the same noise in micro-batches and in a run that goes on, none in evaluations.

mod small_run;

use std::path::Path;

use small_run::{parse, weights, write};
use tritforge_train::Summary;

const NOISE: &str = "train.neftune_noise_alpha=5";

/// A run's end, its weights, and the losses of its steps.
fn run(dir: &Path, set: &[&str], resume: bool) -> (Summary, Vec<u8>, Vec<f64>) {
    let (summary, steps) = small_run::run(dir, set, resume).unwrap();
    let losses = steps.iter().map(|step| step["loss"].as_f64().unwrap()).collect();
    let weights = weights(&summary);
    (summary, weights, losses)
}

#[test]
fn a_run_resumes_to_the_same_bits_and_without_noise_to_others() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let go = |set: &[&str], resume| run(dir.path(), &[&[NOISE], set].concat(), resume);
    let (_, whole, losses) = go(&[], false);
    assert!(go(&["run.seed=1"], false).2[0] != losses[0]);
    go(&["train.steps=2"], false);
    assert!(go(&[], true).1 == whole);
    // It may change from a checkpoint on.
    go(&["train.steps=2"], false);
    let (_, other, changed) = go(&["train.neftune_noise_alpha=10"], true);
    assert!(other != whole && changed[..2] == losses[..2] && changed[2] != losses[2]);
}

#[test]
fn evaluations_have_no_noise_and_micro_batches_have_that_of_the_step() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    for packing in ["masked", "documents"] {
        let packing = format!("data.packing={packing}");
        // The rate is too small for the weights to move by a bit that matters.
        let still = ["optim.lr=1e-30", "optim.weight_decay=0", &packing];
        let (plain, _, clean) = run(dir.path(), &still, false);
        let noise = [&still[..], &[NOISE]].concat();
        let (found, _, noisy) = run(dir.path(), &noise, false);
        assert_eq!((found.held_out_loss, found.bits_per_byte), (plain.held_out_loss, plain.bits_per_byte));
        assert!(noisy.iter().zip(&clean).all(|(a, b)| (a - b).abs() > 1e-6), "{noisy:?} {clean:?}");
        for (size, accumulation) in [(1, 4), (4, 1)] {
            let size = format!("train.batch_size={size}");
            let accumulation = format!("train.gradient_accumulation={accumulation}");
            let (_, _, same) = run(dir.path(), &[&noise[..], &[&size, &accumulation]].concat(), false);
            // The sums of the rows in another order.
            assert!(same.iter().zip(&noisy).all(|(a, b)| (a - b).abs() < 1e-9), "{same:?} {noisy:?}");
        }
    }
}

#[test]
fn what_has_no_noise_is_refused() {
    for (set, message) in [
        ("train.neftune_noise_alpha=0", "train.neftune_noise_alpha = 0: expected a number above 0"),
        ("train.engine=candle", "train.neftune_noise_alpha contradicts train.engine = \"candle\""),
        ("orpo.beta=0.1", "train.neftune_noise_alpha contradicts [orpo]"),
    ] {
        let found = parse(Path::new("dir"), &[NOISE, set]).unwrap_err().to_string();
        assert!(found.contains(message), "{set}: {found}");
    }
}
