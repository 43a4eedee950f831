//! Low-rank adapters on frozen weights (LoRA, arXiv 2106.09685): beside a projection, or inside its
//! quantizer.
//!
//! [`Decoder::load_adapted`] loads a base that is never changed, with an adapter on some of its projections:
//! the adapter's matrices are the model's only parameters, so gradients and optimizer state are no larger
//! than it is. Where the adapter stands beside the projections ([`tritforge_config::LoraMode::Adapter`])
//! ternary weights are kept as codes alone; inside the quantizer ([`tritforge_config::LoraMode::QatLora`])
//! the latent weights stay, and [`crate::Linear::latent`] of a projection is its merged weight: quantized, it
//! has the codes and the scale of the forward, since both come from one function. In
//! [`tritforge_config::LoraMode::Lota`] the adapter's matrices are ternary themselves and move the base's
//! codes ([`merge_ternary_adapter`]): the codes of the forward are the merged ones, and no latent weights are
//! needed.

use candle_core::{Result, Tensor, Var};
use rand::distr::Distribution;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tritforge_config::{LoraConfig, LoraMode};
use tritforge_kernels::{DenseMatrix, Matrix, WriteMode, gemm};

use crate::decoder::StandardNormal;
use crate::{Decoder, ModelError, ops};

/// The low-rank product of one projection: A [rank, in], B [out, rank].
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) a: Var,
    pub(crate) b: Var,
    /// Which of the model's parameters A is; B follows.
    pub(crate) index: usize,
    pub(crate) mode: LoraMode,
    /// What the product is multiplied by; in [`LoraMode::Lota`] the scale of the codes that it moves.
    pub(crate) scaling: f32,
    pub(crate) dropout: f32,
    /// ω of [`LoraMode::Lota`].
    pub(crate) omega: f32,
}

impl Adapter {
    /// (rank, in, out).
    pub(crate) fn dims(&self) -> Result<(usize, usize, usize)> {
        let (rank, cols) = self.a.dims2()?;
        Ok((rank, cols, self.b.dims2()?.0))
    }

    /// `latent + scaling · B · A`: what is quantized in [`LoraMode::QatLora`], and what a merge writes.
    pub(crate) fn merged(&self, latent: &[f32]) -> Result<Vec<f32>> {
        let (_, cols, rows) = self.dims()?;
        let (a, b) = (ops::values(&self.a)?, ops::values(&self.b)?);
        Ok(merge_adapter(latent, &a, &b, [rows, cols], self.scaling))
    }

    /// The codes that the forward of [`LoraMode::Lota`] multiplies, and a merge writes, from the base's.
    pub(crate) fn merged_codes(&self, codes: &[i8]) -> Result<Vec<i8>> {
        let (_, cols, rows) = self.dims()?;
        let (a, b) = (ops::values(&self.a)?, ops::values(&self.b)?);
        Ok(merge_ternary_adapter(codes, &a, &b, [rows, cols], self.omega))
    }

    /// The merged codes times their scale as a tensor on the tape: gradients pass threshold and clip straight
    /// to A and B.
    pub(crate) fn ternary_tensor(&self, codes: &[i8]) -> Result<Tensor> {
        let product = (self.b.as_tensor() * f64::from(self.scaling))?.matmul(&self.a)?;
        let values: Vec<f32> = codes.iter().map(|code| f32::from(*code) * self.scaling).collect();
        let values = Tensor::from_vec(values, product.shape(), product.device())?;
        let rest = (values - product.detach())?;
        product + rest
    }

    /// [`Self::merged`] as a tensor; on the tape, gradients pass the quantizer straight to A and B.
    pub(crate) fn merged_tensor(&self, latent: &Var, track: bool) -> Result<Tensor> {
        let latent = latent.as_detached_tensor();
        if !track {
            let merged = self.merged(&ops::values(&latent)?)?;
            return Tensor::from_vec(merged, latent.dims2()?, latent.device());
        }
        latent + (self.b.as_tensor() * f64::from(self.scaling))?.matmul(&self.a)?
    }

    /// `scaling · B(A(x))`: x [tokens, in], result [tokens, out]. Off the tape by the kernels of the engine,
    /// in its order.
    pub(crate) fn forward(&self, x: &Tensor, track: bool) -> Result<Tensor> {
        if track {
            return ops::low_rank(x, &self.a, &self.b, self.scaling);
        }
        let (rank, cols, rows) = self.dims()?;
        let tokens = x.dims2()?.0;
        let mut inner = vec![0f32; tokens * rank];
        DenseMatrix::from_f32(&ops::values(&self.a)?, rank, cols).matmul(&ops::values(x)?, &mut inner);
        inner.iter_mut().for_each(|h| *h *= self.scaling);
        let mut y = vec![0f32; tokens * rows];
        DenseMatrix::from_f32(&ops::values(&self.b)?, rows, rank).matmul(&inner, &mut y);
        Tensor::from_vec(y, (tokens, rows), x.device())
    }
}

