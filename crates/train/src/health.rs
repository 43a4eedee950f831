//! The health of ternary weights: how many are zero, how many change their code, how the scale moves, how far
//! latent weights are from where their code would change.

use tritforge_config::{Projection, WeightQuant};
use tritforge_kernels::parallel_for_each;
use tritforge_model::Decoder;
use tritforge_report::MatrixHealth;
use tritforge_ternary::Fitted;

/// Codes that one byte holds.
const CODES_A_BYTE: usize = 4;

/// What is remembered of a matrix until the next time: 2 bits a weight.
#[derive(Debug, Default)]
struct PreviousCodes {
    codes: Vec<u8>,
    scale: f64,
}

/// Looks at a model's ternary matrices now and then. Costs a pass over the weights each time, and a sixteenth
/// of their memory.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    previous: Vec<PreviousCodes>,
    /// The step of the last look.
    step: u64,
}

/// What a look finds.
#[derive(Debug)]
pub(crate) struct Health {
    /// Steps since the last look.
    pub(crate) steps: u64,
    /// The seven matrices of the first block, then those of the next; none for a model whose weights are not
    /// ternary.
    pub(crate) matrices: Vec<MatrixHealth>,
}

impl Monitor {
    /// The health of every matrix after `step` steps, against the last call.
    pub(crate) fn observe(&mut self, model: &Decoder, step: u64) -> Health {
        let config = model.config();
        let steps = step - std::mem::replace(&mut self.step, step);
        if config.weights != WeightQuant::Absmean {
            return Health { steps, matrices: Vec::new() };
        }
        let layers = (0..config.num_hidden_layers).flat_map(|l| Projection::ALL.map(|p| (l, p)));
        let matrices: Vec<(usize, Projection)> = layers.collect();
        self.previous.resize_with(matrices.len(), PreviousCodes::default);
        let mut found = Vec::new();
        found.resize_with(matrices.len(), || None);
        let each = found.iter_mut().zip(&mut self.previous).zip(&matrices);
        parallel_for_each(each, |((found, previous), (layer, projection))| {
            let name = projection.hf_weight(*layer).trim_end_matches(".weight").to_string();
            // A frozen matrix is its codes: they do not move.
            let linear = model.projection(*layer, *projection);
            let shape = config.projection_shape(*projection);
            // A matrix that cannot be fitted was refused when the model was made.
            *found = linear.latent().and_then(|latent| {
                let fitted = linear.fit(&latent).ok()?;
                Some(previous.observe(name, &latent, shape[1], &fitted))
            });
        });
        Health { steps, matrices: found.into_iter().flatten().collect() }
    }
}

impl PreviousCodes {
    /// The health of a matrix [.., cols], and what it is now for the next time.
    fn observe(&mut self, name: String, latent: &[f32], cols: usize, fitted: &Fitted) -> MatrixHealth {
        let first = self.codes.is_empty();
        self.codes.resize(latent.len().div_ceil(CODES_A_BYTE), 0);
        let mut codes = vec![0i8; latent.len()];
        fitted.codes(0, cols, latent, &mut codes);
        let zeros = codes.iter().filter(|code| **code == 0).count();
        let positive = codes.iter().filter(|code| **code == 1).count();
        let mut distance = 0f64;
        for (row, weights) in latent.chunks_exact(cols).enumerate() {
            let inverses = fitted.inverse_steps(row);
            for (weights, inverse) in weights.chunks_exact(cols / inverses.len()).zip(inverses) {
                distance += weights.iter().map(|w| f64::from(((w * inverse).abs() - 0.5).abs())).sum::<f64>();
            }
        }
        let mut flips = 0usize;
        for (codes, packed) in codes.chunks(CODES_A_BYTE).zip(&mut self.codes) {
            let now = codes.iter().rev().fold(0u8, |byte, code| byte << 2 | (code + 1) as u8);
            // A code's two bits differ in any way: one flip.
            let changed = now ^ *packed;
            flips += ((changed | changed >> 1) & 0b0101_0101).count_ones() as usize;
            *packed = now;
        }
        let n = latent.len().max(1) as f64;
        let before = std::mem::replace(&mut self.scale, fitted.scales().mean());
        MatrixHealth {
            name,
            zero: zeros as f64 / n,
            positive: Some(positive as f64 / n),
            flipped: (!first).then_some(flips as f64 / n),
            scale: self.scale,
            drift: (!first).then_some(self.scale / before - 1.0),
            distance: distance / n,
        }
    }
}

#[cfg(test)]
mod tests {
    use tritforge_config::{Granularity, WeightQuantizer};

    use super::*;

    /// Of one row with one scale.
    fn observe(previous: &mut PreviousCodes, latent: &[f32]) -> MatrixHealth {
        let shape = [1, latent.len()];
        let fitted = WeightQuantizer::default().fit(Granularity::Tensor, latent, shape).unwrap();
        previous.observe("m".to_string(), latent, latent.len(), &fitted)
    }

    #[test]
    fn zeros_flips_scale_and_distance_are_counted() {
        let mut previous = PreviousCodes::default();
        // Scale 1: codes 1, 0, -1, 0, 1.
        let first = observe(&mut previous, &[1.5, 0.25, -2.0, -0.25, 1.0]);
        assert_eq!((first.zero, first.flipped, first.scale, first.drift), (0.4, None, 1.0, None));
        assert_eq!((first.positive, first.negative().map(|x| (x * 5.0).round())), (Some(0.4), Some(1.0)));
        assert!((first.distance - (1.0 + 0.25 + 1.5 + 0.25 + 0.5) / 5.0).abs() < 1e-6);
        // Scale 2: codes 1, 1, 0, 0, -1: two weights crossed one boundary, one crossed two.
        let second = observe(&mut previous, &[4.0, 1.5, -0.5, 0.5, -3.5]);
        assert_eq!((second.zero, second.flipped, second.drift), (0.4, Some(0.6), Some(1.0)));
        assert_eq!(second.positive, Some(0.4));
        let third = observe(&mut previous, &[4.0, 1.5, -0.5, 0.5, -3.5]);
        assert_eq!((third.flipped, third.drift), (Some(0.0), Some(0.0)));
    }

    #[test]
    fn flips_are_counted_to_odd_ends() {
        let n = 4099;
        let weights: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
        let mut previous = PreviousCodes::default();
        observe(&mut previous, &weights);
        let turned: Vec<f32> = weights.iter().map(|w| -w).collect();
        assert_eq!(observe(&mut previous, &turned).flipped, Some(1.0));
        let mut last = turned.clone();
        last[n - 1] = -last[n - 1];
        assert_eq!(observe(&mut previous, &last).flipped, Some(1.0 / n as f64));
    }
}
