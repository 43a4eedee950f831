//! The bias of a projection's dead zone ([`Fitted::dead_zone_bias`]): made with the ternary form, whenever the weight has
//! changed.

use tritforge_config::Projection;
use tritforge_ternary::{Fitted, fold_bias};

use super::Linear;
use crate::{Decoder, Gradients};

/// The bias of the weights with code 0.
#[derive(Debug)]
pub(super) struct DeadZone {
    /// What their sum is multiplied by.
    lambda: f32,
    /// λ · Σ w of every row of the weight that was last quantized; empty before.
    bias: Vec<f32>,
}

impl DeadZone {
    /// Makes it that of latent weights [.., cols].
    pub(super) fn fit(&mut self, latent: &[f32], cols: usize, fitted: &Fitted) {
        self.bias = fitted.dead_zone_bias(self.lambda, latent, cols);
    }
}

impl Linear {
    /// Gives the weights with code 0 a bias, their sum times this, or takes it away.
    pub(crate) fn set_dead_zone(&mut self, lambda: Option<f32>) {
        self.dead_zone = lambda.map(|lambda| DeadZone { lambda, bias: Vec::new() });
        self.invalidate();
    }

    /// What the sum of the weights with code 0 is multiplied by, where it is a bias.
    pub(crate) fn dead_zone(&self) -> Option<f32> {
        self.dead_zone.as_ref().map(|dead_zone| dead_zone.lambda)
    }

    /// The bias of the weights with code 0, where there is one: a number an output.
    pub(crate) fn dead_zone_bias(&self) -> Option<&[f32]> {
        self.dead_zone.as_ref().map(|dead_zone| &dead_zone.bias[..])
    }

    /// Adds what the weights with code 0 get through their bias to the gradient of the latent weight, parameter `index`; both are
    /// [out, in].
    pub(crate) fn add_dead_zone_gradient(&self, latent: &[f32], index: usize, gradients: &mut Gradients) {
        let (Some(lambda), Some(fitted)) = (self.dead_zone(), &self.fitted) else { return };
        let Some(outputs) = gradients.outputs(index).map(<[f32]>::to_vec) else { return };
        let Some(gradient) = gradients.get_mut(index) else { return };
        // While the quantization sets in, the forward sees that part of the bias.
        fitted.add_dead_zone_gradient(lambda * self.blend, latent, &outputs, gradient);
    }
}

impl Decoder {
    /// The bias of a projection of the deployed model, `[out]`: its own and that of its dead zone; none where it has neither.
    pub fn bias(&self, layer: usize, projection: Projection) -> Option<Vec<f32>> {
        let block = &self.blocks[layer];
        let own = block.bias(projection).map(|bias| bias.weight.read().to_vec());
        match block.linear(projection).dead_zone_bias() {
            None => own,
            Some(dead) => Some(fold_bias(own.as_deref(), dead, 1.0)),
        }
    }
}
