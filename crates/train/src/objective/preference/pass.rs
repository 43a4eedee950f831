//! The run of an objective over pairs: log-probabilities of the answers, losses, and the gradients of a model.

use tritforge_model::{Batch, Decoder, Gradients, IGNORE_INDEX, Score, Workspace};
use tritforge_report::Event;

use super::stats::PreferenceStats;
use super::{Pair, PairFormula, Reference, Sft, SftLoss};
use crate::TrainError;
use crate::objective::log_probs::sequence_log_probs;
use crate::objective::{LossFunction, Pass};

/// The loss of pairs by a formula, with a reference if it compares with one.
#[derive(Debug)]
pub(in crate::objective) struct PairsLoss {
    pub formula: Box<dyn PairFormula>,
    pub sft: Sft,
    /// The reference with the SHA-256 of its files.
    pub reference: Option<(Reference, String)>,
}

impl LossFunction for PairsLoss {
    fn other_model(&self) -> Option<&str> {
        self.reference.as_ref().map(|(_, fingerprint)| fingerprint.as_str())
    }

    /// What stands behind an answer need not look at it.
    fn separates_padding(&self) -> bool {
        true
    }

    fn forward_backward(&mut self, pass: Pass<'_>) -> Result<Vec<f64>, TrainError> {
        let Pass { model, workspace, batch, pairs, samples, gradients, .. } = pass;
        let reference = match &self.reference {
            Some((reference, _)) => reference.of(pairs),
            None => vec![0.0; 2 * pairs.len()],
        };
        let (rule, normalizer) = ((&*self.formula, self.sft), samples as f32);
        let found = forward_backward(model, workspace, batch, &reference, rule, normalizer, gradients)?;
        Ok(found.to_sums())
    }

    fn loss(&self, sums: &[f64]) -> f64 {
        PreferenceStats::of_sums(sums).map_or(f64::NAN, |pairs| pairs.objective())
    }

    fn event(&self, step: u64, held_out: bool, sums: &[f64]) -> Option<Event> {
        Some(PreferenceStats::of_sums(sums)?.event(step, held_out, None))
    }

    /// The targets are those of the chosen answers.
    fn score(
        &self,
        model: &Decoder,
        batch: &Batch<'_>,
        row: usize,
        score: &mut Score,
    ) -> Result<Vec<f64>, TrainError> {
        let policy = sequence_log_probs(model, batch)?;
        let first = row / 2;
        let none = vec![0.0; policy.len()];
        let reference = match &self.reference {
            Some((reference, _)) => &reference.held_out[2 * first..][..policy.len()],
            None => &none,
        };
        let (sums, _) = compare(&policy, reference, batch.targets, &*self.formula, self.sft);
        let rows = batch.targets.chunks_exact(batch.targets.len() / policy.len());
        for (chosen, row) in policy.iter().zip(rows).step_by(2) {
            score.add(Score { nats: -chosen, targets: tokens(row) });
        }
        Ok(sums.to_sums())
    }

    fn held_out_loss(&self, _: &Score, sums: &[f64]) -> f64 {
        self.loss(sums)
    }
}

/// Tokens of an answer, by its row's targets.
pub(in crate::objective) fn tokens(targets: &[u32]) -> usize {
    targets.iter().filter(|target| **target != IGNORE_INDEX).count()
}

/// What pairs come to, and by what their sequences' tokens count in the gradient: the derivatives of the sum
/// of their losses by the tokens' cross-entropies. `policy` and `reference` have the log-probabilities of
/// each sequence, the chosen one of a pair first, and `targets` those of the sequences, as in
/// [`forward_backward`].
fn compare(
    policy: &[f64],
    reference: &[f64],
    targets: &[u32],
    formula: &dyn PairFormula,
    sft: Sft,
) -> (PreferenceStats, Vec<f64>) {
    let mut sums = PreferenceStats::default();
    let mut weights = Vec::with_capacity(policy.len());
    let rows: Vec<&[u32]> = targets.chunks_exact((targets.len() / policy.len().max(1)).max(1)).collect();
    let pairs = policy.as_chunks().0.iter().zip(reference.as_chunks().0).zip(rows.as_chunks().0);
    for ((policy, reference), rows) in pairs {
        let pair = Pair { policy: *policy, reference: *reference, tokens: rows.map(tokens) };
        let found = formula.pair(&pair);
        let own = match sft.loss {
            SftLoss::Sum => sft.weight,
            SftLoss::Mean => sft.weight / pair.tokens[0].max(1) as f64,
        };
        sums.add(PreferenceStats {
            pairs: 1,
            loss: found.loss,
            sft: -own * policy[0],
            right: usize::from(found.margin > 0.0),
            margin: found.margin,
        });
        // Cross-entropy is the negative log-probability: so is its weight the derivative.
        weights.extend([own - found.by[0], -found.by[1]]);
    }
    (sums, weights)
}

