//! BitLinear (BitNet b1.58, arXiv 2402.17764): int8 × ternary product forward, straight-through estimator
//! backward.
//!
//! Forward: `acc = Σ xq·wq` exactly, `y = acc · (s · s_x)`. Backward: the roundings and clamps count as the
//! identity, so `dx = dy · (wq·s)` and `dW = dyᵀ · (xq·s_x)`.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use tritforge_kernels::{QuantizedRows, TernaryWeights, quantize_rows, ternary_matmul};

use super::values::{argument, rows_cols};

struct BitLinear {
    weights: Arc<TernaryWeights>,
    /// The quantized input, kept for the backward: a quarter of the float input's bytes.
    input: Mutex<Option<QuantizedRows>>,
}

impl CustomOp2 for BitLinear {
    fn name(&self) -> &'static str {
        "bit-linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        _latent: &CpuStorage,
        latent_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (tokens, cols) = rows_cols(x_layout)?;
        let rows = self.weights.rows();
        if rows_cols(latent_layout)? != (rows, self.weights.cols()) || cols != self.weights.cols() {
            bail!(
                "bit-linear: input [{tokens}, {cols}], latent weight {:?}, quantized weight [{rows}, {}]",
                latent_layout.shape(),
                self.weights.cols()
            );
        }
        let input = quantize_rows(argument(x, x_layout)?, cols);
        let mut y = vec![0f32; tokens * rows];
        ternary_matmul(&input, &self.weights, &mut y);
        *self.input.lock().unwrap_or_else(PoisonError::into_inner) = Some(input);
        Ok((CpuStorage::F32(y), (tokens, rows).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        latent: &Tensor,
        _result: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let dx = if x.track_op() { Some(grad.matmul(&dequantize(&self.weights, grad)?)?) } else { None };
        if !latent.track_op() {
            return Ok((dx, None));
        }
        let input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(input) = input.as_ref() else { bail!("bit-linear: backward before forward") };
        let mut xq = vec![0f32; input.codes.len()];
        xq.par_chunks_exact_mut(input.cols)
            .zip(input.codes.par_chunks_exact(input.cols))
            .zip(&input.scales)
            .for_each(|((out, codes), scale)| {
                out.iter_mut().zip(codes).for_each(|(x, code)| *x = f32::from(*code) * scale);
            });
        let xq = Tensor::from_vec(xq, (input.scales.len(), input.cols), grad.device())?;
        Ok((dx, Some(grad.t()?.matmul(&xq)?)))
    }
}

/// The weights as the forward used them: `wq · s`, [rows, cols].
fn dequantize(weights: &TernaryWeights, like: &Tensor) -> Result<Tensor> {
    let scale = weights.scale();
    let values: Vec<f32> = weights.codes().par_iter().map(|code| f32::from(*code) * scale).collect();
    Tensor::from_vec(values, (weights.rows(), weights.cols()), like.device())
}

/// `y = BitLinear(x)`: x [tokens, in], `latent` [out, in] the trained weight, `weights` its quantized form
/// (of this step: the caller quantizes once a step, not once a call); the result is [tokens, out].
///
/// A latent weight that is not tracked (frozen) costs no gradient work.
///
/// # Errors
/// If shapes do not fit or a tensor is not contiguous f32 on the CPU.
pub fn bit_linear(x: &Tensor, latent: &Tensor, weights: &Arc<TernaryWeights>) -> Result<Tensor> {
    x.apply_op2(latent, BitLinear { weights: Arc::clone(weights), input: Mutex::new(None) })
}

struct FrozenBitLinear(Arc<TernaryWeights>);

impl CustomOp1 for FrozenBitLinear {
    fn name(&self) -> &'static str {
        "frozen-bit-linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, cols) = rows_cols(layout)?;
        let rows = self.0.rows();
        if cols != self.0.cols() {
            bail!(
                "frozen-bit-linear: input [{tokens}, {cols}], quantized weight [{rows}, {}]",
                self.0.cols()
            );
        }
        let mut y = vec![0f32; tokens * rows];
        ternary_matmul(&quantize_rows(argument(x, layout)?, cols), &self.0, &mut y);
        Ok((CpuStorage::F32(y), (tokens, rows).into()))
    }

    fn bwd(&self, _x: &Tensor, _result: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.matmul(&dequantize(&self.0, grad)?)?))
    }
}

/// [`bit_linear`] of a weight that has no latent form: x [tokens, in], result [tokens, out].
///
/// # Errors
/// As [`bit_linear`].
pub fn frozen_bit_linear(x: &Tensor, weights: &Arc<TernaryWeights>) -> Result<Tensor> {
    x.apply_op1(FrozenBitLinear(Arc::clone(weights)))
}
