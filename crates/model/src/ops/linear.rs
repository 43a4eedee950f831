//! A full-precision linear layer whose backward transposes nothing.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};

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
        let (rows, _) = lw.shape().dims2()?;
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

/// `y = x · Wᵀ`: x [tokens, in], W [out, in], result [tokens, out]. candle's own `x.matmul(&w.t())` makes the
/// backward pay for a transposed gradient; a frozen side costs nothing here.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.apply_op2(weight, Linear)
}