/// Adds the gradients of `Σ (loss + SFT term) / normalizer` over a batch of pairs to `gradients`; the normalizer is the
/// number of pairs of the whole optimizer step. Sequences stand in pairs, the chosen one first, `reference` has the
/// log-probability of each ([`sequence_log_probs`] of the reference model), and targets of prompts and padding are
/// [`tritforge_model::IGNORE_INDEX`].
///
/// # Errors
/// If sequences are not in pairs, there is not one number of the reference's for each, or the batch does not
/// fit the model.
fn forward_backward(
    model: &Decoder,
    workspace: &mut Workspace,
    batch: &Batch<'_>,
    reference: &[f64],
    (formula, sft): (&dyn PairFormula, Sft),
    normalizer: f32,
    gradients: &mut Gradients,
) -> Result<PreferenceStats, TrainError> {
    if !batch.sequences.is_multiple_of(2) || reference.len() != batch.sequences {
        return Err(TrainError::Preferences { sequences: batch.sequences, reference: reference.len() });
    }
    let policy = sequence_log_probs(model, batch)?;
    let length = batch.targets.len() / batch.sequences.max(1);
    let (sums, each) = compare(&policy, reference, batch.targets, formula, sft);
    let weights: Vec<f32> =
        each.iter().flat_map(|weight| std::iter::repeat_n(*weight as f32, length)).collect();
    model.forward_backward_weighted(workspace, batch, &weights, normalizer, gradients)?;
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use tritforge_config::ModelConfig;

    use super::*;
    use crate::objective::differences::{assert_gradients, smooth};
    use crate::objective::{Dpo, Orpo, Simpo};

    fn sft(weight: f64, loss: SftLoss) -> Sft {
        Sft { weight, loss }
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
        let config = smooth(37, 2);
        let model = Decoder::init(&config, 1).unwrap();
        let (ids, targets) = batch();
        let batch = Batch { ids: &ids, targets: &targets, sequences: 4, segments: &[] };
        let reference = sequence_log_probs(&Decoder::init(&config, 2).unwrap(), &batch).unwrap();
        let dpo = Dpo { beta: 0.3, ..Dpo::default() };
        // The first answers of the pairs have five and six targets.
        for (formula, sft, tokens) in [
            (&dpo as &dyn PairFormula, sft(0.0, SftLoss::Mean), [5.0, 6.0]),
            (&dpo, sft(0.7, SftLoss::Mean), [5.0, 6.0]),
            (&dpo, sft(0.1, SftLoss::Sum), [1.0, 1.0]),
            (&Orpo { beta: 0.5 }, sft(1.0, SftLoss::Mean), [5.0, 6.0]),
            (&Simpo { beta: 2.0, gamma: 0.5, sft: 0.0 }, sft(0.0, SftLoss::Mean), [5.0, 6.0]),
        ] {
            gradient_of(&model, &batch, &reference, (formula, sft), tokens);
        }
    }

    /// Compares the gradient with differences of the objective, written out again.
    fn gradient_of(
        model: &Decoder,
        batch: &Batch<'_>,
        reference: &[f64],
        (formula, sft): (&dyn PairFormula, Sft),
        answer: [f64; 2],
    ) {
        let pairs = 2.0;
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let rule = (formula, sft);
        let found =
            forward_backward(model, &mut workspace, batch, reference, rule, pairs, &mut gradients).unwrap();
        let loss = |moved: &Decoder| {
            let policy = sequence_log_probs(moved, batch).unwrap();
            let pair = |i: usize| {
                let own = |x: &[f64]| [x[i], x[i + 1]];
                let tokens = [i, i + 1].map(|row| super::tokens(&batch.targets[row * 9..][..9]));
                let pair = Pair { policy: own(&policy), reference: own(reference), tokens };
                formula.pair(&pair).loss - sft.weight * policy[i] / answer[i / 2]
            };
            (pair(0) + pair(2)) / f64::from(pairs)
        };
        assert_eq!(found.pairs, 2);
        assert!((found.objective() - loss(model)).abs() < 1e-12);
        assert_gradients(model, &gradients, 2e-2, [2e-2, 1e-4], loss);
    }

    #[test]
    fn sequences_come_in_pairs() {
        let model = Decoder::init(&ModelConfig { vocab_size: 40, ..ModelConfig::default() }, 1).unwrap();
        let (ids, targets) = batch();
        let batch = Batch { ids: &ids[..27], targets: &targets[..27], sequences: 3, segments: &[] };
        let mut gradients = Gradients::new(model.parameters(), |_| true);
        let mut workspace = Workspace::new(false);
        let rule = (&Dpo::default() as &dyn PairFormula, sft(0.0, SftLoss::Mean));
        let found = forward_backward(&model, &mut workspace, &batch, &[0.0; 3], rule, 1.0, &mut gradients);
        assert!(found.unwrap_err().to_string().starts_with("3 sequences"));
    }
}