/// `latent + scaling · B · A`: latent [rows, cols], A [rank, cols], B [rows, rank]. Training and merging both
/// call this, so that a merged weight is, bit for bit, what training quantized.
///
/// # Panics
/// If a length does not fit the shape.
pub fn merge_adapter(
    latent: &[f32],
    a: &[f32],
    b: &[f32],
    [rows, cols]: [usize; 2],
    scaling: f32,
) -> Vec<f32> {
    let rank = b.len() / rows;
    let b: Vec<f32> = b.iter().map(|b| b * scaling).collect();
    let mut merged = latent.to_vec();
    gemm(Matrix::f32(&b, rows, rank), Matrix::f32(a, rank, cols), &mut merged, WriteMode::Accumulate);
    merged
}

/// Rows of ΔW that are computed at once: the whole matrix in f32 would be four times the codes.
const ROWS: usize = 64;

/// `clip(W + sign(ΔW)·1[|ΔW| > ω], -1, 1)` with `ΔW = B·A` (LoTA-QAF, arXiv 2505.18724, without its offset
/// μ): codes [rows, cols] of the base, A [rank, cols] and B [rows, rank] of -1, 0 and 1. ΔW is a sum of at
/// most `rank` such numbers, exact in f32. Training and merging both call this: the merged codes are those of
/// the forward.
///
/// # Panics
/// If a length does not fit the shape.
pub fn merge_ternary_adapter(
    codes: &[i8],
    a: &[f32],
    b: &[f32],
    [rows, cols]: [usize; 2],
    omega: f32,
) -> Vec<i8> {
    assert_eq!(codes.len(), rows * cols, "a code for every weight");
    let rank = b.len() / rows;
    let mut merged = codes.to_vec();
    let mut delta = vec![0f32; ROWS.min(rows) * cols];
    for (codes, b) in merged.chunks_mut(ROWS * cols).zip(b.chunks(ROWS * rank)) {
        let delta = &mut delta[..codes.len()];
        let b = Matrix::f32(b, codes.len() / cols, rank);
        gemm(b, Matrix::f32(a, rank, cols), delta, WriteMode::Overwrite);
        for (code, delta) in codes.iter_mut().zip(&*delta) {
            let moved = i8::from(*delta > omega) - i8::from(*delta < -omega);
            *code = (*code + moved).clamp(-1, 1);
        }
    }
    merged
}

/// The first values of an adapter's matrices, by name and shape, to be given to [`Decoder::load_adapted`]. As
/// peft draws them: A from U(−1/√in, 1/√in), B 0. For [`LoraMode::Lota`] as LoTA-QAF does: A normal, then
/// ternary with a threshold of 0.75 of its mean magnitude, B 0.
pub fn initial_adapter(
    mode: LoraMode,
    seed: u64,
) -> impl FnMut(&str, &[usize]) -> std::result::Result<Vec<f32>, ModelError> {
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    move |name, shape| {
        let n: usize = shape.iter().product();
        if name.contains("lora_B") {
            return Ok(vec![0.0; n]);
        }
        if mode == LoraMode::Lota {
            let drawn: Vec<f64> = (0..n).map(|_| StandardNormal.sample(&mut rng)).collect();
            let threshold = 0.75 * drawn.iter().map(|x| x.abs()).sum::<f64>() / n.max(1) as f64;
            return Ok(drawn
                .iter()
                .map(|x| if x.abs() > threshold { x.signum() as f32 } else { 0.0 })
                .collect());
        }
        let bound = 1.0 / (shape.last().copied().unwrap_or(1).max(1) as f32).sqrt();
        Ok((0..n).map(|_| (2.0 * rng.random::<f32>() - 1.0) * bound).collect())
    }
}

impl Decoder {
    /// The adapter of a model from [`Decoder::load_adapted`].
    pub fn lora(&self) -> Option<&LoraConfig> {
        self.lora.as_ref()
    }

    /// The base's weights with the adapter inside: every projection's name and latent weight, [out, in].
    /// Quantized, they are what the forward multiplied.
    ///
    /// # Errors
    /// If the model has no adapter in [`LoraMode::QatLora`]; for one in [`LoraMode::Lota`] see
    /// [`crate::Linear::quantized`].
    pub fn merged(&self) -> std::result::Result<Vec<(String, Vec<f32>)>, ModelError> {
        let mode = self.lora.as_ref().map(|lora| lora.mode);
        if mode != Some(LoraMode::QatLora) {
            return Err(ModelError::Input {
                what: "an exact merge",
                found: mode.map_or("a model without adapter".to_string(), |m| format!("mode {}", m.name())),
                expected: "mode qat_lora: only there is the adapter part of what is quantized".to_string(),
            });
        }
        let mut merged = Vec::new();
        for block in &self.blocks {
            for projection in tritforge_config::Projection::ALL {
                if let Some(latent) = block.linear(projection).latent()? {
                    merged.push((projection.hf_weight(block.layer), latent));
                }
            }
        }
        Ok(merged)
    }
}
