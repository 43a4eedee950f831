//! Temperatures of soft codes that follow the Hessian (Hestia, arXiv 2601.20745): a matrix along whose weights the loss bends much is
//! sensitive, and its codes harden earlier.
//!
//! As the paper's code has it: χ is the trace of a matrix's block of the loss's Hessian, before the first step and before any
//! quantization; its score is `sigmoid((ln χ − μ)/σ)`, μ and σ being mean and standard deviation of ln χ over all matrices; its
//! temperature is multiplied by `exp(−α · score)`.
//!
//! There χ is estimated by products of the Hessian with random directions (Hutch++), here by gradients of labels that the model draws
//! ([`Decoder::gauss_newton_traces`]): the trace of the Gauss-Newton part, which is never negative, as its logarithm needs, and of
//! which one sample is off by about its mean or less. A sample `vᵀHv` of the whole scatters by 0.5 to 250 times its mean (28 matrices of a model
//! of 0.6 M parameters), and there are negative traces, for which the score has no meaning.

use std::collections::BTreeMap;

use tritforge_config::Projection;
use tritforge_kernels::CounterRng;
use tritforge_model::{Batch, Decoder, Workspace};

use crate::TrainError;
use crate::recipe::{CodeChoice, Recipe};
use crate::training_data::DataLoader;

/// Samples of the traces, each on a micro-batch of its own.
const SAMPLES: u64 = 16;
/// The least trace: what is less counts as this.
const LEAST: f64 = 1e-8;
/// Tells the seeds of the labels from all others.
const SEED: u64 = u64::from_be_bytes(*b"hessian ");

/// The score of each matrix, from 0 to 1, by the name of its weight.
pub(crate) type Scores = BTreeMap<String, f64>;

/// Whether a recipe's run needs the scores.
pub(crate) fn wanted(recipe: &Recipe) -> bool {
    recipe.quant.codes == CodeChoice::Soft && recipe.quant.hessian_alpha != 0.0
}

/// The scores of a model's matrices on the micro-batches to come. `masked` says whether segments do not see each other.
///
/// # Errors
/// If there is too little text, or a trace is not finite.
pub(crate) fn scores(
    recipe: &Recipe,
    model: &Decoder,
    batches: &mut DataLoader<'_>,
    masked: bool,
) -> Result<Scores, TrainError> {
    let mut workspace = Workspace::new(recipe.train.gradient_checkpointing);
    let seed = CounterRng::derive(recipe.run.seed, SEED);
    let mut traces = vec![0f64; model.config().num_hidden_layers * Projection::ALL.len()];
    for sample in 0..SAMPLES {
        let (samples, _) = batches.next_batch(recipe.train.batch_size)?;
        let segments: &[usize] = if masked { &samples.segments } else { &[] };
        let (ids, targets) = (&samples.inputs, &samples.targets);
        let batch = Batch { ids, targets, sequences: recipe.rows(), segments };
        let found = model.gauss_newton_traces(&mut workspace, &batch, CounterRng::derive(seed, sample))?;
        traces.iter_mut().zip(found).for_each(|(sum, trace)| *sum += trace / SAMPLES as f64);
    }
    if let Some(trace) = traces.iter().find(|trace| !trace.is_finite()) {
        return Err(TrainError::State(format!(
            "quant.hessian_alpha: the trace of a matrix is {trace}: the loss or its gradient overflows at the weights that the run \
             begins with"
        )));
    }
    Ok(names(model).zip(of_traces(&traces)).collect())
}

/// What the temperatures of a model's matrices are multiplied by, in their order; none where a recipe has no scores.
///
/// # Errors
/// If a matrix has no score.
pub(crate) fn factors(
    recipe: &Recipe,
    model: &Decoder,
    scores: Option<&Scores>,
) -> Result<Vec<f32>, TrainError> {
    let Some(scores) = scores.filter(|_| wanted(recipe)) else { return Ok(Vec::new()) };
    let of = |name: String| match scores.get(&name) {
        Some(score) => Ok((-recipe.quant.hessian_alpha * score).exp() as f32),
        None => Err(TrainError::State(format!("the checkpoint has no Hessian score of {name}"))),
    };
    names(model).map(of).collect()
}

/// The matrices with the least and the highest score, in a sentence.
pub(crate) fn described(scores: &Scores) -> String {
    let ends = |a: &(&String, &f64), b: &(&String, &f64)| a.1.total_cmp(b.1);
    match (scores.iter().min_by(ends), scores.iter().max_by(ends)) {
        (Some((low, least)), Some((high, most))) => {
            format!("Hessian: scores from {least:.2} ({low}) to {most:.2} ({high})")
        }
        _ => "Hessian: no matrices".to_string(),
    }
}

/// The names of all projections' weights, in their order.
fn names(model: &Decoder) -> impl Iterator<Item = String> + use<> {
    let layers = 0..model.config().num_hidden_layers;
    layers.flat_map(|layer| Projection::ALL.map(|projection| projection.hf_weight(layer)))
}

/// The scores of traces.
fn of_traces(traces: &[f64]) -> Vec<f64> {
    let logs: Vec<f64> = traces.iter().map(|trace| trace.max(LEAST).ln()).collect();
    let mean = logs.iter().sum::<f64>() / logs.len() as f64;
    let variance = logs.iter().map(|log| (log - mean).powi(2)).sum::<f64>() / logs.len() as f64;
    let score = |log: &f64| 1.0 / (1.0 + (-(log - mean) / (variance.sqrt() + LEAST)).exp());
    logs.iter().map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three traces a factor of e² apart: their logarithms are 2 apart, with a standard deviation of 2√(2/3).
    #[test]
    fn scores_are_logistic_in_the_logarithm() {
        let found = of_traces(&[1.0, 2f64.exp(), 4f64.exp()]);
        let outer = 1.0 / (1.0 + (-(1.5f64).sqrt()).exp());
        for (found, expected) in found.iter().zip([1.0 - outer, 0.5, outer]) {
            assert!((found - expected).abs() < 1e-7, "{found} {expected}");
        }
        // All alike, and what has no gradient at all.
        assert_eq!(of_traces(&[3.0; 4]), [0.5; 4]);
        let found = of_traces(&[1e-12, 0.0, 1.0]);
        assert!(found[0] == found[1] && found[0] < 0.5 && found[2] > 0.5, "{found:?}");
    }
}
