//! Values that only training sees: codes drawn at random, soft ones, or latent weights beside the codes. What is evaluated, saved and exported is always the
//! quantizer's own rounding.

use tritforge_config::{Projection, WeightQuant};
use tritforge_kernels::CounterRng;
use tritforge_ternary::Fitted;

use crate::{Decoder, ModelError};

/// What training's forward multiplies in the place of the deployed ternary values. With u = w/step and the scale s of
/// each weight:
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum TrainingCodes {
    /// The deployed codes.
    #[default]
    Rounded,
    /// sign(u) with probability min(|u|, 1), else 0, times s: u on average within the clamp (arXiv 1510.03009, section
    /// 2.2). The gradient passes as through the rounding.
    Stochastic {
        /// Of the random numbers: another one for every step.
        seed: u64,
    },
    /// `w + share · (s · q̃(u) − w)` with the mean code `q̃ = Σ c · softmax_c(−(u − c)²/τ)`, c of −1, 0, 1 (Hestia,
    /// arXiv 2601.20745). The gradient is that of this function, the scale counting as constant.
    Soft {
        /// τ, above 0.
        temperature: f32,
        /// How much of it training sees, from 0 to 1.
        share: f32,
    },
    /// The deployed value plus `share · w` (Arenas of Sherry, arXiv 2601.07892). The gradient passes through the
    /// rounding and through the latent weight: `1 + share` times.
    Residual {
        /// How much of the latent weights training sees beside the codes, from 0 on.
        share: f32,
    },
}

impl TrainingCodes {
    /// For one of a model's matrices.
    fn of_matrix(self, number: usize, factor: f32) -> Self {
        match self {
            Self::Stochastic { seed } => Self::Stochastic { seed: CounterRng::derive(seed, number as u64) },
            Self::Soft { temperature, share } => {
                Self::Soft { temperature: (temperature * factor).max(f32::MIN_POSITIVE), share }
            }
            other => other,
        }
    }

    /// What training multiplies for latent weights [.., cols]; none for the deployed codes.
    pub(crate) fn values(self, latent: &[f32], cols: usize, fitted: &Fitted) -> Option<Vec<f32>> {
        if self == Self::Rounded {
            return None;
        }
        if let Self::Residual { share } = self {
            let mut codes = vec![0i8; latent.len()];
            fitted.codes(0, cols, latent, &mut codes);
            let mut values = vec![0f32; latent.len()];
            fitted.scales().apply(&codes, cols, &mut values);
            values.iter_mut().zip(latent).for_each(|(value, w)| *value += share * w);
            return Some(values);
        }
        let noise = match self {
            Self::Stochastic { seed } => CounterRng::new(seed, 0, 0),
            _ => CounterRng::new(0, 0, 0),
        };
        let mut values = latent.to_vec();
        each_part(&mut values, cols, fitted, |at, part, inverse, scale| {
            for (i, w) in part.iter_mut().enumerate() {
                let u = *w * inverse;
                *w = match self {
                    Self::Rounded | Self::Residual { .. } => *w,
                    Self::Stochastic { .. } => {
                        // One of 2²⁴ numbers in [0, 1).
                        let drawn = (noise.bits((at + i) as u32) >> 8) as f32 * (1.0 / 16_777_216.0);
                        if drawn < u.abs() { scale.copysign(u) } else { 0.0 * u }
                    }
                    Self::Soft { temperature, share } => {
                        let [mean, _] = soft_code(u, temperature);
                        *w + share * (scale * mean - *w)
                    }
                };
            }
        });
        Some(values)
    }

    /// Multiplies the gradients of what training saw by its derivative, for latent weights [.., cols].
    pub(crate) fn gradients(self, latent: &[f32], cols: usize, fitted: &Fitted, gradients: &mut [f32]) {
        if let Self::Residual { share } = self {
            gradients.iter_mut().for_each(|gradient| *gradient *= 1.0 + share);
        }
        let Self::Soft { temperature, share } = self else { return };
        each_part(gradients, cols, fitted, |at, part, inverse, scale| {
            for (gradient, w) in part.iter_mut().zip(&latent[at..]) {
                let [_, slope] = soft_code(w * inverse, temperature);
                *gradient *= 1.0 + share * (scale * inverse * slope - 1.0);
            }
        });
    }
}

/// Calls `change` for every part that shares a scale, or the row of one: with the place of its first element, its
/// numbers, the inverse of its step and its scale.
fn each_part(
    numbers: &mut [f32],
    cols: usize,
    fitted: &Fitted,
    change: impl Fn(usize, &mut [f32], f32, f32),
) {
    for (row, numbers) in numbers.chunks_exact_mut(cols).enumerate() {
        let (inverses, scales) = (fitted.inverse_steps(row), fitted.scales().row(row));
        let width = cols / scales.len();
        let parts = numbers.chunks_exact_mut(width).zip(inverses.iter().zip(scales));
        for (group, (part, (inverse, scale))) in parts.enumerate() {
            change(row * cols + group * width, part, *inverse, *scale);
        }
    }
}

/// The mean of the codes −1, 0, 1 with probabilities as exp(−(u − c)²/τ), and its derivative by u, which is 2/τ of
/// their variance.
fn soft_code(u: f32, temperature: f32) -> [f32; 2] {
    // Both exponents less that of 0, all less the largest: none overflows.
    let (u, tau) = (f64::from(u), f64::from(temperature));
    let (up, down) = ((2.0 * u - 1.0) / tau, (-2.0 * u - 1.0) / tau);
    let most = up.max(down).max(0.0);
    let (up, down, zero) = ((up - most).exp(), (down - most).exp(), (-most).exp());
    let total = up + down + zero;
    let mean = (up - down) / total;
    let variance = ((up + down) / total - mean * mean).max(0.0);
    [mean as f32, (2.0 / tau * variance) as f32]
}

