//! The floating-point operations of a training step, counted by the products that it makes. Ternary products count as
//! the products of full-precision matrices of the same shape, so that models of both kinds are compared by the same work.

use tritforge_config::ModelConfig;

use crate::objective::Objective;
use crate::recipe::Recipe;

/// The operations of a step (a multiplication and an addition are two), for models with this configuration:
///
/// `3 · P · (2 · L · (d·(2q + 2k) + 3·d·f) + 2 · L · q · (T + 1) + 2 · d · V)`
///
/// with P positions a step (rows · accumulated micro-batches · T), samples of T positions, L blocks, hidden size d,
/// intermediate size f, widths q of all queries and k of all keys, V tokens. The terms: the seven projections; queries by
/// keys and weights by values, of which causal attention makes (T + 1) / 2 a position in the mean; the head. The forward
/// makes each product once and the backward twice, for the gradients of both factors. Not counted: what is not a product of
/// matrices (norms, softmax, activations, quantization, the optimizer), the embedding, which is looked up, and the
/// recomputation of `train.gradient_checkpointing`, which repeats work and adds none.
///
/// None for adapters, whose frozen weights have no gradients, and for objectives with a second model.
pub fn flops_per_step(recipe: &Recipe, config: &ModelConfig) -> Option<f64> {
    let plain = matches!(recipe.objective, Objective::CrossEntropy(_));
    if recipe.lora.is_some() || !plain {
        return None;
    }
    let length = recipe.data.seq_len as f64;
    let positions = (recipe.rows() * recipe.train.gradient_accumulation) as f64 * length;
    let [layers, d, f, q, k, vocabulary] = [
        config.num_hidden_layers,
        config.hidden_size,
        config.intermediate_size,
        config.q_size(),
        config.kv_size(),
        config.vocab_size,
    ]
    .map(|n| n as f64);
    let projections = 2.0 * layers * (d * (2.0 * q + 2.0 * k) + 3.0 * d * f);
    let attention = 2.0 * layers * q * (length + 1.0);
    let head = 2.0 * d * vocabulary;
    Some(3.0 * positions * (projections + attention + head))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const RECIPE: &str = "[model]\nhidden_size = 128\nintermediate_size = 256\nnum_hidden_layers = 2\n\
                          num_attention_heads = 4\nnum_key_value_heads = 2\n[data]\ntrain = \"a.txt\"\nseq_len = 8\n\
                          [train]\nsteps = 1\nbatch_size = 3\ngradient_accumulation = 2\n";

    fn recipe(set: &[&str]) -> Recipe {
        let set: Vec<String> = set.iter().map(|key| key.to_string()).collect();
        Recipe::from_toml(Path::new("r.toml"), RECIPE, &set).unwrap()
    }

    /// By hand, product by product: a matrix of m × k by one of k × n takes 2·m·k·n.
    #[test]
    fn every_product_is_counted() {
        let recipe = recipe(&[]);
        let config = recipe.model_config(300).unwrap();
        assert_eq!((config.q_size(), config.kv_size()), (128, 64));
        let product = |m: u64, k: u64, n: u64| 2 * m * k * n;
        let sample: u64 = {
            let t = 8;
            let projections = product(t, 128, 128) // q
                + product(t, 128, 64) // k
                + product(t, 128, 64) // v
                + product(t, 128, 128) // o
                + product(t, 128, 256) // gate
                + product(t, 128, 256) // up
                + product(t, 256, 128); // down
            // Position i (from 1) sees i keys: four heads of 32.
            let attention: u64 = (1..=t).map(|i| 4 * (product(1, 32, i) + product(1, i, 32))).sum();
            2 * (projections + attention) + product(t, 128, 300)
        };
        // Six samples; forward, gradients of inputs, gradients of weights.
        assert_eq!(flops_per_step(&recipe, &config), Some((6 * 3 * sample) as f64));
    }

    #[test]
    fn what_trains_otherwise_is_not_counted() {
        let of = |set: &[&str]| {
            let recipe = recipe(set);
            flops_per_step(&recipe, &recipe.model_config(300).unwrap())
        };
        assert!(of(&[]) < of(&["data.seq_len=9"]));
        assert_eq!(of(&["train.gradient_checkpointing=true"]), of(&[]));
        assert_eq!(of(&["quant.weights=none"]), of(&[]));
    }
}
