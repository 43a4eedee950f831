//! What a run begins with, as digests, so that it can be told before two runs start whether they are a pair: whether the
//! same seed gives both the same initial weights and the same samples in the same order.

use std::collections::BTreeMap;

use tritforge_data::{Batch, Batches};

use crate::prepare::Prepared;
use crate::recipe::Recipe;
use crate::{TrainError, identity, init};

/// Samples from the beginning of a run that are compared: the order of all others follows from the same seed and the
/// same data.
const SAMPLES: usize = 32;

/// What a run begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beginning {
    /// The initial value of every parameter, by name.
    pub weights: BTreeMap<String, TensorPrint>,
    /// SHA-256 of the first samples: ids, targets, boundaries of documents.
    pub samples: String,
    /// Fingerprint of training and held-out tokens.
    pub data: String,
}

/// A tensor, as far as it is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorPrint {
    /// Its shape.
    pub shape: Vec<usize>,
    /// SHA-256 of its values, f32 in little-endian order.
    pub digest: String,
}

/// Finds out what a run of the recipe begins with. The model is made and dropped again.
///
/// # Errors
/// If the recipe describes no possible model, its base cannot be read, or there is too little data.
pub fn beginning(recipe: &Recipe, prepared: &Prepared) -> Result<Beginning, TrainError> {
    let config = recipe.model_config(prepared.tokenizer.vocab_size())?;
    let model = init::model(recipe, &config)?;
    let print = |values: &[f32]| {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        identity::of_bytes(&bytes)
    };
    let weights = model.parameters().iter().map(|parameter| {
        let (shape, digest) = (parameter.tensor.dims().to_vec(), print(&parameter.tensor.read()));
        (parameter.name.clone(), TensorPrint { shape, digest })
    });
    let weights = weights.collect();
    let mut batches = prepared.data.batches(recipe, Batches::start(recipe.order_seed()))?;
    let mut bytes = Vec::new();
    for _ in 0..SAMPLES {
        // One by one: which samples come next does not depend on the size of a batch.
        let (Batch { inputs, targets, segments }, _) = batches.next_batch(1)?;
        let numbers = inputs.into_iter().chain(targets).chain(segments.into_iter().map(|at| at as u32));
        bytes.extend(numbers.flat_map(u32::to_le_bytes));
    }
    Ok(Beginning { weights, samples: identity::of_bytes(&bytes), data: prepared.fingerprint.clone() })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tritforge_report::Silent;

    use super::*;
    use crate::prepare;

    const RECIPE: &str = "[model]\nhidden_size = 64\nintermediate_size = 64\nnum_hidden_layers = 1\n\
                          num_attention_heads = 2\n[tokenizer]\nkind = \"characters\"\n[data]\n\
                          train = [\"src/beginning.rs\"]\nseq_len = 16\n[quant]\nweights = \"none\"\n\
                          activations = \"none\"\n[train]\nsteps = 1\n";

    fn of(set: &[&str]) -> Beginning {
        let dir = tempfile::tempdir().unwrap();
        let out = format!("run.out={:?}", dir.path().to_str().unwrap());
        let set: Vec<String> = set.iter().map(ToString::to_string).chain([out]).collect();
        let recipe = Recipe::from_toml(Path::new("r.toml"), RECIPE, &set).unwrap();
        beginning(&recipe, &prepare(&recipe, &Silent).unwrap()).unwrap()
    }

    /// Each seed decides what it is the seed of, and by default all are `run.seed`.
    #[test]
    fn seeds_are_apart() {
        let one = of(&["run.seed=1"]);
        assert_eq!(one, of(&["run.seed=1", "data.order_seed=1", "data.split_seed=1"]));
        let other_order = of(&["run.seed=1", "data.order_seed=2"]);
        assert_eq!(one.weights, other_order.weights);
        assert_ne!(one.samples, other_order.samples);
        let other_weights = of(&["run.seed=2", "data.order_seed=1"]);
        assert_eq!(one.samples, other_weights.samples);
        assert_ne!(one.weights, other_weights.weights);
        // A text cut at one place has no seed in it.
        assert_eq!(one.data, of(&["run.seed=3"]).data);
    }

    #[test]
    fn another_batch_takes_the_same_samples_and_norms_leave_the_matrices_as_they_are() {
        let one = of(&["train.batch_size=1"]);
        assert_eq!(one.samples, of(&["train.batch_size=7"]).samples);
        let without = of(&["model.use_sub_norm=false"]);
        assert!(without.weights.len() < one.weights.len());
        assert!(without.weights.iter().all(|(name, print)| one.weights[name] == *print));
        let wider = of(&["model.intermediate_size=128"]);
        assert!(wider.weights.iter().any(|(name, print)| one.weights[name].shape != print.shape));
    }
}
