//! Straight-through estimators: by what the gradient of a latent weight is multiplied.
//!
//! The gradient of the ternary weight passes through the rounding as if it were the identity (arXiv 1308.3432). That is
//! wrong by more where rounding or clamping moved a weight further; masks pass less of it there. Under Adam, which
//! divides by the magnitude of gradients, only where it is 0 counts.

use std::fmt;
use std::str::FromStr;

use crate::TernaryError;

/// By what the gradient of a latent weight w is multiplied, given the step and scale that it is quantized with and its
/// code q.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Ste {
    /// 1 (BitNet b1.58).
    #[default]
    Identity,
    /// 1 where the clamp did nothing, |w| ≤ 1.5 · step; else 0 (binary-net's hard tanh, arXiv 1602.02830).
    Clip,
    /// 1 where the weight is as near to its value as rounding promises, |q · scale − w| ≤ step / 2; else 0 (QuEST's trust
    /// estimator, arXiv 2502.05003, without its Hadamard transform).
    Trust,
    /// 1 where the code is not 0, else ½: weights in the dead zone move slower.
    Damp,
}

impl Ste {
    /// All estimators.
    pub const ALL: [Ste; 4] = [Ste::Identity, Ste::Clip, Ste::Trust, Ste::Damp];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Clip => "clip",
            Self::Trust => "trust",
            Self::Damp => "damp",
        }
    }

    /// Multiplies the gradients of weights, given with their codes, that share a step, given as its inverse, and a
    /// scale.
    ///
    /// # Panics
    /// If the slices differ in length.
    pub fn mask(self, weights: &[f32], codes: &[i8], inverse_step: f32, scale: f32, gradients: &mut [f32]) {
        assert_eq!(weights.len(), gradients.len(), "one gradient for every weight");
        assert_eq!(weights.len(), codes.len(), "one code for every weight");
        let half = 0.5 / inverse_step;
        let each = gradients.iter_mut().zip(weights.iter().zip(codes));
        match self {
            Self::Identity => {}
            Self::Clip => {
                each.for_each(|(g, (w, _))| *g = if (w * inverse_step).abs() <= 1.5 { *g } else { 0.0 });
            }
            Self::Trust => each.for_each(|(g, (w, code))| {
                *g = if (f32::from(*code) * scale - w).abs() <= half { *g } else { 0.0 };
            }),
            Self::Damp => each.for_each(|(g, (_, code))| *g = if *code == 0 { 0.5 * *g } else { *g }),
        }
    }
}

impl fmt::Display for Ste {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Ste {
    type Err = TernaryError;

    fn from_str(name: &str) -> Result<Self, TernaryError> {
        let found = Self::ALL.into_iter().find(|ste| ste.name() == name);
        found.ok_or_else(|| TernaryError::Ste { found: name.to_string() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_at_every_place() {
        // Step and scale 2: codes 0 up to 1, the clamp begins at 3.
        let weights = [0.0, 0.9, -1.0, 1.1, -2.0, 2.9, 3.0, -3.1, 9.0];
        let codes = [0, 0, 0, 1, -1, 1, 1, -1, 1];
        let of = |ste: Ste, scale: f32| {
            let mut gradients = [1.0; 9];
            ste.mask(&weights, &codes, 0.5, scale, &mut gradients);
            gradients
        };
        assert_eq!(of(Ste::Identity, 2.0), [1.0; 9]);
        let within = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        assert_eq!(of(Ste::Clip, 2.0), within);
        // With one number for both, a weight is near its value exactly where the clamp does nothing.
        assert_eq!(of(Ste::Trust, 2.0), within);
        // Values of ±3: those from 2 to 4 are near, and what is 0 is near 0.
        assert_eq!(of(Ste::Trust, 3.0), [1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0]);
        assert_eq!(of(Ste::Damp, 2.0), [0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        // Codes that sparsity made 0: half of the gradient, and none where the weight is far from 0.
        let mut gradients = [1.0; 2];
        Ste::Damp.mask(&[2.0, 2.0], &[0, 1], 0.5, 2.0, &mut gradients);
        assert_eq!(gradients, [0.5, 1.0]);
        Ste::Trust.mask(&[2.0, 2.0], &[0, 1], 0.5, 2.0, &mut gradients);
        assert_eq!(gradients, [0.0, 1.0]);
        assert!(Ste::ALL.iter().all(|ste| ste.name().parse() == Ok(*ste)));
        let error = "soft".parse::<Ste>().unwrap_err().to_string();
        assert_eq!(error, "straight-through estimator soft: expected identity, clip, trust or damp");
    }
}
