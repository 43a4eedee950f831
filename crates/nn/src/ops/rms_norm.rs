//! RMSNorm (arXiv 1910.07467): candle's fused one drops gradients silently, this one has them.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use tritforge_kernels::{WriteMode, rms_norm as forward, rms_norm_backward as backward};

use super::composed;
use super::values::{argument, on_kernels, rows, rows_cols, values};

struct RmsNorm {
    eps: f32,
}

impl CustomOp2 for RmsNorm {
    fn name(&self) -> &'static str {
        "rms-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        w: &CpuStorage,
        lw: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (_, width) = rows_cols(lx)?;
        if lw.shape().dims() != [width] {
            bail!("rms-norm: input {:?}, weight {:?}", lx.shape(), lw.shape());
        }
        let x = argument(x, lx)?;
        let mut y = vec![0f32; x.len()];
        forward(x, argument(w, lw)?, self.eps, &mut y);
        Ok((CpuStorage::F32(y), lx.shape().clone()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut dx = vec![0f32; x.elem_count()];
        let mut dw = vec![0f32; w.elem_count()];
        let (dx_sum, dw_sum) = ((&mut dx[..], WriteMode::Overwrite), (&mut dw[..], WriteMode::Overwrite));
        backward(&values(x)?, &values(w)?, self.eps, &values(&grad.contiguous()?)?, dx_sum, Some(dw_sum));
        let dx = Tensor::from_vec(dx, x.shape(), x.device())?;
        let dw = Tensor::from_vec(dw, w.shape(), w.device())?;
        Ok((Some(dx), Some(dw)))
    }
}

/// `x · (mean(x²) + eps)^-½ · weight` of every row: x [.., width], weight `[width]`.
///
/// # Errors
/// If the shapes do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    if on_kernels(&[x, weight]) {
        return rows(x)?.apply_op2(&weight.contiguous()?, RmsNorm { eps })?.reshape(x.shape());
    }
    composed::rms_norm(x, weight, eps)
}
