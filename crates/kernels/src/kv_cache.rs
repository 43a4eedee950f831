//! Keys and values of one layer of one sequence, in f32 or f16, laid out as [`crate::attention_cached`]
//! streams them.
//!
//! Positions come in blocks of [`BLOCK`], each with its own memory: the cache grows without copying. A block
//! is head-major. A head's keys stand in panels of 16 positions, `[head_dim, 16]` each, the columns in the
//! order in which a dot product sums them ([`Layout::slots`]), so that reading a panel is reading memory
//! upwards. A head's values stand in column pieces, `[BLOCK, 32]` each: threads may share the columns, and
//! each sums over positions in their order.

use std::fmt;
use std::str::FromStr;

use half::f16;
use half::slice::HalfFloatSliceExt;
use thiserror::Error;

use crate::lanes::LANES;
use crate::vector::Vector;

/// Positions of a block.
pub(crate) const BLOCK: usize = 256;

/// Columns of the values that stand together.
pub(crate) const COLUMNS: usize = 2 * LANES;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 4 bytes a number: what training computes with.
    F32,
    /// 2 bytes a number, rounded half to even.
    #[default]
    F16,
}

impl KvType {
    /// The types.
    pub const ALL: [KvType; 2] = [KvType::F32, KvType::F16];

    /// Bytes of a number.
    pub fn size(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
        }
    }
}

/// The name is of no [`KvType`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown type of keys and values {found:?}: expected f32 or f16")]
pub struct KvTypeError {
    /// The name given.
    pub found: String,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
        })
    }
}

impl FromStr for KvType {
    type Err = KvTypeError;

    /// Parses the name that [`KvType`] displays; case does not matter.
    fn from_str(name: &str) -> Result<Self, KvTypeError> {
        KvType::ALL
            .into_iter()
            .find(|ty| ty.to_string().eq_ignore_ascii_case(name.trim()))
            .ok_or_else(|| KvTypeError { found: name.to_owned() })
    }
}

/// A stored number.
pub(crate) trait Element: Copy {
    const ZERO: Self;
    /// Rounds half to even.
    fn round(numbers: &[f32], out: &mut [Self]);
    fn widen(self) -> f32;
    /// Sixteen numbers.
    ///
    /// # Safety
    /// They lie in memory at `at`, and the caller has the instructions of `V`.
    unsafe fn load<V: Vector>(at: *const Self) -> V;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    fn round(numbers: &[f32], out: &mut [Self]) {
        out.copy_from_slice(numbers);
    }

    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(at: *const Self) -> V {
        // SAFETY: the caller's promises.
        unsafe { V::load(at) }
    }
}

impl Element for f16 {
    const ZERO: Self = f16::ZERO;

    fn round(numbers: &[f32], out: &mut [Self]) {
        out.convert_from_f32_slice(numbers);
    }

    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(at: *const Self) -> V {
        // SAFETY: the caller's promises.
        unsafe { V::load_f16(at) }
    }
}

/// Where a number stands in a block.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    /// Column d of a key is column `slots[d]` of its panel: the residues of d mod 16 in the order of the tree
    /// of [`crate::lanes::sum`], and the columns of a residue in their order.
    pub(crate) slots: Vec<usize>,
}

/// The residues mod 16 in the order in which the tree of [`crate::lanes::sum`] meets them.
pub(crate) const RESIDUES: [usize; LANES] = [0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15];

impl Layout {
    fn new(kv_heads: usize, head_dim: usize) -> Self {
        let mut slots = vec![0; head_dim];
        let columns = RESIDUES.into_iter().flat_map(|residue| (residue..head_dim).step_by(LANES));
        for (slot, column) in columns.enumerate() {
            slots[column] = slot;
        }
        Self { kv_heads, head_dim, slots }
    }

    /// Pieces of a head's values; what pads the last one is zero.
    pub(crate) fn column_pieces(&self) -> usize {
        self.head_dim.div_ceil(COLUMNS)
    }

    /// Numbers of a head's keys in a block.
    pub(crate) fn keys_len(&self) -> usize {
        BLOCK * self.head_dim
    }

    /// Numbers of a head's values in a block.
    pub(crate) fn values_len(&self) -> usize {
        BLOCK * self.column_pieces() * COLUMNS
    }

    /// Index of column `d` of a head's key in the head's part of a block.
    fn key_index(&self, position: usize, d: usize) -> usize {
        (position / LANES * self.head_dim + self.slots[d]) * LANES + position % LANES
    }

    /// Index of column `d` of a head's value in the head's part of a block.
    fn value_index(position: usize, d: usize) -> usize {
        (d / COLUMNS * BLOCK + position) * COLUMNS + d % COLUMNS
    }
}

