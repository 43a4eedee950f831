//! A low-rank adapter (LoRA, arXiv 2106.09685) beside a frozen `BitLinear`.

use candle_core::{Result, Tensor};
use candle_nn::{Init, Module, VarBuilder};

use crate::{BitLinear, NnError, ops};

/// `y = BitLinear(x) + (alpha / rank) · x · Aᵀ · Bᵀ`. The adapter sees the input as it is, not quantized,
/// as in peft.
#[derive(Debug, Clone)]
pub struct LoraLinear {
    base: BitLinear,
    a: Tensor,
    b: Tensor,
    scaling: f64,
}

impl LoraLinear {
    /// An adapter on `base`, whose weight and bias get no gradient through this layer. The variables are
    /// named as in peft: `lora_A.weight` [rank, in], Kaiming-uniform, and `lora_B.weight` [out, rank], zeros,
    /// so that the layer begins as its base.
    ///
    /// # Errors
    /// If the rank is 0, or the `VarBuilder` lacks a variable or has it in another shape.
    pub fn new(
        base: &BitLinear,
        rank: usize,
        alpha: f64,
        vb: VarBuilder<'_>,
    ) -> std::result::Result<Self, NnError> {
        if rank == 0 || !alpha.is_finite() {
            return Err(NnError::Input {
                what: "rank and alpha of an adapter",
                found: format!("{rank} and {alpha}"),
                expected: "a rank of at least 1 and a finite alpha".to_string(),
            });
        }
        let (out, width) = base.weight().dims2()?;
        let kaiming = candle_nn::init::DEFAULT_KAIMING_UNIFORM;
        let a = vb.pp("lora_A").get_with_hints((rank, width), "weight", kaiming)?;
        let b = vb.pp("lora_B").get_with_hints((out, rank), "weight", Init::Const(0.0))?;
        Ok(Self { base: base.frozen(), a, b, scaling: alpha / rank as f64 })
    }

    /// The frozen layer.
    pub fn base(&self) -> &BitLinear {
        &self.base
    }
}

impl Module for LoraLinear {
    /// x [.., in] to [.., out].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let low_rank = (ops::linear(x, &self.a)? * self.scaling)?;
        self.base.forward(x)? + ops::linear(&low_rank, &self.b)?
    }
}
