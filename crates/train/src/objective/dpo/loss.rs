//! Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290): of two answers to a prompt the
//! preferred one is to gain on the other, compared with a reference model.
//!
//! The loss of a pair is `−ln σ(β((πc − πr) − (ρc − ρr)))` (eq. 7), π and ρ being the log-probabilities that
//! the trained and the reference model give to the chosen and the rejected answer. Its derivatives by πc and
//! πr become the weights of the answers' tokens in a backward pass. The chosen answer's own cross-entropy may
//! be added, weighted: it keeps the answer likely while both answers' odds move (Pang et al. 2024, arXiv
//! 2404.19733).

use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, Workspace};

use super::{Dpo, SftLoss};
use crate::TrainError;
use crate::objective::log_probs::sequence_log_probs;

/// The loss of one pair and its derivatives.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct PairLoss {
    /// `−ln σ(β · margin)`.
    pub loss: f64,
    /// The derivative by the chosen answer's log-probability; that by the rejected one's is its negative.
    pub by_chosen: f64,
    /// By how much more than the reference the model prefers the chosen answer, in nats: `(πc − πr) − (ρc −
    /// ρr)`.
    pub margin: f64,
}

/// The loss of a pair: log-probabilities of the chosen and the rejected answer, by the model and by the
/// reference.
pub(super) fn dpo(policy: [f64; 2], reference: [f64; 2], beta: f64) -> PairLoss {
    let margin = (policy[0] - policy[1]) - (reference[0] - reference[1]);
    let z = beta * margin;
    // −ln σ(z) = ln(1 + e^−z) and σ(−z), neither of which overflows.
    let small = (-z.abs()).exp();
    let loss = (-z).max(0.0) + small.ln_1p();
    let wrong = if z > 0.0 { small / (1.0 + small) } else { 1.0 / (1.0 + small) };
    PairLoss { loss, by_chosen: -beta * wrong, margin }
}

/// What pairs came to: sums over them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct PreferenceStats {
    /// Pairs.
    pub pairs: usize,
    /// Σ loss ([`dpo`]).
    pub loss: f64,
    /// Σ of what the chosen answers' own cross-entropy adds, weighted.
    pub sft: f64,
    /// Pairs whose chosen answer the model prefers more than the reference does.
    pub right: usize,
    /// Σ margin, in nats.
    pub margin: f64,
}

impl PreferenceStats {
    /// What is minimized: the mean of both losses together.
    pub(super) fn objective(&self) -> f64 {
        (self.loss + self.sft) / self.pairs as f64
    }

    /// Share of the pairs with a margin above 0.
    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.pairs as f64
    }

    /// Mean margin, in nats.
    pub(super) fn mean_margin(&self) -> f64 {
        self.margin / self.pairs as f64
    }

    /// The sums as numbers that add up.
    pub(super) fn to_sums(self) -> Vec<f64> {
        vec![self.pairs as f64, self.loss, self.sft, self.right as f64, self.margin]
    }

    /// The sums that such numbers are; none where there are no pairs.
    pub(super) fn of_sums(sums: &[f64]) -> Option<Self> {
        let [pairs, loss, sft, right, margin] = *sums else { return None };
        Some(Self { pairs: pairs as usize, loss, sft, right: right as usize, margin })
    }

    /// Adds other pairs.
    fn add(&mut self, other: Self) {
        self.pairs += other.pairs;
        self.loss += other.loss;
        self.sft += other.sft;
        self.right += other.right;
        self.margin += other.margin;
    }
}

/// What pairs come to, and by what their sequences' tokens count in the gradient: the derivatives of the sum
/// of their losses by the tokens' cross-entropies. `policy` and `reference` have the log-probabilities of
/// each sequence, the chosen one of a pair first, and `targets` those of the sequences, as in
/// [`dpo_forward_backward`].
pub(super) fn compare(
    policy: &[f64],
    reference: &[f64],
    targets: &[u32],
    section: &Dpo,
) -> (PreferenceStats, Vec<f64>) {
    let mut sums = PreferenceStats::default();
    let mut weights = Vec::with_capacity(policy.len());
    let length = targets.len() / policy.len().max(1);
    for (i, (policy, reference)) in policy.chunks_exact(2).zip(reference.chunks_exact(2)).enumerate() {
        let pair = dpo([policy[0], policy[1]], [reference[0], reference[1]], section.beta);
        let chosen = &targets[2 * i * length..(2 * i + 1) * length];
        let tokens = chosen.iter().filter(|target| **target != IGNORE_INDEX).count();
        let sft = match section.sft_loss {
            SftLoss::Sum => section.sft,
            SftLoss::Mean => section.sft / tokens.max(1) as f64,
        };
        sums.add(PreferenceStats {
            pairs: 1,
            loss: pair.loss,
            sft: -sft * policy[0],
            right: usize::from(pair.margin > 0.0),
            margin: pair.margin,
        });
        // Cross-entropy is the negative log-probability: so is its weight the derivative.
        weights.extend([sft - pair.by_chosen, pair.by_chosen]);
    }
    (sums, weights)
}

