//! BitLinear (BitNet b1.58, arXiv 2402.17764): int8 × ternary product forward, straight-through estimator
//! backward.
//!
//! Forward: `acc = Σ xq·wq` exactly, `y = acc · (s · s_x)`, or `y = s_x · Σ_g s_g · acc_g` where groups of inputs have
//! scales. Backward: the roundings and clamps count as the identity, so `dx = dy · (wq·s)` and
//! `dW = dyᵀ · (xq·s_x)`.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;
use tritforge_kernels::{QuantizedRows, TernaryWeights, quantize_rows, ternary_matmul};

use super::values::{argument, on_kernels, rows, rows_cols, values};
use super::{WeightScheme, composed};

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
    let codes = weights.codes();
    let mut values = vec![0f32; codes.len()];
    weights.scales().apply(&codes, weights.cols(), &mut values);
    Tensor::from_vec(values, (weights.rows(), weights.cols()), like.device())
}

/// `y = BitLinear(x)`: x [.., in], `latent` [out, in] the trained weight; the result is [.., out]. The weight
/// is quantized at every call.
///
/// A latent weight that is not tracked (frozen) costs no gradient work.
///
/// # Errors
/// If the shapes do not fit.
pub fn bit_linear(x: &Tensor, latent: &Tensor) -> Result<Tensor> {
    bit_linear_by(&WeightScheme::default(), x, latent)
}

/// [`bit_linear`] by any quantizer and granularity.
///
/// # Errors
/// If the shapes do not fit, or a group does not divide the inputs.
pub fn bit_linear_by(scheme: &WeightScheme, x: &Tensor, latent: &Tensor) -> Result<Tensor> {
    if !on_kernels(&[x, latent]) {
        return composed::bit_linear_by(scheme, x, latent);
    }
    let latent = latent.contiguous()?;
    let (out, cols) = latent.dims2()?;
    let weights = {
        let numbers = values(&latent)?;
        Arc::new(TernaryWeights::quantize(&numbers, out, cols, scheme.fit(&numbers, &[out, cols])?))
    };
    let y = rows(x)?.apply_op2(&latent, BitLinear { weights, input: Mutex::new(None) })?;
    let mut shape = x.dims().to_vec();
    if let Some(width) = shape.last_mut() {
        *width = out;
    }
    y.reshape(shape)
}
