//! Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): of two answers to a prompt the preferred one is to gain on
//! the other, compared with a reference model.
//!
//! The loss of a pair is `−ln σ(β((πc − πr) − (ρc − ρr)))` (eq. 7), π and ρ being the log-probabilities that the trained and the
//! reference model give to the chosen and the rejected answer. Its derivatives by πc and πr become the weights of the answers'
//! tokens in a backward pass.

use tritforge_nn::{Batch, Decoder, Gradients, Workspace};

use crate::TrainError;

/// The loss of one pair and its derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dpo {
    /// `−ln σ(β · margin)`.
    pub loss: f64,
    /// The derivative by the chosen answer's log-probability; that by the rejected one's is its negative.
    pub by_chosen: f64,
    /// By how much more than the reference the model prefers the chosen answer, in nats: `(πc − πr) − (ρc − ρr)`.
    pub margin: f64,
}

/// The loss of a pair: log-probabilities of the chosen and the rejected answer, by the model and by the reference.
pub fn dpo(policy: [f64; 2], reference: [f64; 2], beta: f64) -> Dpo {
    let margin = (policy[0] - policy[1]) - (reference[0] - reference[1]);
    let z = beta * margin;
    // −ln σ(z) = ln(1 + e^−z) and σ(−z), neither of which overflows.
    let small = (-z.abs()).exp();
    let loss = (-z).max(0.0) + small.ln_1p();
    let wrong = if z > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
    Dpo { loss, by_chosen: -beta * wrong, margin }
}

/// Σ ln p over the targets of each of a batch's sequences: the log-probabilities of answers whose prompts are ignored.
///
/// # Errors
/// If the batch does not fit the model.
pub fn sequence_log_probs(model: &Decoder, batch: &Batch<'_>) -> Result<Vec<f64>, TrainError> {
    let tokens = model.log_probs(batch)?;
    let length = tokens.len() / batch.sequences;
    Ok(tokens.chunks_exact(length).map(|own| own.iter().map(|p| f64::from(*p)).sum()).collect())
}

/// What a batch of pairs came to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Preferences {
    /// Σ loss over the normalizer.
    pub loss: f64,
    /// Pairs whose chosen answer the model prefers more than the reference does.
    pub right: usize,
    /// Σ margin, in nats.
    pub margin: f64,
}

