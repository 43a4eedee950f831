//! An objective that no recipe needs: tests add it in the way that CONTRIBUTING says, to show that this is all it takes.

use schemars::JsonSchema;
use serde::Serialize;

use super::log_probs::target_log_probs;
use super::{Criterion, LossFunction, Objective, Pass, RunStart};
use crate::TrainError;
use crate::recipe::{Range, Reader, Recipe};

/// Focal loss (arXiv 1708.02002): the cross-entropy of each target times `(1 − p)^γ`, p being its probability, so that
/// targets that are predicted well count less.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Focal {
    /// γ; by default 2. With 0 it is the cross-entropy.
    pub gamma: f64,
}

impl Criterion for Focal {
    fn read(r: &mut Reader) -> Option<Objective> {
        let gamma = r.number("focal", "gamma", Range::at_least(0.0).at_most(10.0));
        r.has_any("focal").then(|| Objective::Focal(Self { gamma: gamma.unwrap_or(2.0) }))
    }

    fn check(&self, recipe: &Recipe, r: &mut Reader) {
        if recipe.lora.as_ref().is_some_and(|lora| lora.dropout > 0.0) {
            r.fault("lora", "dropout", "lora.dropout contradicts [focal], which scores without dropout");
        }
    }

    fn extra_passes(&self) -> u32 {
        1
    }

    fn start(&self, run: &RunStart<'_>) -> Result<Box<dyn LossFunction>, TrainError> {
        run.check_targets()?;
        Ok(Box::new(FocalLoss { gamma: self.gamma }))
    }
}

#[derive(Debug)]
struct FocalLoss {
    gamma: f64,
}

impl FocalLoss {
    /// The loss of a target by its cross-entropy, and its derivative.
    fn of(&self, cross_entropy: f64) -> (f64, f64) {
        let (gamma, p) = (self.gamma, (-cross_entropy).exp());
        let factor = (1.0 - p).powf(gamma);
        let by_p = if p < 1.0 { gamma * (1.0 - p).powf(gamma - 1.0) } else { 0.0 };
        (factor * cross_entropy, factor + by_p * p * cross_entropy)
    }
}