/// Adds the gradients of `Σ (loss + SFT term) / normalizer` over a batch of pairs to `gradients`, with the β
/// and the SFT term of `section`; the normalizer is the number of pairs of the whole optimizer step.
/// Sequences stand in pairs, the chosen one first, `reference` has the log-probability of each
/// ([`sequence_log_probs`] of the reference model), and targets of prompts and padding are
/// [`tritforge_model::IGNORE_INDEX`].
///
/// # Errors
/// If sequences are not in pairs, there is not one number of the reference's for each, or the batch does not
/// fit the model.
pub(super) fn dpo_forward_backward(
    model: &Decoder,
    workspace: &mut Workspace,
    batch: &Batch<'_>,
    reference: &[f64],
    section: &Dpo,
    normalizer: f32,
    gradients: &mut Gradients,
) -> Result<PreferenceStats, TrainError> {
    if !batch.sequences.is_multiple_of(2) || reference.len() != batch.sequences {
        return Err(TrainError::Preferences { sequences: batch.sequences, reference: reference.len() });
    }
    let policy = sequence_log_probs(model, batch)?;
    let length = batch.targets.len() / batch.sequences.max(1);
    let (sums, each) = compare(&policy, reference, batch.targets, section);
    let weights: Vec<f32> =
        each.iter().flat_map(|weight| std::iter::repeat_n(*weight as f32, length)).collect();
    model.forward_backward_weighted(workspace, batch, &weights, normalizer, gradients)?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};

    use super::*;

    fn section(beta: f64, sft: f64, sft_loss: SftLoss) -> Dpo {
        Dpo { beta, sft, sft_loss, reference: None }
    }

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
        // The first answers of the pairs have five and six targets.
        for (section, tokens) in [
            (section(0.3, 0.0, SftLoss::Mean), [5.0, 6.0]),
            (section(0.3, 0.7, SftLoss::Mean), [5.0, 6.0]),
            (section(0.3, 0.1, SftLoss::Sum), [1.0, 1.0]),
        ] {
            gradient_of(&config, &model, &batch, &reference, &section, tokens);
        }
    }

    /// Compares the gradient with differences of the objective, written out again.
    fn gradient_of(
        config: &ModelConfig,
        model: &Decoder,
        batch: &Batch<'_>,
        reference: &[f64],
        section: &Dpo,
        tokens: [f64; 2],
    ) {
        let pairs = 2.0;
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let found =
            dpo_forward_backward(model, &mut workspace, batch, reference, section, pairs, &mut gradients)
                .unwrap();
        let loss = |values: &std::collections::HashMap<String, Vec<f32>>| {
            let moved = Decoder::load(config, |name, _| Ok(values[name].clone())).unwrap();
            let policy = sequence_log_probs(&moved, batch).unwrap();
            let pair = |i: usize| {
                let loss =
                    dpo([policy[i], policy[i + 1]], [reference[i], reference[i + 1]], section.beta).loss;
                loss - section.sft * policy[i] / tokens[i / 2]
            };
            (pair(0) + pair(2)) / f64::from(pairs)
        };
        let values = model.snapshot();
        assert_eq!(found.pairs, 2);
        assert!((found.objective() - loss(&values)).abs() < 1e-12);
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
        let found = dpo_forward_backward(
            &model,
            &mut workspace,
            &batch,
            &[0.0; 3],
            &section(0.1, 0.0, SftLoss::Mean),
            1.0,
            &mut gradients,
        );
        assert!(found.unwrap_err().to_string().starts_with("3 sequences"));
    }
}
