//! Rotary position embedding (arXiv 2104.09864) in NeoX halves; its backward rotates back.

use std::sync::Arc;

use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use tritforge_config::ModelConfig;
use tritforge_kernels::{Direction, RopeTable, rope_in_place};

use super::composed;
use super::values::{argument, on_kernels, rows, values};

/// Cosines and sines of every position up to the longest context.
#[derive(Debug, Clone)]
pub struct RotaryEmbedding {
    table: Arc<RopeTable>,
    /// The same numbers for the composed form, [positions, head_dim / 2].
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
    head_dim: usize,
}

impl RotaryEmbedding {
    /// The tables of a model, scaled as `rope_scaling` says, on `device`.
    ///
    /// # Errors
    /// If `head_dim` is odd or the tables do not fit on the device.
    pub fn new(config: &ModelConfig, device: &Device) -> Result<Self> {
        if !config.head_dim.is_multiple_of(2) {
            bail!("head_dim: found {}, expected an even number: RoPE rotates pairs", config.head_dim);
        }
        let mut frequencies = RopeTable::frequencies(config.head_dim, config.rope_theta);
        let scaling = config.rope_scaling.as_ref();
        let factor = scaling.map_or(1.0, |scaling| scaling.apply(&mut frequencies, config.rope_theta));
        let positions = config.max_position_embeddings;
        let table = Arc::new(RopeTable::with_frequencies(&frequencies, factor, positions));
        let angles = || (0..positions).flat_map(|p| frequencies.iter().map(move |f| f64::from(p as f32 * f)));
        let shape = (positions, frequencies.len());
        let cos: Vec<f32> = angles().map(|a| a.cos() as f32 * factor).collect();
        let sin: Vec<f32> = angles().map(|a| a.sin() as f32 * factor).collect();
        let (cos, sin) = (Tensor::from_vec(cos, shape, device)?, Tensor::from_vec(sin, shape, device)?);
        Ok(Self { table, cos, sin, head_dim: config.head_dim })
    }
}

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
        let mut y = argument(storage, layout)?.to_vec();
        rope_in_place(&self.table, &mut y, self.heads, &self.positions, Direction::Forward);
        Ok((CpuStorage::F32(y), layout.shape().clone()))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let mut dx = values(&grad.contiguous()?)?.to_vec();
        rope_in_place(&self.table, &mut dx, self.heads, &self.positions, Direction::Backward);
        Ok(Some(Tensor::from_vec(dx, x.shape(), x.device())?))
    }
}

/// Rotates every head of x [tokens, heads · head_dim] by its token's position.
///
/// # Errors
/// If the shapes do not fit or a position is outside the longest context.
pub fn rope(x: &Tensor, heads: usize, table: &RotaryEmbedding, positions: &Arc<[u32]>) -> Result<Tensor> {
    let (tokens, width) = x.dims2()?;
    if tokens != positions.len() || width != heads * table.head_dim {
        bail!("rope: x [{tokens}, {width}], expected [{}, {heads} · {}]", positions.len(), table.head_dim);
    }
    let longest = table.cos.dim(0)?;
    if let Some(position) = positions.iter().find(|p| **p as usize >= longest) {
        bail!("rope: position {position}, expected less than max_position_embeddings = {longest}");
    }
    if !on_kernels(&[x]) {
        return composed::rope(x, heads, table, positions);
    }
    rows(x)?.apply_op1(Rope { table: Arc::clone(&table.table), heads, positions: Arc::clone(positions) })
}