impl LossFunction for FocalLoss {
    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, targets, gradients, .. } = pass;
        let each: Vec<f64> = target_log_probs(model, batch)?.iter().map(|p| -f64::from(*p)).collect();
        let (losses, weights): (Vec<f64>, Vec<f32>) =
            each.iter().map(|x| self.of(*x)).map(|(loss, weight)| (loss, weight as f32)).unzip();
        model.forward_backward_weighted(workspace, batch, &weights, targets as f32, gradients)?;
        Ok([losses, each].map(|terms| terms.iter().sum::<f64>() / targets as f64).to_vec())
    }

    fn metrics(&self, sums: &[f64]) -> Vec<(&'static str, f64)> {
        sums.get(1).map(|cross_entropy| ("cross_entropy", *cross_entropy)).into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, Workspace};

    use super::*;
    use crate::objective::differences::{assert_gradients, smooth};
    use crate::recipe::{json_schema, markdown};
    use crate::{RunOptions, Silent, prepare, train};

    const RECIPE: &str = "[model]\nhidden_size = 32\nintermediate_size = 128\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\n[quant]\nweights = \"none\"\nactivations = \"none\"\n\
                          [tokenizer]\nkind = \"characters\"\n[data]\nseq_len = 8\n[train]\nsteps = 4\n\
                          batch_size = 2\ngradient_accumulation = 2\nlog_every = 1\n[sample]\ntokens = 0\n\
                          [optim]\nschedule = \"constant\"\nwarmup_steps = 0\n";

    fn parse(dir: &Path, set: &[&str]) -> Result<Recipe, String> {
        let paths = [format!("data.train={}/a.txt", dir.display()), format!("run.out={}/run", dir.display())];
        let set: Vec<String> = set.iter().map(ToString::to_string).chain(paths).collect();
        Recipe::from_toml(Path::new("r.toml"), &format!("{RECIPE}[focal]\n"), &set).map_err(|e| e.to_string())
    }

    #[test]
    fn a_recipe_and_its_reference_know_an_objective_by_its_line() {
        let dir = Path::new("dir");
        let recipe = parse(dir, &[]).unwrap();
        assert_eq!(recipe.objective, Objective::Focal(Focal { gamma: 2.0 }));
        let written = recipe.to_toml().unwrap();
        assert!(written.contains("[focal]\ngamma = 2.0\n"), "{written}");
        assert_eq!(Recipe::from_toml(Path::new("r.toml"), &written, &[]).unwrap(), recipe);
        // A key alone is a section, and without any of it a recipe minimizes the cross-entropy.
        let of = |set: &[&str]| {
            let set: Vec<String> = ["data.train=a"].iter().chain(set).map(ToString::to_string).collect();
            Recipe::from_toml(Path::new("r.toml"), RECIPE, &set).unwrap()
        };
        assert_eq!(of(&["focal.gamma=1"]).objective, Objective::Focal(Focal { gamma: 1.0 }));
        assert!(of(&[]).objective.is_default() && !of(&[]).to_toml().unwrap().contains("cross_entropy"));
        for (set, message) in [
            (&["focal.gamma=-1"][..], "focal.gamma = -1: expected a number from 0 to 10"),
            (&["focal.gama=1"], "focal.gama: unknown key; did you mean focal.gamma?"),
            (&["focl.gamma=1"], "[focl]: unknown section; did you mean [focal]?"),
            (&["train.engine=candle"], "train.engine = \"candle\" contradicts [focal]"),
            (&["distill.teacher=t"], "[distill] contradicts [focal]: a run has one objective"),
            (&["lora.rank=2", "lora.dropout=0.5"], "lora.dropout contradicts [focal]"),
        ] {
            let found = parse(dir, set).unwrap_err();
            assert!(found.contains(message), "{set:?}: {found}");
        }
        let section = &json_schema()["properties"]["focal"];
        assert!(section["description"].as_str().unwrap().starts_with("Focal loss (arXiv 1708.02002)"));
        let gamma = serde_json::json!({
            "type": "number", "minimum": 0.0, "maximum": 10.0,
            "description": "γ; by default 2. With 0 it is the cross-entropy.",
        });
        assert_eq!(section["properties"]["gamma"], gamma);
        assert!(markdown().contains("## [focal]\n\nFocal loss"));
    }

    /// Trains, is interrupted, and goes on to the same weights.
    #[test]
    fn a_run_its_log_and_its_checkpoints_know_an_objective_by_its_line() {
        let run = |interrupted: bool| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("a.txt"), "abcabcabdabcabcabd".repeat(40)).unwrap();
            let go = |set: &[&str], resume: bool| {
                let recipe = parse(dir.path(), set).unwrap();
                let options = RunOptions { resume, ..RunOptions::default() };
                train(&recipe, &prepare(&recipe, &Silent).unwrap(), &options)
            };
            if interrupted {
                go(&["train.steps=2"], false).unwrap();
            }
            let summary = go(&[], interrupted).unwrap();
            let refused = go(&["focal.gamma=3"], true).unwrap_err().to_string();
            let message = "focal.gamma is 3.0, but the run was started with 2.0";
            assert!(refused.contains(message), "{refused}");
            let mut recipe = parse(dir.path(), &[]).unwrap();
            recipe.objective = Objective::default();
            let refused = crate::check_resume(&recipe).unwrap_err().to_string();
            assert!(refused.contains("[focal] is not given, but the run was started with it"), "{refused}");
            let log = fs::read_to_string(dir.path().join("run/metrics.jsonl")).unwrap();
            let steps: Vec<serde_json::Value> =
                log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let steps: Vec<_> = steps.iter().filter(|line| line["event"] == "train").collect();
            assert_eq!(steps.len(), 4);
            for step in steps {
                // Each target counts less than its cross-entropy.
                let [loss, whole] = ["loss", "cross_entropy"].map(|name| step[name].as_f64().unwrap());
                assert!(0.0 < loss && loss < whole, "{step}");
            }
            (fs::read(summary.checkpoint.join("model.safetensors")).unwrap(), summary.held_out_loss)
        };
        assert!(run(false) == run(true));
    }

    #[test]
    fn the_gradient_is_that_of_differences() {
        let config = smooth(19, 1);
        let model = Decoder::init(&config, 1).unwrap();
        let ids: Vec<u32> = (0..2 * 9u64).map(|i| (i * 2_654_435_761 % 19) as u32).collect();
        let target = |i: usize| if i % 9 == 8 { IGNORE_INDEX } else { ids[i + 1] };
        let targets: Vec<u32> = (0..ids.len()).map(target).collect();
        let batch = Batch { ids: &ids, targets: &targets, sequences: 2, segments: &[] };
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let found = FocalLoss { gamma: 1.5 }.forward_backward(Pass {
            model: &model,
            workspace: &mut workspace,
            batch: &batch,
            pairs: &[],
            step: 0,
            part: 0,
            targets: 16,
            samples: 2,
            gradients: &mut gradients,
        });
        // The definition, written out again.
        let loss = |model: &Decoder| {
            let logits = model.logits(&ids, 2, None).unwrap();
            let rows = logits.chunks_exact(19).zip(&targets).filter(|(_, target)| **target != IGNORE_INDEX);
            let terms = rows.map(|(row, target)| {
                let sum: f64 = row.iter().map(|z| f64::from(*z).exp()).sum();
                let p = f64::from(row[*target as usize]).exp() / sum;
                (1.0 - p).powf(1.5) * -p.ln()
            });
            terms.sum::<f64>() / 16.0
        };
        assert!((found.unwrap()[0] - loss(&model)).abs() < 1e-6);
        assert_gradients(&model, &gradients, 1e-2, [1e-2, 1e-4], loss);
    }
}
