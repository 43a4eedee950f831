//! The ops put together from candle's own differentiable operations: what runs on GPUs and in other types
//! than f32. Gradients are those of the fused ops.
//!
//! f16 and bf16 inputs are quantized, normalized and scored in f32 and rounded back.

use candle_core::{D, DType, Result, Tensor, bail};
use tritforge_kernels::{AttentionShape, Gate};
use tritforge_ternary::EPS;

use super::weight_quant::ternary_values;
use super::{IGNORE_INDEX, RotaryEmbedding, WeightScheme};

/// The type in which norms, scales and losses are computed.
fn wide(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Rounds half to even, as PyTorch does; candle's `round` rounds half away from zero. For |x| below 2²².
///
/// Adding 1.5 · 2²³ (f64: 1.5 · 2⁵²) leaves no bits after the point, and the addition itself rounds half to
/// even.
fn round_half_even(x: &Tensor) -> Result<Tensor> {
    let big = if x.dtype() == DType::F64 { 1.5 * 2f64.powi(52) } else { 1.5 * 2f64.powi(23) };
    (x + big)? - big
}

/// `value` going forward, the gradient of `x` going back.
fn straight_through(value: &Tensor, x: &Tensor) -> Result<Tensor> {
    // x − x is exactly 0.
    value.detach() + (x - x.detach())?
}

/// int8 codes of rows as floats and the scale of each, [.., 1]; the codes' gradient is that of x / scale.
fn activation_codes(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let absmax = x.detach().abs()?.max_keepdim(D::Minus1)?;
    let absmax = absmax.maximum(f64::from(EPS))?;
    // 127 / absmax in one rounding, as the kernels have it.
    let inverse = ((absmax.ones_like()? * 127.0)? / &absmax)?;
    let scaled = x.broadcast_mul(&inverse)?;
    let codes = round_half_even(&scaled.detach().clamp(-128.0, 127.0)?)?;
    Ok((straight_through(&codes, &scaled)?, (absmax / 127.0)?))
}

/// Ternary codes as floats and their scale, `[1]`; the codes' gradient is that of w / scale.
fn weight_codes(latent: &Tensor) -> Result<(Tensor, Tensor)> {
    let scale = latent.detach().abs()?.flatten_all()?.mean_keepdim(0)?.maximum(f64::from(EPS))?;
    let scaled = latent.broadcast_mul(&scale.recip()?)?;
    let codes = round_half_even(&scaled.detach().clamp(-1.0, 1.0)?)?;
    Ok((straight_through(&codes, &scaled)?, scale))
}

/// As [`super::fake_quantize_activations`].
///
/// # Errors
/// If candle refuses an operation.
pub fn fake_quantize_activations(x: &Tensor) -> Result<Tensor> {
    let (codes, scale) = activation_codes(&x.to_dtype(wide(x.dtype()))?)?;
    codes.broadcast_mul(&scale)?.to_dtype(x.dtype())
}

/// As [`super::fake_quantize_weights`].
///
/// # Errors
/// If candle refuses an operation.
pub fn fake_quantize_weights(latent: &Tensor) -> Result<Tensor> {
    let (codes, scale) = weight_codes(&latent.to_dtype(wide(latent.dtype()))?)?;
    codes.broadcast_mul(&scale)?.to_dtype(latent.dtype())
}

/// As [`super::fake_quantize_weights_by`]; other quantizers than absmean with one scale compute their values on the
/// CPU, in f32.
///
/// # Errors
/// If candle refuses an operation, or the granularity does not fit the shape.
pub fn fake_quantize_weights_by(scheme: &WeightScheme, latent: &Tensor) -> Result<Tensor> {
    if scheme.is_bitnet() {
        return fake_quantize_weights(latent);
    }
    let numbers = latent.detach().to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let values = ternary_values(scheme, &numbers, latent.dims())?;
    let values = Tensor::from_vec(values, latent.shape(), latent.device())?.to_dtype(latent.dtype())?;
    straight_through(&values, latent)
}

/// As [`super::bit_linear_by`]; scales of rows and groups are multiplied into the weight.
///
/// # Errors
/// If the shapes do not fit.
pub fn bit_linear_by(scheme: &WeightScheme, x: &Tensor, latent: &Tensor) -> Result<Tensor> {
    if scheme.is_bitnet() {
        return bit_linear(x, latent);
    }
    let dtype = wide(x.dtype());
    let (input, input_scale) = activation_codes(&x.to_dtype(dtype)?)?;
    let weight = fake_quantize_weights_by(scheme, &latent.to_dtype(dtype)?)?;
    linear(&input, &weight)?.broadcast_mul(&input_scale)?.to_dtype(x.dtype())
}

/// As [`super::bit_linear`]: the product is of integers, which floats hold exactly, and is scaled afterwards.
///
/// # Errors
/// If the shapes do not fit.
pub fn bit_linear(x: &Tensor, latent: &Tensor) -> Result<Tensor> {
    let dtype = wide(x.dtype());
    let (input, input_scale) = activation_codes(&x.to_dtype(dtype)?)?;
    let (weight, scale) = weight_codes(&latent.to_dtype(dtype)?)?;
    linear(&input, &weight)?.broadcast_mul(&input_scale.broadcast_mul(&scale)?)?.to_dtype(x.dtype())
}

/// As [`super::linear`].
///
/// # Errors
/// If the shapes do not fit.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (out, width) = weight.dims2()?;
    let mut shape = x.dims().to_vec();
    match shape.last_mut() {
        Some(last) if *last == width => *last = out,
        _ => bail!("linear: input {:?}, weight [{out}, {width}]", x.shape()),
    }
    x.reshape(((), width))?.matmul(&weight.t()?)?.reshape(shape)
}