/// Adds the gradients of `Σ loss / normalizer` over a batch of pairs to `gradients`; the normalizer is the number of pairs of the whole
/// optimizer step. Sequences stand in pairs, the chosen one first, `reference` has the log-probability of each
/// ([`sequence_log_probs`] of the reference model), and targets of prompts and padding are [`tritforge_nn::IGNORE_INDEX`].
///
/// # Errors
/// If sequences are not in pairs, there is not one number of the reference's for each, or the batch does not fit the model.
pub fn dpo_forward_backward(
    model: &Decoder,
    workspace: &mut Workspace,
    batch: &Batch<'_>,
    reference: &[f64],
    beta: f64,
    normalizer: f32,
    gradients: &mut Gradients,
) -> Result<Preferences, TrainError> {
    if !batch.sequences.is_multiple_of(2) || reference.len() != batch.sequences {
        return Err(TrainError::Preferences { sequences: batch.sequences, reference: reference.len() });
    }
    let policy = sequence_log_probs(model, batch)?;
    let length = batch.targets.len() / batch.sequences;
    let mut out = Preferences { loss: 0.0, right: 0, margin: 0.0 };
    let mut weights = vec![0f32; batch.targets.len()];
    let pairs = policy.chunks_exact(2).zip(reference.chunks_exact(2));
    for ((policy, reference), weights) in pairs.zip(weights.chunks_exact_mut(2 * length)) {
        let pair = dpo([policy[0], policy[1]], [reference[0], reference[1]], beta);
        out.loss += pair.loss / f64::from(normalizer);
        out.right += usize::from(pair.margin > 0.0);
        out.margin += pair.margin;
        // Cross-entropy is the negative log-probability: so is its weight the derivative.
        let (chosen, rejected) = weights.split_at_mut(length);
        chosen.fill(-pair.by_chosen as f32);
        rejected.fill(pair.by_chosen as f32);
    }
    model.forward_backward_weighted(workspace, batch, &weights, normalizer, gradients)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
    use tritforge_nn::IGNORE_INDEX;

    use super::*;

    #[test]
    fn the_derivatives_are_those_of_differences() {
        for (policy, reference, beta) in [
            ([-10.0, -12.0], [-11.0, -11.5], 0.1),
            ([-40.0, -3.0], [-20.0, -22.0], 0.5),
            ([-3.0, -40.0], [-20.0, -20.0], 1.0),
        ] {
            let loss = |chosen: f64, rejected: f64| dpo([chosen, rejected], reference, beta).loss;
            let [c, r] = policy;
            let found = dpo(policy, reference, beta);
            let h = 1e-4;
            let by_chosen = (loss(c + h, r) - loss(c - h, r)) / (2.0 * h);
            let by_rejected = (loss(c, r + h) - loss(c, r - h)) / (2.0 * h);
            assert!((found.by_chosen - by_chosen).abs() < 1e-7, "{found:?} {by_chosen}");
            assert!((found.by_chosen + by_rejected).abs() < 1e-7, "{found:?} {by_rejected}");
        }
        // −ln σ(0) = ln 2; far away the loss is linear or nothing, and finite.
        assert!((dpo([-5.0, -6.0], [-3.0, -4.0], 0.1).loss - std::f64::consts::LN_2).abs() < 1e-15);
        assert_eq!(dpo([-1e6, 0.0], [0.0, 0.0], 1.0).loss, 1e6);
        assert_eq!(dpo([0.0, -1e6], [0.0, 0.0], 1.0).loss, 0.0);
    }

    /// Two pairs of nine tokens; three of each are a prompt, and the last ones of some are padding.
    fn batch() -> (Vec<u32>, Vec<u32>) {
        let ids: Vec<u32> = (0..4 * 9u64).map(|i| (i * 2_654_435_761 % 37) as u32).collect();
        let target = |i: usize| match i % 9 {
            0..2 | 8 => IGNORE_INDEX,
            7 if i < 18 => IGNORE_INDEX,
            _ => ids[i + 1],
        };
        let targets = (0..ids.len()).map(target).collect();
        (ids, targets)
    }

    #[test]
    fn the_gradient_of_a_model_is_that_of_differences() {
        // Without rounding, whose gradient is another function's.
        let config = ModelConfig {
            vocab_size: 37,
            hidden_size: 24,
            intermediate_size: 32,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            num_key_value_heads: 1,
            head_dim: 12,
            max_position_embeddings: 16,
            initializer_range: 0.2,
            weights: WeightQuant::None,
            activations: ActivationQuant::None,
            ..ModelConfig::default()
        };
        let model = Decoder::init(&config, 1).unwrap();
        let (ids, targets) = batch();
        let batch = Batch { ids: &ids, targets: &targets, sequences: 4, segments: &[] };
        let reference = sequence_log_probs(&Decoder::init(&config, 2).unwrap(), &batch).unwrap();
        let (beta, pairs) = (0.3, 2.0);
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let found =
            dpo_forward_backward(&model, &mut workspace, &batch, &reference, beta, pairs, &mut gradients)
                .unwrap();
        let loss = |values: &std::collections::HashMap<String, Vec<f32>>| {
            let moved = Decoder::load(&config, |name, _| Ok(values[name].clone())).unwrap();
            let policy = sequence_log_probs(&moved, &batch).unwrap();
            let pair = |i: usize| dpo([policy[i], policy[i + 1]], [reference[i], reference[i + 1]], beta);
            (pair(0).loss + pair(2).loss) / f64::from(pairs)
        };
        let values = model.snapshot().unwrap();
        assert!((found.loss - loss(&values)).abs() < 1e-12);
        for (i, parameter) in model.parameters().iter().enumerate() {
            // Along the gradient the derivative is its length.
            let gradient = gradients.get(i).unwrap();
            let size = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            assert!(size > 0.0, "{}", parameter.name);
            let along = |step: f64| {
                let mut moved = values.clone();
                let own = moved.get_mut(&parameter.name).unwrap();
                own.iter_mut().zip(gradient).for_each(|(x, g)| *x += (step * f64::from(*g) / size) as f32);
                loss(&moved)
            };
            let step = 2e-2;
            let slope = (along(step) - along(-step)) / (2.0 * step);
            assert!((slope - size).abs() < 2e-2 * size + 1e-4, "{}: {slope} {size}", parameter.name);
        }
    }

    #[test]
    fn sequences_come_in_pairs() {
        let model = Decoder::init(&ModelConfig { vocab_size: 40, ..ModelConfig::default() }, 1).unwrap();
        let (ids, targets) = batch();
        let batch = Batch { ids: &ids[..27], targets: &targets[..27], sequences: 3, segments: &[] };
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let found = dpo_forward_backward(&model, &mut workspace, &batch, &[0.0; 3], 0.1, 1.0, &mut gradients);
        assert!(found.unwrap_err().to_string().starts_with("3 sequences"));
    }
}
