//! Recipes with options of the cross-entropy: on packed samples with masks, on ternary weights, resumed.

mod small_run;

use std::path::Path;

use small_run::{parse, run, weights, write};
use tritforge_train::recipe::{CrossEntropy, Objective, Recipe, TargetLoss, json_schema};

#[test]
fn the_section_is_read_written_and_checked() {
    let dir = Path::new("dir");
    let of = |set: &[&str]| parse(dir, set).unwrap();
    let (plain, dft) = (of(&[]), of(&["cross_entropy.loss=dft", "cross_entropy.z_loss=1e-4"]));
    assert_eq!(plain.objective, Objective::CrossEntropy(CrossEntropy::default()));
    let expected = CrossEntropy { loss: TargetLoss::Dft, label_smoothing: 0.0, z_loss: 1e-4 };
    assert_eq!(dft.objective, Objective::CrossEntropy(expected));
    let written = dft.to_toml().unwrap();
    assert_eq!(Recipe::from_toml(Path::new("r.toml"), &written, &[]).unwrap(), dft);
    // The defaults, given or not, are the same recipe.
    assert_eq!(of(&["cross_entropy.z_loss=0"]).to_toml().unwrap(), plain.to_toml().unwrap());
    for (set, message) in [
        (&["cross_entropy.label_smoothing=1"][..], "cross_entropy.label_smoothing = 1: expected a number"),
        (&["cross_entropy.z_loss=-1"], "cross_entropy.z_loss = -1: expected a number from 0 to 1"),
        (&["cross_entropy.loss=sft"], "cross_entropy.loss = sft: expected \"nll\" or \"dft\""),
        (&["cross_entropy.zloss=0"], "cross_entropy.zloss: unknown key; did you mean cross_entropy.z_loss?"),
        (&["cross_entropy.loss=dft", "cross_entropy.label_smoothing=0.1"], "contradicts cross_entropy.loss"),
        (
            &["cross_entropy.z_loss=0.1", "orpo.beta=0.1"],
            "[cross_entropy] contradicts [orpo]: a run has one objective",
        ),
        (
            &["cross_entropy.z_loss=0.1", "train.engine=candle"],
            "train.engine = \"candle\" contradicts [cross_entropy]: expected \"fused\"",
        ),
    ] {
        let found = parse(dir, set).unwrap_err().to_string();
        assert!(found.contains(message), "{set:?}: {found}");
    }
    assert!(json_schema()["properties"]["cross_entropy"]["properties"]["label_smoothing"].is_object());
}

#[test]
fn the_loss_has_all_terms_and_what_is_held_out_has_none() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    for packing in ["masked", "documents"] {
        let packing = format!("data.packing={packing}");
        // The rate is too small for the weights to move by a bit that matters.
        let still = ["optim.lr=1e-30", "optim.weight_decay=0", &packing];
        let go = |more: &[&str]| run(dir.path(), &[&still[..], more].concat(), false).unwrap();
        let (plain, steps) = go(&[]);
        assert!(steps.iter().all(|step| step["cross_entropy"].is_null()));
        for (set, above) in [
            (&["cross_entropy.z_loss=0.01"][..], true),
            (&["cross_entropy.loss=dft"], false),
            (&["cross_entropy.label_smoothing=0.1", "cross_entropy.z_loss=0.01"], true),
        ] {
            let (found, with) = go(set);
            assert_eq!(
                (found.held_out_loss, found.bits_per_byte),
                (plain.held_out_loss, plain.bits_per_byte)
            );
            for (step, plain) in with.iter().zip(&steps) {
                let [loss, alone] = ["loss", "cross_entropy"].map(|name| step[name].as_f64().unwrap());
                assert!((alone - plain["loss"].as_f64().unwrap()).abs() < 1e-6, "{step} {plain}");
                assert!(loss > 0.0 && (loss > alone) == above, "{step}");
            }
        }
    }
}

#[test]
fn a_run_resumes_to_the_same_bits_and_may_go_on_with_other_terms() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path());
    let terms = ["cross_entropy.label_smoothing=0.1", "cross_entropy.z_loss=0.001"];
    let with = |more: &'static str| [&terms[..], &[more]].concat();
    let whole = weights(&run(dir.path(), &with("train.steps=4"), false).unwrap().0);
    let plain = weights(&run(dir.path(), &["train.steps=4"], false).unwrap().0);
    assert!(whole != plain);
    run(dir.path(), &with("train.steps=2"), false).unwrap();
    assert!(weights(&run(dir.path(), &with("train.steps=4"), true).unwrap().0) == whole);
    // From here on without, then with DFT; another objective is another run.
    let (_, steps) = run(dir.path(), &["train.steps=5"], true).unwrap();
    assert!(steps[3]["cross_entropy"].is_f64() && steps[4]["cross_entropy"].is_null());
    run(dir.path(), &["train.steps=6", "cross_entropy.loss=dft"], true).unwrap();
    let refused = run(dir.path(), &["train.steps=7", "distill.teacher=run"], true).unwrap_err().to_string();
    assert!(refused.contains("[distill] is given, but the run was started without it"), "{refused}");
}