/// As [`super::rms_norm`].
///
/// # Errors
/// If the shapes do not fit.
pub fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let wide_x = x.to_dtype(wide(x.dtype()))?;
    let mean = wide_x.sqr()?.mean_keepdim(D::Minus1)?;
    let normed = wide_x.broadcast_div(&(mean + f64::from(eps))?.sqrt()?)?;
    normed.to_dtype(x.dtype())?.broadcast_mul(weight)
}

/// As [`super::glu`].
///
/// # Errors
/// If the shapes differ.
pub fn glu(kind: Gate, gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    match kind {
        Gate::Silu => gate.silu()? * up,
        Gate::Relu2 => gate.relu()?.sqr()? * up,
        Gate::Relu => gate.relu()? * up,
        Gate::Gelu => gate.gelu_erf()? * up,
        Gate::GeluTanh => gate.gelu()? * up,
    }
}

/// As [`super::embedding`].
///
/// # Errors
/// If an id is outside the vocabulary.
pub fn embedding(table: &Tensor, ids: &[u32]) -> Result<Tensor> {
    let rows = table.dim(0)?;
    if let Some(id) = ids.iter().find(|id| **id as usize >= rows) {
        bail!("token id {id} is outside the vocabulary of {rows}");
    }
    table.index_select(&Tensor::new(ids, table.device())?, 0)
}

/// As [`super::rope()`].
///
/// # Errors
/// If the shapes do not fit.
pub fn rope(x: &Tensor, heads: usize, table: &RotaryEmbedding, positions: &[u32]) -> Result<Tensor> {
    let positions = Tensor::new(positions, x.device())?;
    let angle = |t: &Tensor| t.index_select(&positions, 0)?.unsqueeze(1)?.to_dtype(x.dtype());
    let (cos, sin) = (angle(&table.cos)?, angle(&table.sin)?);
    let (tokens, width) = x.dims2()?;
    let half = width / heads / 2;
    let by_head = x.reshape((tokens, heads, 2 * half))?;
    let (first, second) = (by_head.narrow(2, 0, half)?, by_head.narrow(2, half, half)?);
    let rotated_first = (first.broadcast_mul(&cos)? - second.broadcast_mul(&sin)?)?;
    let rotated_second = (second.broadcast_mul(&cos)? + first.broadcast_mul(&sin)?)?;
    Tensor::cat(&[rotated_first, rotated_second], 2)?.reshape((tokens, width))
}

/// As [`super::attention`]; keeps the [heads, length, length] probabilities of every segment.
///
/// # Errors
/// If the shapes do not fit.
pub fn attention(
    shape: AttentionShape,
    lengths: &[usize],
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
) -> Result<Tensor> {
    let AttentionShape { heads, kv_heads, head_dim } = shape;
    let group = heads / kv_heads;
    let mut outputs = Vec::with_capacity(lengths.len());
    let mut start = 0;
    for &length in lengths {
        // [kv_heads, n · length, head_dim]: the queries of a group share their keys.
        let q = q.narrow(0, start, length)?.reshape((length, kv_heads, group, head_dim))?;
        let q = q.permute((1, 2, 0, 3))?.contiguous()?.reshape((kv_heads, group * length, head_dim))?;
        let of_kv = |t: &Tensor| {
            t.narrow(0, start, length)?.reshape((length, kv_heads, head_dim))?.transpose(0, 1)?.contiguous()
        };
        let (k, v) = (of_kv(k)?, of_kv(v)?);
        let scores = (q.matmul(&k.t()?)? * (head_dim as f64).sqrt().recip())?;
        let scores = scores.to_dtype(wide(scores.dtype()))?.reshape((heads, length, length))?;
        let mask: Vec<f32> = (0..length)
            .flat_map(|row| (0..length).map(move |col| if col > row { f32::NEG_INFINITY } else { 0.0 }))
            .collect();
        let mask = Tensor::from_vec(mask, (1, length, length), q.device())?.to_dtype(scores.dtype())?;
        let probabilities = candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, D::Minus1)?;
        let probabilities = probabilities.to_dtype(v.dtype())?.reshape((kv_heads, group * length, length))?;
        let y = probabilities.matmul(&v)?.reshape((heads, length, head_dim))?;
        outputs.push(y.transpose(0, 1)?.contiguous()?.reshape((length, heads * head_dim))?);
        start += length;
    }
    Tensor::cat(&outputs, 0)
}

/// As [`super::linear_cross_entropy`]; keeps the logits of all rows that have a target.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_cross_entropy(
    hidden: &Tensor,
    weight: &Tensor,
    targets: &[u32],
    normalizer: f32,
) -> Result<Tensor> {
    let device = hidden.device();
    let (rows, targets): (Vec<u32>, Vec<u32>) =
        (0u32..).zip(targets).filter(|(_, target)| **target != IGNORE_INDEX).unzip();
    let dtype = wide(hidden.dtype());
    if rows.is_empty() {
        return hidden.sum_all()?.to_dtype(dtype)? * 0.0;
    }
    let count = rows.len();
    let hidden = hidden.index_select(&Tensor::from_vec(rows, count, device)?, 0)?;
    let logits = linear(&hidden, weight)?.to_dtype(dtype)?;
    let targets = Tensor::from_vec(targets, (count, 1), device)?;
    let scores = candle_nn::ops::log_softmax(&logits, D::Minus1)?.gather(&targets, 1)?;
    scores.sum_all()? * (-1.0 / f64::from(normalizer))
}
