//! How a backward pass multiplies the gradients of projections: by integers of so many bits, or in f32.

use tritforge_config::WeightQuant;
use tritforge_kernels::{Backend, CounterRng, Rounding};

use crate::{Decoder, ModelError};

/// How the gradients of the projections' outputs are multiplied with ternary weights and int8 activations,
/// which are integers already. Embedding, head, norms and attention are in f32 whatever this says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GradPrecision {
    /// [`Self::Int24`] where it is the faster one, with AVX-512 VNNI, else [`Self::F32`].
    #[default]
    Auto,
    /// Rounded to the nearest of 2²⁴ integers (three int8 digits, [`Rounding`]) and multiplied exactly: about
    /// as precise as f32, whose sums round. In f32 where the forward multiplies no integers.
    Int24,
    /// In f32.
    F32,
    /// Rounded to 16 bits at random, so that on average the gradients are what they were.
    Int16,
    /// Rounded to 8 bits at random: faster still, and noisy.
    Int8,
}

impl GradPrecision {
    /// All of them.
    pub const ALL: [GradPrecision; 5] = [
        GradPrecision::Auto,
        GradPrecision::Int24,
        GradPrecision::F32,
        GradPrecision::Int16,
        GradPrecision::Int8,
    ];

    /// The name in recipes.
    pub fn name(self) -> &'static str {
        match self {
            GradPrecision::Auto => "auto",
            GradPrecision::Int24 => "int24",
            GradPrecision::F32 => "f32",
            GradPrecision::Int16 => "int16",
            GradPrecision::Int8 => "int8",
        }
    }

    /// Whether the forward must multiply integers.
    pub fn needs_integers(self) -> bool {
        matches!(self, GradPrecision::Int16 | GradPrecision::Int8)
    }

    /// What `Auto` stands for on this processor; others stand for themselves.
    pub fn resolved(self) -> Self {
        match (self, Backend::active()) {
            (GradPrecision::Auto, Backend::Avx512Vnni) => GradPrecision::Int24,
            (GradPrecision::Auto, _) => GradPrecision::F32,
            (other, _) => other,
        }
    }

    /// How gradients become integers, with random bits that are used if need be; none in f32.
    pub(crate) fn rounding(self, noise: CounterRng) -> Option<Rounding> {
        match self.resolved() {
            GradPrecision::Auto | GradPrecision::Int24 => Some(Rounding::nearest(3)),
            GradPrecision::F32 => None,
            GradPrecision::Int16 => Some(Rounding::stochastic(2, noise)),
            GradPrecision::Int8 => Some(Rounding::stochastic(1, noise)),
        }
    }
}

impl Decoder {
    /// How [`Decoder::forward_backward`] multiplies from now on, [`GradPrecision::F32`] before;
    /// [`crate::Workspace::set_noise`] seeds what is rounded at random.
    ///
    /// # Errors
    /// If few bits are asked for and the forward multiplies no integers: weights or activations are not
    /// quantized.
    pub fn set_grad_precision(&mut self, backward: GradPrecision) -> Result<(), ModelError> {
        let config = self.config();
        let integers = config.weights != WeightQuant::None && config.activations.is_integer();
        if backward.needs_integers() && !integers {
            return Err(ModelError::Input {
                what: "backward by integers",
                found: format!("weights {:?}, activations {:?}", config.weights, config.activations),
                expected: "ternary weights (absmean) and quantized activations (absmax, int4)".to_string(),
            });
        }
        let backward = if integers { backward.resolved() } else { GradPrecision::F32 };
        for linear in self.blocks.iter_mut().flat_map(|b| &mut b.projections) {
            linear.set_grad_precision(backward);
        }
        self.requantize()
    }

    /// How gradients are multiplied: [`GradPrecision::F32`] where the forward multiplies no integers, never
    /// [`GradPrecision::Auto`].
    pub fn grad_precision(&self) -> GradPrecision {
        let first = self.blocks.first().and_then(|block| block.projections.first());
        first.map_or(GradPrecision::F32, |linear| linear.grad_precision())
    }
}
