//! Per-token absmax activations as floats (`xq · s_x`) with a straight-through backward, for full-precision
//! weights.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use tritforge_kernels::quantize_rows;

use super::composed;
use super::values::{argument, on_kernels, rows, rows_cols};

struct ActivationQuant;

impl CustomOp1 for ActivationQuant {
    fn name(&self) -> &'static str {
        "absmax-activations"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (_, cols) = rows_cols(layout)?;
        let rows = quantize_rows(argument(storage, layout)?, cols);
        let values = rows
            .codes
            .chunks_exact(cols)
            .zip(&rows.scales)
            .flat_map(|(codes, scale)| codes.iter().map(move |code| f32::from(*code) * scale))
            .collect();
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.clone()))
    }
}

/// The int8 values `xq · s_x` of activations [.., width], one scale a row; the gradient passes
/// unchanged.
///
/// # Errors
/// If candle refuses an operation.
pub fn fake_quantize_activations(x: &Tensor) -> Result<Tensor> {
    if on_kernels(&[x]) {
        return rows(x)?.apply_op1(ActivationQuant)?.reshape(x.shape());
    }
    composed::fake_quantize_activations(x)
}
