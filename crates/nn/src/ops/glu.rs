//! The gate of the feed-forward network: `act(gate) · up`, one pass forward and one backward.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use tritforge_kernels::{Gate, glu as forward, glu_backward as backward};

use super::composed;
use super::values::{argument, on_kernels, values};

struct Glu {
    kind: Gate,
}

impl CustomOp2 for Glu {
    fn name(&self) -> &'static str {
        "gated"
    }

    fn cpu_fwd(
        &self,
        g: &CpuStorage,
        lg: &Layout,
        u: &CpuStorage,
        lu: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        if lg.shape() != lu.shape() {
            bail!("gated: gate {:?}, up {:?}", lg.shape(), lu.shape());
        }
        let gate = argument(g, lg)?;
        let mut y = vec![0f32; gate.len()];
        forward(self.kind, gate, argument(u, lu)?, &mut y);
        Ok((CpuStorage::F32(y), lg.shape().clone()))
    }

    fn bwd(
        &self,
        gate: &Tensor,
        up: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let mut dgate = vec![0f32; gate.elem_count()];
        let mut dup = vec![0f32; up.elem_count()];
        backward(
            self.kind,
            &values(gate)?,
            &values(up)?,
            &values(&grad.contiguous()?)?,
            &mut dgate,
            &mut dup,
        );
        let dgate = Tensor::from_vec(dgate, gate.shape(), gate.device())?;
        let dup = Tensor::from_vec(dup, up.shape(), up.device())?;
        Ok((Some(dgate), Some(dup)))
    }
}

/// `act(gate) · up`, element by element; both of one shape.
///
/// # Errors
/// If the shapes differ.
pub fn glu(kind: Gate, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    if on_kernels(&[gate, up]) {
        return gate.contiguous()?.apply_op2(&up.contiguous()?, Glu { kind });
    }
    composed::glu(kind, gate, up)
}
