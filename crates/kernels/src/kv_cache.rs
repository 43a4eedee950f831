//! Keys and values of one layer of one sequence, in f32, f16 or Q8_0, laid out as [`crate::attention_cached`]
//! streams them.
//!
//! Positions come in blocks of [`BLOCK`], each with its own memory: the cache grows without copying. A block
//! is head-major. A head's keys stand in panels of 16 positions, `[head_dim, 16]` each, the columns in the
//! order in which a dot product sums them ([`Layout::slots`]), so that reading a panel is reading memory
//! upwards. A head's values stand in column pieces, `[BLOCK, 32]` each: threads may share the columns, and
//! each sums over positions in their order. Scales stand as what they belong to does: those of 16 positions
//! together for keys, those of a piece's positions for values.

mod block;
mod element;
mod kv_type;

use half::f16;

pub(crate) use self::block::{Block, Layout, RESIDUES, Stored};
pub(crate) use self::element::Element;
pub use self::kv_type::{KvType, KvTypeError};
use crate::lanes::LANES;

/// Positions of a block.
pub(crate) const BLOCK: usize = 256;

/// Columns of the values that stand together, and columns of a head that share a scale.
pub(crate) const COLUMNS: usize = 2 * LANES;

/// The blocks of a cache.
#[derive(Debug, Clone)]
pub(crate) enum Blocks {
    F32(Vec<Block<f32>>),
    F16(Vec<Block<f16>>),
    Q8_0(Vec<Block<i8>>),
}

/// Keys and values of one layer of one sequence: rows [positions, kv_heads · head_dim], grown by append.
#[derive(Debug, Clone)]
pub struct KvCache {
    layout: Layout,
    len: usize,
    blocks: Blocks,
}

impl KvCache {
    /// An empty cache. `capacity` is how many positions are expected; their memory is taken as they come, in
    /// steps of 256 positions.
    pub fn new(ty: KvType, kv_heads: usize, head_dim: usize, capacity: usize) -> Self {
        let count = capacity.div_ceil(BLOCK);
        let blocks = match ty {
            KvType::F32 => Blocks::F32(Vec::with_capacity(count)),
            KvType::F16 => Blocks::F16(Vec::with_capacity(count)),
            KvType::Q8_0 => Blocks::Q8_0(Vec::with_capacity(count)),
        };
        Self { layout: Layout::new(kv_heads, head_dim), len: 0, blocks }
    }

    /// How the numbers are stored.
    pub fn kv_type(&self) -> KvType {
        match self.blocks {
            Blocks::F32(_) => KvType::F32,
            Blocks::F16(_) => KvType::F16,
            Blocks::Q8_0(_) => KvType::Q8_0,
        }
    }

    /// Positions.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no position.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory taken so far.
    pub fn bytes(&self) -> usize {
        let blocks = match &self.blocks {
            Blocks::F32(blocks) => blocks.len(),
            Blocks::F16(blocks) => blocks.len(),
            Blocks::Q8_0(blocks) => blocks.len(),
        };
        blocks * self.layout.block_bytes(self.kv_type())
    }

    /// Bytes that a cache of so many positions takes: [`KvCache::bytes`] without the cache.
    pub fn bytes_for(ty: KvType, kv_heads: usize, head_dim: usize, positions: usize) -> usize {
        let layout = Layout { kv_heads, head_dim, slots: Vec::new() };
        positions.div_ceil(BLOCK) * layout.block_bytes(ty)
    }

    /// Adds rows of keys and values, both [positions, kv_heads · head_dim].
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn append(&mut self, k: &[f32], v: &[f32]) {
        let width = self.layout.kv_heads * self.layout.head_dim;
        assert!(k.len() == v.len() && k.len().is_multiple_of(width), "k and v are rows of {width}");
        match &mut self.blocks {
            Blocks::F32(blocks) => append(&self.layout, blocks, self.len, k, v),
            Blocks::F16(blocks) => append(&self.layout, blocks, self.len, k, v),
            Blocks::Q8_0(blocks) => append(&self.layout, blocks, self.len, k, v),
        }
        self.len += k.len() / width;
    }

    /// Forgets all positions after the first `len`. Their memory is kept for those that follow.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// The key and the value of a position, each [kv_heads · head_dim].
    ///
    /// # Panics
    /// If there is no such position or the lengths do not fit.
    pub fn read(&self, position: usize, key: &mut [f32], value: &mut [f32]) {
        let width = self.layout.kv_heads * self.layout.head_dim;
        assert!(position < self.len, "position {position} of {}", self.len);
        assert!(key.len() == width && value.len() == width, "a key and a value are {width} wide");
        let (block, position) = (position / BLOCK, position % BLOCK);
        match &self.blocks {
            Blocks::F32(blocks) => blocks[block].read(&self.layout, position, key, value),
            Blocks::F16(blocks) => blocks[block].read(&self.layout, position, key, value),
            Blocks::Q8_0(blocks) => blocks[block].read(&self.layout, position, key, value),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }
}

/// Writes rows from position `len` on.
fn append<T: Element>(layout: &Layout, blocks: &mut Vec<Block<T>>, len: usize, k: &[f32], v: &[f32]) {
    let width = layout.kv_heads * layout.head_dim;
    let scales = if T::SCALED { layout.column_pieces() } else { 0 };
    let (mut row, mut scales) = (vec![T::ZERO; layout.head_dim], vec![f16::ZERO; scales]);
    for (i, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
        let (block, position) = ((len + i) / BLOCK, (len + i) % BLOCK);
        if block == blocks.len() {
            blocks.push(Block::new(layout));
        }
        blocks[block].write(layout, position, (k, v), (&mut row, &mut scales));
    }
}
