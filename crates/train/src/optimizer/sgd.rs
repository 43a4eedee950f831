//! Plain gradient descent. No recipe needs it: tests add it in the way that CONTRIBUTING says, to show that this is all
//! it takes.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;

use super::algorithm::{Algorithm, Defaults, ParameterShape, StateTensor, Update};
use super::{CHUNK, Rule};
use crate::recipe::{Keys, Optim};

/// Stochastic gradient descent without momentum.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, JsonSchema)]
pub struct Sgd {
    /// Whether to go up the gradient.
    pub maximize: bool,
}

impl Algorithm for Sgd {
    fn read(keys: &mut Keys<'_>) -> Rule {
        Rule::Sgd(Self { maximize: keys.flag("maximize").unwrap_or_default() })
    }

    fn defaults(&self) -> Defaults {
        Defaults { lr: 0.25, weight_decay: 0.0, ..Defaults::default() }
    }

    fn check(&self, optim: &Optim, keys: &mut Keys<'_>) {
        if self.maximize && optim.weight_decay > 0.0 {
            keys.fault("maximize", "optim.maximize contradicts optim.weight_decay");
        }
    }

    fn state(&self, _: ParameterShape<'_>) -> Vec<StateTensor> {
        Vec::new()
    }

    fn step(&self, update: Update<'_>) -> candle_core::Result<()> {
        let Update { values, gradient, step, .. } = update;
        let keep = (1.0 - step.lr * step.weight_decay) as f32;
        let rate = (if self.maximize { -step.lr } else { step.lr } * step.gradient_scale) as f32;
        values.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).for_each(|(values, gradient)| {
            for (value, g) in values.iter_mut().zip(gradient) {
                *value = *value * keep - rate * g;
            }
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::optimizer::{OptimizerConfig, Step, StoredType};
    use crate::recipe::{Recipe, json_schema, markdown};
    use crate::{Optimizer, RunOptions, Silent, prepare, train};

    const RECIPE: &str = "[model]\nhidden_size = 32\nintermediate_size = 128\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\n[quant]\nweights = \"none\"\nactivations = \"none\"\n\
                          [tokenizer]\nkind = \"characters\"\n[data]\nseq_len = 8\n[train]\nsteps = 4\n\
                          batch_size = 2\n[sample]\ntokens = 0\n[optim]\nkind = \"plain-sgd\"\n";

    fn parse(dir: &Path, set: &[&str]) -> Result<Recipe, String> {
        let paths = [format!("data.train={}/a.txt", dir.display()), format!("run.out={}/run", dir.display())];
        let set: Vec<String> = set.iter().map(ToString::to_string).chain(paths).collect();
        Recipe::from_toml(Path::new("r.toml"), RECIPE, &set).map_err(|e| e.to_string())
    }

    #[test]
    fn a_recipe_and_its_reference_know_an_optimizer_by_its_line() {
        let dir = Path::new("dir");
        let recipe = parse(dir, &[]).unwrap();
        let optim = &recipe.optim;
        assert_eq!(
            (optim.rule, optim.lr, optim.weight_decay),
            (Rule::Sgd(Sgd { maximize: false }), 0.25, 0.0)
        );
        let written = recipe.to_toml().unwrap();
        assert!(written.contains("kind = \"plain-sgd\"\nmaximize = false\n"), "{written}");
        assert_eq!(Recipe::from_toml(Path::new("r.toml"), &written, &[]).unwrap(), recipe);
        for (set, message) in [
            (&["optim.maximize=1"][..], "optim.maximize = 1: found an integer, expected true or false"),
            (
                &["optim.maximize=true", "optim.weight_decay=1"],
                "optim.maximize contradicts optim.weight_decay",
            ),
            (&["optim.kind=adamw", "optim.maximize=true"], "only for optim.kind = \"plain-sgd\""),
            (&["optim.eps=1e-8"], "optim.kind = \"plain-sgd\" has no eps; leave it out"),
            (&["optim.kind=plain-sgb"], "did you mean \"plain-sgd\"?"),
        ] {
            let found = parse(dir, set).unwrap_err();
            assert!(found.contains(message), "{set:?}: {found}");
        }
        let keys = &json_schema()["properties"]["optim"]["properties"];
        assert!(keys["kind"]["enum"].as_array().unwrap().iter().any(|name| name == "plain-sgd"));
        let text = "For `\"plain-sgd\"`: whether to go up the gradient; by default false.";
        assert_eq!(keys["maximize"]["description"], text);
        let reference = markdown();
        assert!(reference.contains("`\"plain-sgd\"`: Stochastic gradient descent without momentum."));
        assert!(reference.contains("for `\"plain-sgd\"` 0.25"));
    }

    /// Trains, is interrupted, and goes on to the same weights; its checkpoints hold no state.
    #[test]
    fn a_run_and_its_checkpoints_know_an_optimizer_by_its_line() {
        let weights = |interrupted: bool| {
            let dir = tempfile::tempdir().unwrap();
            let quiet = RunOptions::default();
            fs::write(dir.path().join("a.txt"), "abcabcabdabcabcabd".repeat(40)).unwrap();
            if interrupted {
                let recipe =
                    parse(dir.path(), &["train.steps=2", "optim.schedule=constant", "optim.warmup_steps=0"]);
                let recipe = recipe.unwrap();
                train(&recipe, &prepare(&recipe, &Silent).unwrap(), &quiet).unwrap();
            }
            let recipe = parse(dir.path(), &["optim.schedule=constant", "optim.warmup_steps=0"]).unwrap();
            let options = RunOptions { resume: interrupted, ..quiet.clone() };
            let summary = train(&recipe, &prepare(&recipe, &Silent).unwrap(), &options).unwrap();
            let state = fs::read_to_string(summary.checkpoint.join("training.json")).unwrap();
            assert!(state.contains("plain-sgd with f32 state and f32 weights"), "{state}");
            let other = parse(dir.path(), &["optim.kind=adamw"]).unwrap();
            let options = RunOptions { resume: true, ..quiet.clone() };
            let refused =
                train(&other, &prepare(&other, &Silent).unwrap(), &options).unwrap_err().to_string();
            assert!(
                refused.contains("optim.kind is \"adamw\", but the run was started with \"plain-sgd\""),
                "{refused}"
            );
            fs::read(summary.checkpoint.join("model.safetensors")).unwrap()
        };
        assert!(weights(false) == weights(true));
    }

    #[test]
    fn values_move_against_the_gradient_by_the_rate() {
        let tensor = tritforge_model::Tensor::vector(vec![1.0, 2.0]);
        let group = tritforge_model::DecayGroup::Decay;
        let parameters = [tritforge_model::Parameter { name: "w".to_string(), tensor, group, frozen: false }];
        let rule = Rule::Sgd(Sgd::default());
        let config = OptimizerConfig { rule, state: StoredType::F32, master: StoredType::F32, seed: 0 };
        let mut optimizer = Optimizer::new(config, &parameters);
        let step = Step { lr: 0.5, weight_decay: 0.5, gradient_scale: 0.5, decays: true };
        optimizer.step(&parameters, &[Some(&[4.0, -4.0])], step).unwrap();
        assert_eq!(*parameters[0].tensor.read(), [-0.25, 2.5]);
    }
}
