//! How a backward pass multiplies: exactly, or by integers.

use tritforge_config::{ActivationQuant, WeightQuant};

use crate::{Decoder, NnError};

/// How the gradients of the ternary projections are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backward {
    /// In f32.
    #[default]
    Exact,
    /// By integers, as the forward: the gradients of the projections' outputs are rounded to int8 at random, so that on average
    /// they are what they were. Faster, and noisier: an ablation. Embedding, head, norms and attention stay in f32.
    Int8,
}

impl Backward {
    /// Both.
    pub const ALL: [Backward; 2] = [Backward::Exact, Backward::Int8];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            Backward::Exact => "exact",
            Backward::Int8 => "int8",
        }
    }
}

impl Decoder {
    /// How [`Decoder::forward_backward`] multiplies from now on; [`crate::Workspace::set_noise`] seeds the rounding. The tape
    /// ([`Decoder::loss`]) is always exact.
    ///
    /// # Errors
    /// If integers are asked for and the forward does not multiply them: weights or activations are not quantized.
    pub fn set_backward(&mut self, backward: Backward) -> Result<(), NnError> {
        let config = self.config();
        let integers =
            (config.weights, config.activations) == (WeightQuant::Absmean, ActivationQuant::Absmax);
        if backward == Backward::Int8 && !integers {
            return Err(NnError::Input {
                what: "backward by integers",
                found: format!("weights {:?}, activations {:?}", config.weights, config.activations),
                expected: "ternary weights (absmean) and int8 activations (absmax)".to_string(),
            });
        }
        for linear in self.blocks.iter_mut().flat_map(|b| &mut b.projections) {
            linear.set_transposes(backward == Backward::Int8);
        }
        self.requantize()
    }
}
