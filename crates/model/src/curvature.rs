//! How much the loss bends along the weights of each matrix: the trace of its block of the Hessian's Gauss-Newton part, which for the
//! cross-entropy is the Fisher information, from gradients of labels that the model itself draws (the Gauss-Newton-Bartlett estimator;
//! arXiv 2305.14342, section 2.3).
//!
//! The whole Hessian has another part, with the second derivatives of the logits. It is 0 in the mean where the model is right about
//! its labels; elsewhere it can make a trace negative, and samples of it by random directions scatter by many times their mean.

use tritforge_config::{ActivationQuant, ModelConfig, WeightQuant};
use tritforge_kernels::CounterRng;
use tritforge_ternary::Granularity;

use crate::{Batch, DecayGroup, Decoder, Gradients, IGNORE_INDEX, ModelError, Workspace};

impl Decoder {
    /// One sample of that trace for each projection of each block, in their order (that of [`tritforge_config::Projection::ALL`]). The loss is the mean
    /// cross-entropy over the batch's targets of the model in full precision: latent weights as they are, and inputs too.
    ///
    /// Every target is replaced by a label y that the model draws with its own probability p(y), by the seed. Gradients of ln p(y)
    /// are 0 in the mean, so that those of T targets add up without cross terms: T times the squared length of the gradient of the mean
    /// loss has the mean over targets of `Σ p(y) · |∇ ln p(y)|²` as its own mean, which is the trace.
    ///
    /// # Errors
    /// If the batch does not fit the model, or the weights are not latent ones or have an adapter.
    pub fn gauss_newton_traces(
        &self,
        workspace: &mut Workspace,
        batch: &Batch<'_>,
        seed: u64,
    ) -> Result<Vec<f64>, ModelError> {
        let full = self.in_full_precision()?;
        let targets = full.drawn_targets(batch, seed)?;
        let count = targets.iter().filter(|target| **target != IGNORE_INDEX).count();
        let batch = Batch { targets: &targets, ..*batch };
        let mut gradients = Gradients::new(full.parameters(), |p| p.group == DecayGroup::Decay);
        full.forward_backward(workspace, &batch, count.max(1) as f32, &mut gradients)?;
        let of = |index: usize| {
            let gradient = gradients.get(index).unwrap_or_default();
            count as f64 * gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>()
        };
        Ok(full.blocks.iter().flat_map(|block| block.projection_indices).map(of).collect())
    }

    /// The same latent weights, not copied, without any quantization.
    fn in_full_precision(&self) -> Result<Self, ModelError> {
        if self.config().weights != WeightQuant::Absmean || self.lora.is_some() {
            return Err(ModelError::Input {
                what: "a model for traces",
                found: format!("weights {:?}, adapter {}", self.config().weights, self.lora.is_some()),
                expected: "latent weights, all of them trained".to_string(),
            });
        }
        let config = ModelConfig {
            weights: WeightQuant::None,
            activations: ActivationQuant::None,
            activation_top_k: None,
            granularity: Granularity::Tensor,
            ternary_embedding: None,
            ternary_head: None,
            dead_zone_bias: None,
            ..self.config().clone()
        };
        Self::build(&config, None, |name, _| {
            let parameter = self.parameters().iter().find(|parameter| parameter.name == name);
            let missing = || ModelError::Tensor { name: name.to_string(), message: "missing".to_string() };
            parameter.map(|parameter| parameter.tensor.clone()).ok_or_else(missing)
        })
    }

    /// A label for each target of a batch, drawn with the model's probability; none where the target is ignored.
    fn drawn_targets(&self, batch: &Batch<'_>, seed: u64) -> Result<Vec<u32>, ModelError> {
        let length = self.sequence_length(batch.ids, batch.sequences)?;
        self.check_targets(batch)?;
        let vocab = self.config().vocab_size;
        let noise = CounterRng::new(seed, 0, 0);
        let mut drawn = batch.targets.to_vec();
        // A sequence at a time: the logits of all would take much memory.
        for (row, ids) in batch.ids.chunks_exact(length).enumerate() {
            let first = row * length;
            let of_row = |start: &&usize| (first..first + length).contains(*start);
            let segments: Vec<usize> =
                batch.segments.iter().filter(of_row).map(|start| start - first).collect();
            let logits = self.segment_logits(ids, 1, &segments, None)?;
            for (i, logits) in (first..).zip(logits.chunks_exact(vocab)) {
                if drawn[i] != IGNORE_INDEX {
                    drawn[i] = draw(logits, noise.bits(i as u32));
                }
            }
        }
        Ok(drawn)
    }
}

/// A label with the probability that logits give it, by 32 random bits.
fn draw(logits: &[f32], bits: u32) -> u32 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: &f32| f64::from(logit - most).exp();
    let total: f64 = logits.iter().map(weight).sum();
    let mut left = (f64::from(bits) + 0.5) / 4_294_967_296.0 * total;
    let passed = logits.iter().position(|logit| {
        left -= weight(logit);
        left < 0.0
    });
    passed.unwrap_or(logits.len() - 1) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_drawn_with_their_probability() {
        let logits = [0.0, 2f32.ln(), f32::NEG_INFINITY, 5f32.ln()];
        let noise = CounterRng::new(1, 2, 3);
        let n = 40_000;
        let mut counts = [0u32; 4];
        (0..n).for_each(|i| counts[draw(&logits, noise.bits(i)) as usize] += 1);
        for (count, p) in counts.iter().zip([1.0 / 8.0, 2.0 / 8.0, 0.0, 5.0 / 8.0]) {
            let found = f64::from(*count) / f64::from(n);
            assert!((found - p).abs() <= 5.0 * (p * (1.0 - p) / f64::from(n)).sqrt(), "{found} {p}");
        }
        assert_eq!((draw(&logits, 0), draw(&logits, u32::MAX)), (0, 3));
        assert_eq!(draw(&[f32::NAN], 7), 0);
    }
}
