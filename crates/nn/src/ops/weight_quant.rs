//! Ternary weights as floats (`wq · s`) with a straight-through backward, for models whose activations stay
//! float.

use candle_core::{CpuStorage, CustomOp1, Error, Layout, Result, Shape, Tensor, bail};
use tritforge_ternary::{Fitted, Granularity, WeightQuantizer};

use super::composed;
use super::values::{argument, on_kernels};

/// How latent weights become codes and scales.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WeightScheme {
    /// What computes them: absmean by default.
    pub quantizer: WeightQuantizer,
    /// Which weights share a scale: all by default.
    pub granularity: Granularity,
}

impl WeightScheme {
    /// Whether it is BitNet's: absmean with one scale.
    pub(super) fn is_bitnet(&self) -> bool {
        *self == Self::default()
    }

    /// Steps and scales of latent weights of any shape; rows and groups are those of a matrix.
    pub(super) fn fit(&self, weights: &[f32], shape: &[usize]) -> Result<Fitted> {
        let matrix = match (shape, self.granularity) {
            ([rows, cols], _) => [*rows, *cols],
            (_, Granularity::Tensor) => [1, weights.len()],
            _ => bail!("weights of shape {shape:?} have no rows: expected [out, in], or one scale"),
        };
        self.quantizer.fit(self.granularity, weights, matrix).map_err(Error::wrap)
    }
}

struct WeightQuant(WeightScheme);

impl CustomOp1 for WeightQuant {
    fn name(&self) -> &'static str {
        "ternary-weights"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let weights = argument(storage, layout)?;
        let values = ternary_values(&self.0, weights, layout.dims())?;
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, _weights: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// Codes times their scales.
pub(super) fn ternary_values(scheme: &WeightScheme, weights: &[f32], shape: &[usize]) -> Result<Vec<f32>> {
    let fitted = scheme.fit(weights, shape)?;
    let cols = match *shape {
        [_, cols] => cols,
        _ => weights.len(),
    };
    let (mut codes, mut values) = (vec![0i8; weights.len()], vec![0f32; weights.len()]);
    if !weights.is_empty() {
        fitted.codes(0, cols, weights, &mut codes);
        fitted.scales().apply(&codes, cols, &mut values);
    }
    Ok(values)
}

/// The ternary values `wq · s` of latent weights, any shape, by absmean with one scale; the gradient passes
/// unchanged.
///
/// # Errors
/// If candle refuses an operation.
pub fn fake_quantize_weights(latent: &Tensor) -> Result<Tensor> {
    fake_quantize_weights_by(&WeightScheme::default(), latent)
}

/// [`fake_quantize_weights`] by any quantizer and granularity.
///
/// # Errors
/// If candle refuses an operation, or the granularity does not fit the shape.
pub fn fake_quantize_weights_by(scheme: &WeightScheme, latent: &Tensor) -> Result<Tensor> {
    if on_kernels(&[latent]) {
        return latent.contiguous()?.apply_op1(WeightQuant(*scheme));
    }
    composed::fake_quantize_weights_by(scheme, latent)
}
