//! RoPE scaling: how pretrained frequencies are stretched over a longer context.
//!
//! The formulas are those of `transformers` (`modeling_rope_utils.py`): position interpolation (arXiv
//! 2306.15595), Llama 3.1's smoothed interpolation, and YaRN (arXiv 2309.00071). GGUF files keep Llama 3.1's
//! as a list of divisors.

use std::f32::consts::TAU;

use serde::{Deserialize, Serialize};

use crate::ConfigError;
use crate::validate::fault;

/// A change of the rotary frequencies θ^(−2i/d), i in 0..d/2.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase", deny_unknown_fields)]
pub enum RopeScaling {
    /// All are divided.
    Linear {
        /// By this.
        factor: f32,
    },
    /// Slow ones are divided, fast ones kept, those between interpolated.
    Llama3 {
        /// The divisor of the slow ones.
        factor: f32,
        /// Slow: fewer turns than this in the original context.
        low_freq_factor: f32,
        /// Fast: more turns than this in the original context.
        high_freq_factor: f32,
        /// The context of pretraining, in tokens.
        original_max_position_embeddings: usize,
    },
    /// As `Llama3`, linear in the frequency's index, and attention is sharpened.
    Yarn {
        /// The divisor of the slow ones.
        factor: f32,
        /// Fast: more turns than this in the original context.
        beta_fast: f32,
        /// Slow: fewer turns than this in the original context.
        beta_slow: f32,
        /// Whether the bounds are whole indices.
        truncate: bool,
        /// What cosines and sines are multiplied by.
        attention_factor: f32,
        /// The context of pretraining, in tokens.
        original_max_position_embeddings: usize,
    },
    /// Each has its own divisor, as in the tensor `rope_freqs.weight` of a GGUF file.
    Factors {
        /// The divisors, head_dim / 2 of them.
        factors: Vec<f32>,
    },
}

impl RopeScaling {
    /// YaRN's factor of cosines and sines where the model does not say: `0.1·ln(factor) + 1`.
    pub(crate) fn yarn_attention_factor(factor: f32) -> f32 {
        if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 }
    }

    /// Scales the frequencies in place; `theta` is their base. Returns what cosines and sines are to be
    /// multiplied by.
    pub fn apply(&self, frequencies: &mut [f32], theta: f32) -> f32 {
        match self {
            RopeScaling::Linear { factor } => {
                frequencies.iter_mut().for_each(|f| *f /= factor);
                1.0
            }
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                let context = *original_max_position_embeddings as f32;
                for f in frequencies {
                    let wavelength = TAU / *f;
                    if wavelength > context / low_freq_factor {
                        *f /= factor;
                    } else if wavelength >= context / high_freq_factor {
                        let smooth =
                            (context / wavelength - low_freq_factor) / (high_freq_factor - low_freq_factor);
                        *f = (1.0 - smooth) * *f / factor + smooth * *f;
                    }
                }
                1.0
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                truncate,
                attention_factor,
                original_max_position_embeddings,
            } => {
                let dim = 2 * frequencies.len();
                // The index of the frequency that makes so many turns in the original context.
                let index = |turns: f32| {
                    let context = *original_max_position_embeddings as f64;
                    let turns = f64::from(turns) * std::f64::consts::TAU;
                    dim as f64 * (context / turns).ln() / (2.0 * f64::from(theta).ln())
                };
                let (mut low, mut high) = (index(*beta_fast), index(*beta_slow));
                if *truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0) as f32, high.min(dim as f64 - 1.0) as f32);
                if low == high {
                    high += 0.001;
                }
                for (i, f) in frequencies.iter_mut().enumerate() {
                    let slow = ((i as f32 - low) / (high - low)).clamp(0.0, 1.0);
                    *f = *f / factor * slow + *f * (1.0 - slow);
                }
                *attention_factor
            }
            RopeScaling::Factors { factors } => {
                frequencies.iter_mut().zip(factors).for_each(|(f, divisor)| *f /= divisor);
                1.0
            }
        }
    }

    /// Checks every number.
    pub(crate) fn validate(&self, head_dim: usize) -> Result<(), ConfigError> {
        let positive = |numbers: &[f32]| match numbers.iter().find(|n| !(**n > 0.0 && **n < 1e9)) {
            Some(bad) => Err(fault("rope_scaling", bad, "expected numbers above 0 and below 1e9")),
            None => Ok(()),
        };
        let context = |tokens: usize| match tokens {
            1..=0x1000_0000 => Ok(()),
            _ => Err(fault("original_max_position_embeddings", &tokens, "expected 1 to 268435456")),
        };
        match self {
            RopeScaling::Linear { factor } => positive(&[*factor]),
            RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings,
            } => {
                context(*original_max_position_embeddings)?;
                positive(&[*factor, *low_freq_factor, *high_freq_factor])?;
                if high_freq_factor <= low_freq_factor {
                    let expected = format!("it must be above low_freq_factor = {low_freq_factor}");
                    return Err(fault("high_freq_factor", high_freq_factor, expected));
                }
                Ok(())
            }
            RopeScaling::Yarn {
                factor,
                beta_fast,
                beta_slow,
                attention_factor,
                original_max_position_embeddings,
                ..
            } => {
                context(*original_max_position_embeddings)?;
                positive(&[*factor, *beta_fast, *beta_slow, *attention_factor])
            }
            RopeScaling::Factors { factors } if factors.len() != head_dim / 2 => {
                let expected = format!("{} factors, one for each pair of a head", head_dim / 2);
                Err(fault("rope_scaling.factors", &format!("{} numbers", factors.len()), expected))
            }
            RopeScaling::Factors { factors } => positive(factors),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelConfig;

    #[test]
    fn json_round_trips_and_faults_are_named() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let config = ModelConfig { rope_scaling: Some(scaling), ..ModelConfig::default() };
        assert_eq!(ModelConfig::from_json(&config.to_json()).unwrap(), config);
        let bad = RopeScaling::Factors { factors: vec![1.0; 3] };
        let config = ModelConfig { rope_scaling: Some(bad), ..ModelConfig::default() };
        assert!(config.validate().unwrap_err().to_string().contains("32 factors"));
        let bad = ModelConfig { rope_scaling: Some(RopeScaling::Linear { factor: 0.0 }), ..config };
        assert!(bad.validate().is_err());
    }

    #[test]
    fn llama3_keeps_the_fast_and_divides_the_slow() {
        let scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let mut f = [1.0, 3.0 * TAU / 8192.0, 1e-6];
        assert_eq!(scaling.apply(&mut f, 5e5), 1.0);
        // Three turns in the context: two thirds of the way from divided to kept.
        let between = 3.0 * TAU / 8192.0 * (2.0 / 3.0 + 1.0 / 24.0);
        assert_eq!((f[0], f[2]), (1.0, 1.25e-7));
        assert!((f[1] / between - 1.0).abs() < 1e-5, "{} {between}", f[1]);
    }
}
