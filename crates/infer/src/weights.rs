//! What a loaded model is made of: its blocks, their ternary and full-precision matrices.

use tritforge_config::Projection;
use tritforge_gguf::{Gguf, TensorInfo};
use tritforge_kernels::{DenseMatrix, DenseType, TernaryWeights};
use tritforge_model::{Norms, Tensor};
use tritforge_ternary::Packing;

/// A full-precision matrix.
#[derive(Debug)]
pub(crate) struct Dense {
    pub(crate) ty: DenseType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) source: Source,
}

/// Where a matrix's bytes are.
#[derive(Debug)]
pub(crate) enum Source {
    /// In the file, whose pages the system reads and takes back as it likes.
    File(TensorInfo),
    /// In memory: the file stores them in another type or with its rows in another order.
    Memory(Vec<u8>),
}

impl Dense {
    /// The matrix, given the file that it was loaded from.
    pub(crate) fn matrix<'a>(&'a self, gguf: &'a Gguf) -> DenseMatrix<'a> {
        DenseMatrix::from_bytes(self.ty, self.content(gguf), self.rows, self.cols)
    }

    /// The bytes of its rows.
    pub(crate) fn content<'a>(&'a self, gguf: &'a Gguf) -> &'a [u8] {
        match &self.source {
            Source::File(info) => gguf.data(info),
            Source::Memory(bytes) => bytes,
        }
    }

    /// Bytes that stay in the file, and bytes in memory.
    pub(crate) fn bytes(&self) -> (usize, usize) {
        match &self.source {
            Source::File(info) => (info.nbytes as usize, 0),
            Source::Memory(bytes) => (0, bytes.len()),
        }
    }
}

/// The embedding or the head of a loaded model, [vocab_size, hidden_size].
#[derive(Debug, Clone)]
pub enum Table<'a> {
    /// In full precision.
    Dense(DenseMatrix<'a>),
    /// Ternary, and how the file packs it.
    Ternary(&'a TernaryWeights, Packing),
}

impl Table<'_> {
    /// Row `i` as numbers: what an embedding looks up.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not as wide.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        match self {
            Table::Dense(matrix) => matrix.row(i, out),
            Table::Ternary(weights, _) => weights.row(i, out),
        }
    }

    /// The name of the type: that of full precision as recipes write it, or that of the packing.
    pub fn type_name(&self) -> &'static str {
        match self {
            Table::Dense(matrix) => matrix.dense_type().name(),
            Table::Ternary(_, packing) => packing.name(),
        }
    }

    /// The ternary form, if it is ternary.
    pub fn ternary(&self) -> Option<&TernaryWeights> {
        match self {
            Table::Dense(_) => None,
            Table::Ternary(weights, _) => Some(weights),
        }
    }
}

/// The weight of a projection, the embedding or the head.
#[derive(Debug)]
pub(crate) enum Weight {
    /// Ternary, multiplied with int8 activations.
    Ternary(TernaryWeights, Packing),
    /// Full precision, multiplied with full-precision activations.
    Dense(Dense),
}

impl Weight {
    /// Output features.
    pub(crate) fn rows(&self) -> usize {
        match self {
            Weight::Ternary(weights, _) => weights.rows(),
            Weight::Dense(dense) => dense.rows,
        }
    }

    /// The full-precision form, if it is that.
    pub(crate) fn dense(&self) -> Option<&Dense> {
        match self {
            Weight::Ternary(..) => None,
            Weight::Dense(dense) => Some(dense),
        }
    }

    /// As an embedding or a head, given the file that it was loaded from.
    pub(crate) fn table<'a>(&'a self, gguf: &'a Gguf) -> Table<'a> {
        match self {
            Weight::Ternary(weights, packing) => Table::Ternary(weights, *packing),
            Weight::Dense(dense) => Table::Dense(dense.matrix(gguf)),
        }
    }

    /// The ternary form, if it is ternary.
    pub(crate) fn ternary(&self) -> Option<&TernaryWeights> {
        match self {
            Weight::Ternary(weights, _) => Some(weights),
            Weight::Dense(_) => None,
        }
    }
}

/// One projection.
#[derive(Debug)]
pub(crate) struct Projected {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Vec<f32>>,
}

/// One transformer block.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) norms: Norms<Tensor>,
    /// In the order of [`Projection::ALL`].
    pub(crate) projections: Vec<Projected>,
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
    /// The projection's bias, `[out]`, if it has one.
    pub bias: Option<&'a [f32]>,
}

impl Block {
    /// What `inspect` and `verify` want to know of the block's ternary tensors.
    pub(crate) fn info(&self, layer: usize) -> impl Iterator<Item = TernaryInfo<'_>> {
        Projection::ALL.iter().zip(&self.projections).filter_map(move |(projection, projected)| {
            match &projected.weight {
                Weight::Ternary(weights, packing) => {
                    let (projection, packing, bias) = (*projection, *packing, projected.bias.as_deref());
                    Some(TernaryInfo { layer, projection, weights, packing, bias })
                }
                Weight::Dense(_) => None,
            }
        })
    }

    /// The full-precision projections.
    pub(crate) fn dense(&self) -> impl Iterator<Item = &Dense> {
        self.projections.iter().filter_map(|projected| projected.weight.dense())
    }
}
