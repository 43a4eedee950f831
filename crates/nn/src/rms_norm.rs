//! RMSNorm (arXiv 1910.07467) that can be trained: candle's own drops the gradients of its input and weight
//! without an error.

use candle_core::{Result, Tensor};
use candle_nn::{Init, Module, VarBuilder};

use crate::ops;

/// `x · (mean(x²) + eps)^-½ · weight` over the last dimension.
#[derive(Debug, Clone)]
pub struct RmsNorm {
    weight: Tensor,
    eps: f32,
}

impl RmsNorm {
    /// A norm of rows of `width`: the variable `weight` `[width]`, which begins with ones.
    ///
    /// # Errors
    /// If the `VarBuilder` lacks the variable or has it in another shape.
    pub fn new(width: usize, eps: f32, vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self { weight: vb.get_with_hints(width, "weight", Init::Const(1.0))?, eps })
    }

    /// The weight, `[width]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

impl Module for RmsNorm {
    /// x [.., width] to the same shape.
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        ops::rms_norm(x, &self.weight, self.eps)
    }
}
