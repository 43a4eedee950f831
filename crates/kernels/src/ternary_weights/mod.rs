//! `TernaryWeights`: a ternary matrix in the layouts that the products read, 2 or 1.6 bits a weight.
//!
//! The matrix is cut into blocks of [`BLOCK_ROWS`] output features. A block is a run of steps of
//! [`STEP_COLS`] columns; a step is two [`Line`]s of 64 bytes, one word for each row. In a word, the weight
//! of column `4s + j` of the step is the field `code + 1` (0, 1 or 2) at bits `8j + 2s`. So `(line >> 2s) &
//! 0x03` in every byte is a vector of 16 rows × 4 consecutive columns: the unsigned operand of `vpdpbusd` and
//! `vpmaddubsw`, whose other operand is 4 consecutive activations, broadcast. One layout serves decoding
//! (memory-bound, streams the lines once) and prefill or training (compute-bound).
//!
//! [`TernaryLayout::FiveTrits`] packs five such lines into four (`five_trits`); products unpack it on the
//! way.
//!
//! Rows beyond the last are padding whose results are dropped; columns beyond the last meet activations that
//! are padded with 0.

mod build;
mod scales;

use std::convert::Infallible;

use tritforge_ternary::{Granularity, Scales};

use self::scales::LaneScales;
pub(crate) use self::scales::{BlockGroups, GroupScales};
use crate::five_trits::{self, GROUP_STEPS, PACKED_LINES};

/// Rows of a block: two vectors of 16 lanes.
pub(crate) const BLOCK_ROWS: usize = 32;

/// Columns of a step: 4 fields of 2 bits in each of 4 bytes.
pub(crate) const STEP_COLS: usize = 16;

/// Lines of a step.
pub(crate) const STEP_LINES: usize = BLOCK_ROWS / 16;

/// The widest matrix: every sum, at most 128 · 2¹⁷ = 2²⁴, is exact as f32, and the i32 accumulators of every
/// backend, whose terms are at most 64 times larger in a quarter of the columns, cannot overflow.
pub(crate) const MAX_COLS: usize = 1 << 17;

/// 16 rows × 16 columns: the unit of a vector load, on its own cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

/// How the weights lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TernaryLayout {
    /// 2 bits a weight: nothing to unpack but fields.
    TwoBits,
    /// 1.6 bits a weight, five in a byte: a fifth less to read, for more work a byte.
    FiveTrits,
}

impl TernaryLayout {
    /// The layout that decodes faster here: 1.6 bits where the processor looks bytes up in a table of 128
    /// (`vpermi2b`, AVX-512 VBMI) and the backend uses it, else 2 bits.
    pub fn for_decoding() -> Self {
        if five_trits::is_fast(crate::Backend::active()) { Self::FiveTrits } else { Self::TwoBits }
    }
}

/// A ternary matrix [rows, cols] and its scales: the value of an element is its code times the scale that it shares.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryWeights {
    rows: usize,
    cols: usize,
    scales: LaneScales,
    layout: TernaryLayout,
    lines: Vec<Line>,
}

impl TernaryWeights {
    /// The 2-bit layout of `codes` [rows, cols] (row-major, each -1, 0 or +1) with their scales; a number is that of
    /// the whole tensor.
    ///
    /// # Panics
    /// If `codes` has not `rows * cols` elements, a dimension is 0, there are more than 131072 columns, a
    /// code is not ternary ([`tritforge_ternary::TernaryTensor`] holds codes that have been checked), or the scales
    /// are those of another shape.
    pub fn new(codes: &[i8], rows: usize, cols: usize, scales: impl Into<Scales>) -> Self {
        Self::with_layout(codes, rows, cols, scales, TernaryLayout::TwoBits)
    }

    /// [`TernaryWeights::new`] in a layout of the caller's choice; where groups have scales, it is 2 bits.
    ///
    /// # Panics
    /// As [`TernaryWeights::new`].
    pub fn with_layout(
        codes: &[i8],
        rows: usize,
        cols: usize,
        scales: impl Into<Scales>,
        layout: TernaryLayout,
    ) -> Self {
        check_shape(codes.len(), rows, cols);
        let Ok(weights) = Self::try_from_rows(rows, cols, scales, layout, |first, out| {
            out.copy_from_slice(&codes[first * cols..][..out.len()]);
            Ok::<(), Infallible>(())
        });
        weights
    }

    /// Rows: output features of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: input features of the layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The scales that multiply the codes.
    pub fn scales(&self) -> Scales {
        self.scales.scales([self.rows, self.cols])
    }

    /// Which weights share a scale.
    pub fn granularity(&self) -> Granularity {
        self.scales.granularity()
    }