/// [`BLOCK`] positions of all heads.
#[derive(Debug, Clone)]
pub(crate) struct Block<T> {
    /// [kv_heads, panels, head_dim, 16].
    keys: Aligned<T>,
    /// [kv_heads, column pieces, BLOCK, COLUMNS].
    values: Aligned<T>,
}

impl<T: Element> Block<T> {
    fn new(layout: &Layout) -> Self {
        Self {
            keys: Aligned::new(layout.kv_heads * layout.keys_len()),
            values: Aligned::new(layout.kv_heads * layout.values_len()),
        }
    }

    pub(crate) fn keys(&self, layout: &Layout, kv_head: usize) -> &[T] {
        &self.keys.numbers()[kv_head * layout.keys_len()..][..layout.keys_len()]
    }

    pub(crate) fn values(&self, layout: &Layout, kv_head: usize) -> &[T] {
        &self.values.numbers()[kv_head * layout.values_len()..][..layout.values_len()]
    }

    fn write(&mut self, layout: &Layout, position: usize, key: &[T], value: &[T]) {
        let hd = layout.head_dim;
        let heads = self.keys.numbers_mut().chunks_exact_mut(layout.keys_len());
        for (keys, key) in heads.zip(key.chunks_exact(hd)) {
            for (d, x) in key.iter().enumerate() {
                keys[layout.key_index(position, d)] = *x;
            }
        }
        let heads = self.values.numbers_mut().chunks_exact_mut(layout.values_len());
        for (values, value) in heads.zip(value.chunks_exact(hd)) {
            for (piece, x) in value.chunks(COLUMNS).enumerate() {
                values[Layout::value_index(position, piece * COLUMNS)..][..x.len()].copy_from_slice(x);
            }
        }
    }

    fn read(&self, layout: &Layout, position: usize, key: &mut [f32], value: &mut [f32]) {
        let hd = layout.head_dim;
        for (kv_head, key) in key.chunks_exact_mut(hd).enumerate() {
            let keys = self.keys(layout, kv_head);
            key.iter_mut().enumerate().for_each(|(d, x)| *x = keys[layout.key_index(position, d)].widen());
        }
        for (kv_head, value) in value.chunks_exact_mut(hd).enumerate() {
            let values = self.values(layout, kv_head);
            value
                .iter_mut()
                .enumerate()
                .for_each(|(d, x)| *x = values[Layout::value_index(position, d)].widen());
        }
    }
}

/// Numbers that begin at a cache line.
#[derive(Debug, Clone)]
struct Aligned<T> {
    lines: Vec<Line<T>>,
}

/// At least one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line<T>([T; 32]);

impl<T: Element> Aligned<T> {
    /// At least `len` zeros.
    fn new(len: usize) -> Self {
        Self { lines: vec![Line([T::ZERO; 32]); len.div_ceil(32)] }
    }

    fn numbers(&self) -> &[T] {
        // SAFETY: the elements are f32 or f16, so a line is 128 or 64 bytes with no padding, and lines are
        // contiguous.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 32) }
    }

    fn numbers_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `numbers`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 32) }
    }
}

/// The blocks of a cache.
#[derive(Debug, Clone)]
pub(crate) enum Blocks {
    F32(Vec<Block<f32>>),
    F16(Vec<Block<f16>>),
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
        };
        Self { layout: Layout::new(kv_heads, head_dim), len: 0, blocks }
    }

    /// How the numbers are stored.
    pub fn kv_type(&self) -> KvType {
        match self.blocks {
            Blocks::F32(_) => KvType::F32,
            Blocks::F16(_) => KvType::F16,
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
        };
        blocks
            * self.layout.kv_heads
            * (self.layout.keys_len() + self.layout.values_len())
            * self.kv_type().size()
    }

    /// Bytes that a cache of so many positions takes: [`KvCache::bytes`] without the cache.
    pub fn bytes_for(ty: KvType, kv_heads: usize, head_dim: usize, positions: usize) -> usize {
        let layout = Layout { kv_heads, head_dim, slots: Vec::new() };
        positions.div_ceil(BLOCK) * kv_heads * (layout.keys_len() + layout.values_len()) * ty.size()
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
    let (mut key, mut value) = (vec![T::ZERO; width], vec![T::ZERO; width]);
    for (i, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
        let (block, position) = ((len + i) / BLOCK, (len + i) % BLOCK);
        if block == blocks.len() {
            blocks.push(Block::new(layout));
        }
        T::round(k, &mut key);
        T::round(v, &mut value);
        blocks[block].write(layout, position, &key, &value);
    }
}
