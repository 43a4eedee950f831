//! What a loaded model is made of: its blocks and the matrices that stay in the file.

use tritforge_config::Projection;
use tritforge_kernels::{DenseType, TernaryWeights};
use tritforge_ternary::Packing;

/// A full-precision matrix that stays in the file.
#[derive(Debug)]
pub(crate) struct Dense {
    pub(crate) name: String,
    pub(crate) ty: DenseType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) attn_norm: Vec<f32>,
    pub(crate) attn_sub_norm: Vec<f32>,
    pub(crate) ffn_norm: Vec<f32>,
    pub(crate) ffn_sub_norm: Vec<f32>,
    /// In the order of [`Projection::ALL`].
    pub(crate) projections: Vec<TernaryWeights>,
    pub(crate) packings: Vec<Packing>,
}

/// One ternary tensor of a loaded model.
#[derive(Debug, Clone, Copy)]
pub struct TernaryInfo<'a> {
    /// The block, from 0.
    pub layer: usize,
    /// Which projection.
    pub projection: Projection,
    /// Codes, scale and shape.
    pub weights: &'a TernaryWeights,
    /// How the file packs it.
    pub packing: Packing,
}

impl Block {
    /// What `inspect` and `verify` want to know of the block's ternary tensors.
    pub(crate) fn info(&self, layer: usize) -> impl Iterator<Item = TernaryInfo<'_>> {
        Projection::ALL.iter().zip(&self.projections).zip(&self.packings).map(
            move |((p, weights), packing)| TernaryInfo { layer, projection: *p, weights, packing: *packing },
        )
    }
}
