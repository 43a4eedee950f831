//! How many steps a shorter and a longer run of one recipe have in common, so that the longer one can go on from a
//! checkpoint of the shorter one to the same bits as from the beginning.

use toml::{Table, Value};

use crate::recipe::{CodeChoice, Recipe};
use crate::schedule::{decays, learning_rate};

/// Keys that may differ: names, the length, and what enters training by the learning rate and the decay of weights of
/// each step alone, which are compared themselves.
const COMPARED_BY_STEP: [(&str, &[&str]); 3] = [
    ("run", &["name", "out"]),
    ("train", &["steps", "save_every", "log_every", "keep_last"]),
    ("optim", &["decay_steps", "stage2_at", "stage2_lr", "min_lr_ratio", "weight_decay_until"]),
];

/// The steps, from the first on, after which both runs stand at the same bits: those for which learning rate and weight
/// decay are equal to the bit, if the recipes differ in their length only. 0 if they are no more than the warm-up
/// and the step at its peak, which every schedule has and which are not worth a checkpoint; if values that training sees depend on the share of the run that is done (soft codes, a
/// residual); or if the shorter run's last evaluation, which the longer one does not make, would count (`train.patience`,
/// `train.keep_best`).
///
/// # Errors
/// If a recipe cannot be written as TOML.
pub fn shared_steps(shorter: &Recipe, longer: &Recipe) -> Result<u64, crate::TrainError> {
    let shortest = shorter.train.steps.min(longer.train.steps);
    let by_share = matches!(shorter.quant.codes, CodeChoice::Soft | CodeChoice::Residual);
    if by_share || rest(shorter)? != rest(longer)? {
        return Ok(0);
    }
    let same = |step: &u64| {
        let of = |recipe: &Recipe| {
            let (optim, steps) = (&recipe.optim, recipe.train.steps);
            (learning_rate(optim, steps, *step).to_bits(), decays(optim, steps, *step))
        };
        of(shorter) == of(longer)
    };
    let shared = (0..shortest).take_while(same).count() as u64;
    let train = &shorter.train;
    let evaluations_count = train.patience.is_some() || train.keep_best;
    let evaluated_apart = shared == shortest && !shortest.is_multiple_of(train.eval_every);
    let useless = shared <= shorter.optim.warmup_steps + 1 || (evaluations_count && evaluated_apart);
    Ok(if useless { 0 } else { shared })
}

/// The resolved recipe without the keys that are compared step by step.
fn rest(recipe: &Recipe) -> Result<Table, crate::TrainError> {
    let mut table: Table = recipe
        .to_toml()?
        .parse()
        .map_err(|e| crate::TrainError::State(format!("the resolved recipe: {e}")))?;
    for (section, keys) in COMPARED_BY_STEP {
        if let Some(Value::Table(section)) = table.get_mut(section) {
            keys.iter().for_each(|key| drop(section.remove(*key)));
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const RECIPE: &str = "[model]\nhidden_size = 256\nintermediate_size = 256\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\n[data]\ntrain = \"a.txt\"\n[optim]\nwarmup_steps = 5\n\
                          [train]\neval_every = 10\n";

    fn recipe(steps: u64, set: &str) -> Recipe {
        let mut set: Vec<String> = set.split_whitespace().map(str::to_string).collect();
        set.push(format!("train.steps={steps}"));
        Recipe::from_toml(Path::new("r.toml"), RECIPE, &set).unwrap()
    }

    fn shared(set: &str) -> u64 {
        shared_steps(&recipe(40, set), &recipe(100, set)).unwrap()
    }

    #[test]
    fn runs_share_the_steps_whose_rates_are_the_same() {
        // A constant rate: all of the shorter run. Warm-up, stable, decay: up to its decay, a fifth of it by default;
        // the first step of the decay is at progress 0, with the peak's rate.
        assert_eq!(shared("optim.schedule=constant"), 40);
        assert_eq!(shared("optim.schedule=wsd"), 33);
        assert_eq!(shared("optim.schedule=wsd optim.decay_steps=30"), 11);
        // What decays over the whole run shares its warm-up alone.
        for schedule in ["cosine", "linear"] {
            assert_eq!(shared(&format!("optim.schedule={schedule}")), 0, "{schedule}");
        }
        // Weights that decay until the middle do so for 20 steps of one and 50 of the other.
        assert_eq!(shared("optim.schedule=constant optim.weight_decay_until=0.5"), 20);
    }

    #[test]
    fn what_else_depends_on_the_length_shares_nothing() {
        assert_eq!(shared("optim.schedule=constant quant.codes=soft"), 0);
        assert_eq!(shared("optim.schedule=constant train.patience=3"), 40);
        let of = |steps: u64, set: &str| recipe(steps, &format!("optim.schedule=constant {set}"));
        // An evaluation after step 45 is the shorter run's alone.
        let odd = |set: &str| shared_steps(&of(45, set), &of(100, set)).unwrap();
        assert_eq!([odd(""), odd("train.patience=3"), odd("train.keep_best=true")], [45, 0, 0]);
        for other in ["optim.lr=7e-4", "run.seed=9", "train.batch_size=3", "optim.warmup_steps=6"] {
            assert_eq!(shared_steps(&of(40, ""), &of(100, other)).unwrap(), 0, "{other}");
        }
    }
}
