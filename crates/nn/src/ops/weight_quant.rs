//! Absmean weights as floats (`wq · s`) with a straight-through backward, for models whose activations stay
//! float.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use tritforge_ternary::{absmean, weight_codes};

use super::composed;
use super::values::{argument, on_kernels};

struct WeightQuant;

impl CustomOp1 for WeightQuant {
    fn name(&self) -> &'static str {
        "absmean-weights"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let weights = argument(storage, layout)?;
        let scale = absmean(weights);
        let mut codes = vec![0i8; weights.len()];
        weight_codes(weights, scale, &mut codes);
        let values = codes.into_iter().map(|code| f32::from(code) * scale).collect();
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, _weights: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// The ternary values `wq · s` of latent weights, any shape, one scale; the gradient passes unchanged.
///
/// # Errors
/// If candle refuses an operation.
pub fn fake_quantize_weights(latent: &Tensor) -> Result<Tensor> {
    if on_kernels(&[latent]) {
        return latent.contiguous()?.apply_op1(WeightQuant);
    }
    composed::fake_quantize_weights(latent)
}
