//! Blocks of positions: where keys, values and their scales stand in memory.

use half::f16;

use super::element::{Element, scaled};
use super::{BLOCK, COLUMNS, KvType};
use crate::lanes::LANES;

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
    pub(super) fn new(kv_heads: usize, head_dim: usize) -> Self {
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

    /// Bytes of a block.
    pub(super) fn block_bytes(&self, ty: KvType) -> usize {
        let scales = 2 * BLOCK * self.column_pieces() * ty.scale_size();
        self.kv_heads * ((self.keys_len() + self.values_len()) * ty.size() + scales)
    }

    /// Scales of a head's keys in a block, and of its values.
    fn scales_len<T: Element>(&self) -> usize {
        if T::SCALED { BLOCK * self.column_pieces() } else { 0 }
    }

    /// Index of the scale of columns `piece` · 32.. of a head's key in the head's part of a block.
    fn key_scale_index(&self, position: usize, piece: usize) -> usize {
        (position / LANES * self.column_pieces() + piece) * LANES + position % LANES
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
    /// [kv_heads, panels, column pieces, 16]; none if numbers have no scales.
    key_scales: Aligned<f16>,
    /// [kv_heads, column pieces, BLOCK]; none if numbers have no scales.
    value_scales: Aligned<f16>,
}

/// A part of a block with the scales that belong to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored<'a, T> {
    pub(crate) numbers: &'a [T],
    /// Empty if numbers have no scales.
    pub(crate) scales: &'a [f16],
}

impl<T: Element> Block<T> {
    pub(super) fn new(layout: &Layout) -> Self {
        let scales = layout.kv_heads * layout.scales_len::<T>();
        Self {
            keys: Aligned::new(T::ZERO, layout.kv_heads * layout.keys_len()),
            values: Aligned::new(T::ZERO, layout.kv_heads * layout.values_len()),
            key_scales: Aligned::new(f16::ZERO, scales),
            value_scales: Aligned::new(f16::ZERO, scales),
        }
    }

    /// A head's keys: [panels, head_dim, 16], and scales [panels, column pieces, 16].
    pub(crate) fn keys(&self, layout: &Layout, kv_head: usize) -> Stored<'_, T> {
        Stored {
            numbers: part(self.keys.numbers(), kv_head, layout.keys_len()),
            scales: part(self.key_scales.numbers(), kv_head, layout.scales_len::<T>()),
        }
    }

    /// A piece of the columns of a head's values: [BLOCK, COLUMNS], and scales [BLOCK].
    pub(crate) fn values(&self, layout: &Layout, kv_head: usize, piece: usize) -> Stored<'_, T> {
        let piece = kv_head * layout.column_pieces() + piece;
        Stored {
            numbers: part(self.values.numbers(), piece, BLOCK * COLUMNS),
            scales: part(self.value_scales.numbers(), piece, if T::SCALED { BLOCK } else { 0 }),
        }
    }

    /// Stores a key and a value, [kv_heads · head_dim] each. `row` and `scales` are room for a head's.
    pub(super) fn write(
        &mut self,
        layout: &Layout,
        position: usize,
        (key, value): (&[f32], &[f32]),
        (row, scales): (&mut [T], &mut [f16]),
    ) {
        let (hd, scales_len) = (layout.head_dim, layout.scales_len::<T>());
        for (kv_head, key) in key.chunks_exact(hd).enumerate() {
            T::round(key, row, scales);
            let keys = &mut self.keys.numbers_mut()[kv_head * layout.keys_len()..];
            for (d, x) in row.iter().enumerate() {
                keys[layout.key_index(position, d)] = *x;
            }
            for (piece, scale) in scales.iter().enumerate() {
                let at = kv_head * scales_len + layout.key_scale_index(position, piece);
                self.key_scales.numbers_mut()[at] = *scale;
            }
        }
        for (kv_head, value) in value.chunks_exact(hd).enumerate() {
            T::round(value, row, scales);
            let values = &mut self.values.numbers_mut()[kv_head * layout.values_len()..];
            for (piece, x) in row.chunks(COLUMNS).enumerate() {
                values[Layout::value_index(position, piece * COLUMNS)..][..x.len()].copy_from_slice(x);
            }
            for (piece, scale) in scales.iter().enumerate() {
                self.value_scales.numbers_mut()[kv_head * scales_len + piece * BLOCK + position] = *scale;
            }
        }
    }

    /// The key and the value of a position, [kv_heads · head_dim] each.
    pub(super) fn read(&self, layout: &Layout, position: usize, key: &mut [f32], value: &mut [f32]) {
        let hd = layout.head_dim;
        for (kv_head, key) in key.chunks_exact_mut(hd).enumerate() {
            let keys = self.keys(layout, kv_head);
            for (d, x) in key.iter_mut().enumerate() {
                let number = keys.numbers[layout.key_index(position, d)];
                let scale = keys.scales.get(layout.key_scale_index(position, d / COLUMNS));
                *x = scale.map_or(number.widen(), |scale| scaled(number, *scale));
            }
        }
        for (kv_head, value) in value.chunks_exact_mut(hd).enumerate() {
            for (piece, value) in value.chunks_mut(COLUMNS).enumerate() {
                let values = self.values(layout, kv_head, piece);
                for (x, number) in value.iter_mut().zip(&values.numbers[position * COLUMNS..]) {
                    let scale = values.scales.get(position);
                    *x = scale.map_or(number.widen(), |scale| scaled(*number, *scale));
                }
            }
        }
    }
}

/// Part `i` of parts of `len`.
fn part<T>(all: &[T], i: usize, len: usize) -> &[T] {
    &all[i * len..][..len]
}

/// Numbers that begin at a cache line.
#[derive(Debug, Clone)]
struct Aligned<T> {
    lines: Vec<Line<T>>,
}

/// At least one cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line<T>([T; 64]);

impl<T: Copy> Aligned<T> {
    /// At least `len` zeros.
    fn new(zero: T, len: usize) -> Self {
        Self { lines: vec![Line([zero; 64]); len.div_ceil(64)] }
    }

    fn numbers(&self) -> &[T] {
        // SAFETY: the elements are f32, f16 or i8, so a line is 256, 128 or 64 bytes with no padding, and lines are
        // contiguous.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.lines.len() * 64) }
    }

    fn numbers_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `numbers`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.lines.len() * 64) }
    }
}