impl Decoder {
    /// What training multiplies from now on in the place of the deployed codes. To be followed by
    /// [`Decoder::requantize`]. The temperature of soft codes is multiplied by a factor of each matrix, in the order of
    /// [`Decoder::gauss_newton_traces`]; by 1 where there are none.
    ///
    /// # Errors
    /// If the weights are not latent, the base has an adapter, scales are learned, a number is out of its range, or
    /// drawn or soft codes are asked for where codes are more than roundings of weights.
    pub fn set_training_codes(&mut self, codes: TrainingCodes, factors: &[f32]) -> Result<(), ModelError> {
        let fault = |found: String, expected: &str| {
            Err(ModelError::Input { what: "codes of training", found, expected: expected.to_string() })
        };
        if let TrainingCodes::Soft { temperature, share } = codes
            && !(temperature > 0.0 && temperature.is_finite() && (0.0..=1.0).contains(&share))
        {
            return fault(
                format!("temperature {temperature}, share {share}"),
                "a temperature above 0 and a share from 0 to 1",
            );
        }
        if let TrainingCodes::Residual { share } = codes
            && !(share >= 0.0 && share.is_finite())
        {
            return fault(format!("share {share}"), "a share of at least 0");
        }
        let config = self.config();
        let latent = config.weights == WeightQuant::Absmean && !config.learns_scales() && self.lora.is_none();
        let (fits, expected) = match codes {
            TrainingCodes::Rounded => (true, ""),
            TrainingCodes::Residual { .. } => {
                (latent, "latent weights without learned scales, and no adapter")
            }
            TrainingCodes::Stochastic { .. } | TrainingCodes::Soft { .. } => (
                latent && !config.quantizer.makes_codes(),
                "a quantizer that rounds latent weights, without sparsity and learned scales, and no adapter",
            ),
        };
        if !fits {
            return fault(format!("{codes:?} of quantizer {}", config.quantizer), expected);
        }
        let matrices = self.blocks.len() * Projection::ALL.len();
        let positive = |factor: &f32| *factor > 0.0 && factor.is_finite();
        if !factors.is_empty() && (factors.len() != matrices || !factors.iter().all(positive)) {
            return fault(
                format!("factors {factors:?} of temperatures"),
                &format!("{matrices} numbers above 0, one a matrix"),
            );
        }
        let linears = self.blocks.iter_mut().flat_map(|block| &mut block.projections);
        for (number, linear) in linears.enumerate() {
            linear.set_training_codes(codes.of_matrix(number, factors.get(number).copied().unwrap_or(1.0)));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tritforge_ternary::{Granularity, WeightQuantizer};

    use super::*;

    #[test]
    fn the_soft_code_is_the_mean_and_its_slope_the_derivative() {
        for tau in [0.02f32, 0.1, 0.36, 1.0, 5.0] {
            for i in -40..=40 {
                let u = i as f32 * 0.07;
                let weight = |c: f64| (-(f64::from(u) - c).powi(2) / f64::from(tau)).exp();
                let total: f64 = [-1.0, 0.0, 1.0].map(weight).iter().sum();
                if total > 1e-200 {
                    let expected = (weight(1.0) - weight(-1.0)) / total;
                    assert!((f64::from(soft_code(u, tau)[0]) - expected).abs() < 1e-6, "{u} {tau}");
                }
                let step = 1e-3 * tau;
                let slope = (soft_code(u + step, tau)[0] - soft_code(u - step, tau)[0]) / (2.0 * step);
                let found = soft_code(u, tau)[1];
                assert!((found - slope).abs() < 2e-3 * (1.0 / tau), "{u} {tau}: {found} {slope}");
            }
        }
        // Cold, it is the rounding; no exponential overflows.
        for (u, code) in [(0.49, 0.0), (0.51, 1.0), (-0.51, -1.0), (40.0, 1.0), (-1e9, -1.0)] {
            assert_eq!(soft_code(u, 1e-6), [code, 0.0]);
        }
    }

    #[test]
    fn drawn_codes_have_the_weight_as_their_mean() {
        let (rows, cols) = (4, 64);
        let latent: Vec<f32> = (0..rows * cols).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
        let fitted = WeightQuantizer::default().fit(Granularity::Row, &latent, [rows, cols]).unwrap();
        let mut mean = vec![0f64; latent.len()];
        let draws = 4000;
        for seed in 0..draws {
            let values = TrainingCodes::Stochastic { seed }.values(&latent, cols, &fitted).unwrap();
            for (i, (value, mean)) in values.iter().zip(&mut mean).enumerate() {
                let scale = fitted.scales().row(i / cols)[0];
                assert!(*value == 0.0 || value.abs() == scale && value.signum() == latent[i].signum());
                *mean += f64::from(*value) / draws as f64;
            }
        }
        for (i, (mean, w)) in mean.iter().zip(&latent).enumerate() {
            let scale = f64::from(fitted.scales().row(i / cols)[0]);
            let expected = f64::from(*w).clamp(-scale, scale);
            // Five standard deviations of a mean of draws of at most the scale.
            assert!((mean - expected).abs() < 5.0 * 0.5 * scale / (draws as f64).sqrt() + 1e-3 * scale);
        }
        let drawn = |seed| TrainingCodes::Stochastic { seed }.values(&latent, cols, &fitted);
        assert_eq!(drawn(3), drawn(3));
        assert_ne!(drawn(3), drawn(4));
        assert_eq!(TrainingCodes::Rounded.values(&latent, cols, &fitted), None);
    }
}
