//! The product of a low-rank adapter (LoRA, arXiv 2106.09685): `y = (s · x · Aᵀ) · Bᵀ`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};
use tritforge_kernels::{Matrix, WriteMode, gemm};

use super::values::{argument, rows_cols};

struct LowRank {
    scaling: f32,
}

impl CustomOp3 for LowRank {
    fn name(&self) -> &'static str {
        "low-rank"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        lx: &Layout,
        a: &CpuStorage,
        la: &Layout,
        b: &CpuStorage,
        lb: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ((tokens, cols), (rank, a_cols), (rows, b_cols)) =
            (rows_cols(lx)?, rows_cols(la)?, rows_cols(lb)?);
        if a_cols != cols || b_cols != rank {
            bail!("low-rank: input [{tokens}, {cols}], A [{rank}, {a_cols}], B [{rows}, {b_cols}]");
        }
        let mut product = vec![0f32; tokens * rank];
        let a = Matrix::f32(argument(a, la)?, rank, cols);
        gemm(Matrix::f32(argument(x, lx)?, tokens, cols), a.transposed(), &mut product, WriteMode::Overwrite);
        product.iter_mut().for_each(|h| *h *= self.scaling);
        let mut y = vec![0f32; tokens * rows];
        let b = Matrix::f32(argument(b, lb)?, rows, rank);
        gemm(Matrix::f32(&product, tokens, rank), b.transposed(), &mut y, WriteMode::Overwrite);
        Ok((CpuStorage::F32(y), (tokens, rows).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        a: &Tensor,
        b: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let scaling = f64::from(self.scaling);
        let product = (x.matmul(&a.t()?)? * scaling)?;
        let dproduct = (grad.matmul(b)? * scaling)?;
        let dx = dproduct.matmul(a)?;
        Ok((Some(dx), Some(dproduct.t()?.matmul(x)?), Some(grad.t()?.matmul(&product)?)))
    }
}

/// `y = (scaling · x · Aᵀ) · Bᵀ`: x [tokens, in], A [rank, in], B [out, rank], result [tokens, out].
///
/// # Errors
/// If shapes do not fit or a tensor is not contiguous f32 on the CPU.
pub fn low_rank(x: &Tensor, a: &Tensor, b: &Tensor, scaling: f32) -> Result<Tensor> {
    x.apply_op3(a, b, LowRank { scaling })
}