    /// The scales of one block's groups, if groups have scales.
    pub(crate) fn groups(&self, block: usize) -> Option<BlockGroups<'_>> {
        self.scales.groups(block)
    }

    /// Columns of a group, if groups have scales.
    pub(crate) fn group_cols(&self) -> Option<usize> {
        self.groups(0).map(|groups| groups.steps * STEP_COLS)
    }

    /// The scale of the tensor, or those of its rows, in products that sum whole rows.
    pub(crate) fn whole_scales(&self) -> &[f32] {
        self.scales.whole()
    }

    /// Bytes of the packed matrix, padding and the scales of rows or groups included: what one decoding step reads.
    pub fn packed_bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice()) + self.scales.bytes()
    }

    /// The codes [rows, cols], row-major.
    pub fn codes(&self) -> Vec<i8> {
        let mut codes = vec![0; self.rows * self.cols];
        let mut unpacked = Vec::new();
        for (row, codes) in codes.chunks_exact_mut(self.cols).enumerate() {
            let lines = self.lines(row / BLOCK_ROWS, &mut unpacked);
            let lane = row % BLOCK_ROWS;
            for (step, codes) in codes.chunks_mut(STEP_COLS).enumerate() {
                let word = lines[step * STEP_LINES + lane / 16].0[lane % 16];
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = code_of(word, i);
                }
            }
        }
        codes
    }

    /// Row `i` as numbers, each its code times the scale that it shares: what an embedding looks up.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `[cols]`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        assert!(i < self.rows && out.len() == self.cols, "row {i} of [{}, {}]", self.rows, self.cols);
        let mut unpacked = Vec::new();
        let lines = self.lines(i / BLOCK_ROWS, &mut unpacked);
        let lane = i % BLOCK_ROWS;
        for (step, out) in out.chunks_mut(STEP_COLS).enumerate() {
            let word = lines[step * STEP_LINES + lane / 16].0[lane % 16];
            let scale = self.scales.of(i, step * STEP_COLS);
            for (column, out) in out.iter_mut().enumerate() {
                *out = f32::from(code_of(word, column)) * scale;
            }
        }
    }

    /// Number of blocks of [`BLOCK_ROWS`] rows.
    pub(crate) fn blocks(&self) -> usize {
        self.rows.div_ceil(BLOCK_ROWS)
    }

    /// Steps of a block.
    pub(crate) fn steps(&self) -> usize {
        self.layout.steps(self.cols)
    }

    /// How the weights lie in memory.
    pub fn layout(&self) -> TernaryLayout {
        self.layout
    }

    /// The lines of one block as they are stored.
    pub(crate) fn stored(&self, block: usize) -> &[Line] {
        let block_lines = self.layout.block_lines(self.cols);
        &self.lines[block * block_lines..][..block_lines]
    }

    /// The 2-bit lines of one block, step by step; unpacked into `buffer` if need be.
    pub(crate) fn lines<'a>(&'a self, block: usize, buffer: &'a mut Vec<Line>) -> &'a [Line] {
        let stored = self.stored(block);
        if self.layout == TernaryLayout::FiveTrits {
            buffer.resize(self.steps() * STEP_LINES, Line([0; 16]));
            five_trits::unpack(stored, buffer);
            return buffer;
        }
        stored
    }
}

impl TernaryLayout {
    /// Bytes of a matrix [rows, cols] in this layout, as [`TernaryWeights::packed_bytes`] counts them; where groups have
    /// scales, it is 2 bits.
    pub fn packed_bytes(self, rows: usize, cols: usize, granularity: Granularity) -> usize {
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let layout = if matches!(granularity, Granularity::Group(_)) { Self::TwoBits } else { self };
        let scales = match granularity {
            Granularity::Tensor => 0,
            Granularity::Row => rows * size_of::<f32>(),
            Granularity::Group(size) => blocks * (cols / size) * size_of::<GroupScales>(),
        };
        blocks * layout.block_lines(cols) * size_of::<Line>() + scales
    }

    /// Steps of a block of `cols` columns, padding included.
    fn steps(self, cols: usize) -> usize {
        match self {
            Self::TwoBits => cols.div_ceil(STEP_COLS),
            Self::FiveTrits => cols.div_ceil(GROUP_STEPS * STEP_COLS) * GROUP_STEPS,
        }
    }

    /// Lines of a block of `cols` columns.
    fn block_lines(self, cols: usize) -> usize {
        match self {
            Self::TwoBits => self.steps(cols) * STEP_LINES,
            Self::FiveTrits => self.steps(cols) / GROUP_STEPS * PACKED_LINES,
        }
    }
}

fn check_shape(len: usize, rows: usize, cols: usize) {
    assert_eq!(Some(len), rows.checked_mul(cols), "weights must be [{rows}, {cols}]");
}

/// The code of column `i` of a step.
pub(crate) fn code_of(word: u32, i: usize) -> i8 {
    ((word >> (8 * (i % 4) + 2 * (i / 4))) & 3) as i8 - 1
}

#[cfg(test)]
mod tests;
