//! A full-precision linear layer whose backward transposes nothing.

use super::composed;
use super::values::rows;
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};

struct Linear;

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, cols) = lx.shape().dims2()?;
        let (rows, width) = lw.shape().dims2()?;
        if width != cols {
            bail!("linear: input [.., {cols}], weight [{rows}, {width}]");
        }
        let y = x.matmul(w, (1, tokens, rows, cols), lx, &lw.transpose(0, 1)?)?;
        Ok((y, (tokens, rows).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = if x.track_op() { Some(grad.matmul(w)?) } else { None };
        let dw = if w.track_op() { Some(grad.t()?.matmul(x)?) } else { None };
        Ok((dx, dw))
    }
}

/// `y = x · Wᵀ`: x [.., in], W [out, in], result [.., out]. candle's own `x.matmul(&w.t())` makes the
/// backward pay for a transposed gradient; a frozen side costs nothing here.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed::linear(x, weight);
    }
    let mut shape = x.dims().to_vec();
    let y = rows(x)?.apply_op2(weight, Linear)?;
    if let Some(width) = shape.last_mut() {
        *width = y.dim(1)?;
    }
    y.reshape(shape)
}
