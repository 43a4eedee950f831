//! A schedule that no recipe needs: tests add it in the way that CONTRIBUTING says, to show that this is all it takes.

use schemars::JsonSchema;
use serde::Serialize;

use super::{At, Run, Schedule, Shape};
use crate::recipe::{Keys, Optim};

/// The rate drops to its final value at a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Step {
    /// The step of the drop; by default the middle of the run.
    pub drop_at: u64,
}

impl Shape for Step {
    fn read(keys: &mut Keys<'_>, run: &Run) -> Schedule {
        Schedule::Step(Self { drop_at: keys.integer("drop_at", 0, u64::MAX).unwrap_or(run.steps / 2) })
    }

    fn check(&self, _: &Optim, steps: u64, keys: &mut Keys<'_>) {
        let at = self.drop_at;
        if at > steps {
            keys.fault("drop_at", format!("optim.drop_at = {at}: expected at most train.steps = {steps}"));
        }
    }

    fn rate(&self, at: &At) -> f64 {
        if at.step < self.drop_at { at.lr } else { at.lr * at.min_lr_ratio }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::learning_rate;
    use super::*;
    use crate::recipe::{Recipe, json_schema, markdown};

    fn parse(set: &[&str]) -> Result<Recipe, String> {
        let text = "[model]\nhidden_size = 256\nintermediate_size = 768\nnum_hidden_layers = 2\n\
                    num_attention_heads = 4\n[data]\ntrain = \"a.txt\"\n[train]\nsteps = 40\n";
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        Recipe::from_toml(Path::new("r.toml"), text, &set).map_err(|e| e.to_string())
    }

    #[test]
    fn a_schedule_is_known_everywhere_by_its_line() {
        let recipe = parse(&["optim.schedule=single-step"]).unwrap();
        assert_eq!(recipe.optim.schedule, Schedule::Step(Step { drop_at: 20 }));
        let written = recipe.to_toml().unwrap();
        assert!(written.contains("schedule = \"single-step\"\ndrop_at = 20\n"), "{written}");
        let recipe = parse(&["optim.schedule=single-step", "optim.drop_at=30", "optim.lr=1"]).unwrap();
        let rates = [10, 29, 30, 39].map(|step| learning_rate(&recipe.optim, 40, step));
        assert_eq!(rates, [1.0, 1.0, 0.1, 0.1]);
        for (set, message) in [
            (
                &["optim.schedule=single-step", "optim.drop_at=50"][..],
                "drop_at = 50: expected at most train.steps = 40",
            ),
            (&["optim.drop_at=5"], "optim.drop_at = 5: only for optim.schedule = \"single-step\""),
            (&["optim.drop_at=half"], "optim.drop_at = half: found a string"),
            (&["optim.schedule=single-stop"], "did you mean \"single-step\"?"),
        ] {
            let found = parse(set).unwrap_err();
            assert!(found.contains(message), "{set:?}: {found}");
        }
        let keys = &json_schema()["properties"]["optim"]["properties"];
        assert!(keys["schedule"]["enum"].as_array().unwrap().iter().any(|name| name == "single-step"));
        assert_eq!(keys["drop_at"]["type"], "integer");
        let text = "For `\"single-step\"`: the step of the drop; by default the middle of the run.";
        assert_eq!(keys["drop_at"]["description"], text);
        assert!(markdown().contains("`\"single-step\"`: the rate drops to its final value at a step."));
    }
}
