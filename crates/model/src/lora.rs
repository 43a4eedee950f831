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

use rand::distr::Distribution;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;
use tritforge_config::{LoraConfig, LoraMode};
use tritforge_kernels::{DenseMatrix, Matrix, WriteMode, gemm};

use crate::decoder::StandardNormal;
use crate::{Decoder, ModelError, Tensor};

/// The low-rank product of one projection: A [rank, in], B [out, rank].
#[derive(Debug)]
pub(crate) struct Adapter {
    pub(crate) a: Tensor,
    pub(crate) b: Tensor,
    /// That of A: [rank, in].
    pub(crate) shape: [usize; 2],
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
    pub(crate) fn dims(&self) -> (usize, usize, usize) {
        let ([rank, cols], rows) = (self.shape, self.b.len() / self.shape[0]);
        (rank, cols, rows)
    }

    /// `latent + scaling · B · A`: what is quantized in [`LoraMode::QatLora`], and what a merge writes.
    pub(crate) fn merged(&self, latent: &[f32]) -> Vec<f32> {
        let (_, cols, rows) = self.dims();
        merge_adapter(latent, &self.a.read(), &self.b.read(), [rows, cols], self.scaling)
    }

    /// The codes that the forward of [`LoraMode::Lota`] multiplies, and a merge writes, from the base's.
    pub(crate) fn merged_codes(&self, codes: &[i8]) -> Vec<i8> {
        let (_, cols, rows) = self.dims();
        merge_ternary_adapter(codes, &self.a.read(), &self.b.read(), [rows, cols], self.omega)
    }

    /// Adds `scaling · B(A(x))` to y as the deployed engine does, in its order of summation: x [tokens, in],
    /// y [tokens, out].
    pub(crate) fn add_exactly(&self, x: &[f32], y: &mut [f32]) {
        let (rank, cols, rows) = self.dims();
        let mut inner = vec![0f32; x.len() / cols * rank];
        DenseMatrix::from_f32(&self.a.read(), rank, cols).matmul(x, &mut inner);
        inner.iter_mut().for_each(|h| *h *= self.scaling);
        let mut product = vec![0f32; y.len()];
        DenseMatrix::from_f32(&self.b.read(), rows, rank).matmul(&inner, &mut product);
        y.iter_mut().zip(product).for_each(|(y, product)| *y += product);
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
) -> impl FnMut(&str, &[usize]) -> Result<Vec<f32>, ModelError> {
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
    pub fn merged(&self) -> Result<Vec<(String, Vec<f32>)>, ModelError> {
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
                if let Some(latent) = block.linear(projection).latent() {
                    merged.push((projection.hf_weight(block.shape.layer), latent));
                }
            }
        }
        Ok(merged)
    }
}
