//! Rotary position embedding (arXiv 2104.09864) in NeoX halves; its backward rotates back.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use tritforge_kernels::{Direction, RopeTable, rope_in_place};

use super::values::{argument, rows_cols, values};

struct Rope {
    table: Arc<RopeTable>,
    heads: usize,
    positions: Arc<[u32]>,
}

impl CustomOp1 for Rope {
    fn name(&self) -> &'static str {
        "rope"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        rows_cols(layout)?;
        let mut y = argument(storage, layout)?.to_vec();
        rope_in_place(&self.table, &mut y, self.heads, &self.positions, Direction::Forward);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = values(grad)?.to_vec();
        rope_in_place(&self.table, &mut dx, self.heads, &self.positions, Direction::Backward);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// Rotates every head of x [tokens, heads · head_dim] by its token's position.
///
/// # Errors
/// If the tensor is not a contiguous f32 matrix on the CPU.
pub fn rope(x: &Tensor, heads: usize, table: &Arc<RopeTable>, positions: &Arc<[u32]>) -> Result<Tensor> {
    x.apply_op1(Rope { table: Arc::clone(table), heads, positions: Arc::clone(positions) })
}
