//! The scales of a projection that are trained, beside its latent weight.

use super::Linear;
use crate::Tensor;

/// The trained scales of a weight, one for each part that shares one.
#[derive(Debug)]
pub(crate) struct LearnedScales {
    pub(crate) values: Tensor,
    /// Which of the model's parameters they are; [`crate::parameter::FROZEN`] where they are not trained.
    pub(crate) index: usize,
}

impl Linear {
    /// Gives the weight the scales that its quantizer learns.
    pub(crate) fn set_learned(&mut self, values: Tensor, index: usize) {
        self.learned = Some(LearnedScales { values, index });
        self.invalidate();
    }

    /// The learned scales.
    pub(crate) fn learned(&self) -> Option<&LearnedScales> {
        self.learned.as_ref()
    }
}
