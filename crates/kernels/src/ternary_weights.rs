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

use std::convert::Infallible;
use std::mem::MaybeUninit;
use std::sync::Mutex;

use crate::five_trits::{self, GROUP_STEPS, PACKED_LINES};
use crate::{huge_pages, pool};

/// Rows of a block: two vectors of 16 lanes.
pub(crate) const BLOCK_ROWS: usize = 32;

/// Columns of a step: 4 fields of 2 bits in each of 4 bytes.
pub(crate) const STEP_COLS: usize = 16;

/// Lines of a step.
pub(crate) const STEP_LINES: usize = BLOCK_ROWS / 16;

/// The widest matrix: every sum, at most 128 · 2¹⁷ = 2²⁴, is exact as f32, and the i32 accumulators of every
/// backend, whose terms are at most 64 times larger in a quarter of the columns, cannot overflow.
pub(crate) const MAX_COLS: usize = 1 << 17;

/// From this many weights the matrix is built by several threads.
const PARALLEL_WEIGHTS: usize = 1 << 17;

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

/// A ternary matrix [rows, cols] with one scale: value (r, c) is `code(r, c) * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryWeights {
    rows: usize,
    cols: usize,
    scale: f32,
    layout: TernaryLayout,
    lines: Vec<Line>,
}

impl TernaryWeights {
    /// The 2-bit layout of `codes` [rows, cols] (row-major, each -1, 0 or +1) with the scale of the whole
    /// tensor.
    ///
    /// # Panics
    /// If `codes` has not `rows * cols` elements, a dimension is 0, there are more than 131072 columns, or a
    /// code is not ternary ([`tritforge_ternary::TernaryTensor`] holds codes that have been checked).
    pub fn new(codes: &[i8], rows: usize, cols: usize, scale: f32) -> Self {
        Self::with_layout(codes, rows, cols, scale, TernaryLayout::TwoBits)
    }

    /// [`TernaryWeights::new`] in a layout of the caller's choice.
    ///
    /// # Panics
    /// As [`TernaryWeights::new`].
    pub fn with_layout(codes: &[i8], rows: usize, cols: usize, scale: f32, layout: TernaryLayout) -> Self {
        check_shape(codes.len(), rows, cols);
        let Ok(weights) = Self::try_from_rows(rows, cols, scale, layout, |first, out| {
            out.copy_from_slice(&codes[first * cols..][..out.len()]);
            Ok::<(), Infallible>(())
        });
        weights
    }

    /// Builds the matrix block by block, on all threads, from whatever `codes_of` reads: it gets the index of
    /// a first row and writes the codes of whole rows from there on. At no time more than some rows a thread
    /// are unpacked.
    ///
    /// # Errors
    /// The first error of `codes_of`.
    ///
    /// # Panics
    /// If a dimension is 0, there are more than 131072 columns, or a code is not ternary.
    pub fn try_from_rows<E: Send>(
        rows: usize,
        cols: usize,
        scale: f32,
        layout: TernaryLayout,
        codes_of: impl Fn(usize, &mut [i8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let error = Mutex::new(None);
        let weights = Self::build(rows, cols, scale, layout, |first, block, lines| {
            let mut codes = vec![0i8; block * cols];
            if let Err(e) = codes_of(first, &mut codes) {
                error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(e);
                codes.fill(0);
            }
            fill_block(&codes, cols, lines, &|source, fields| {
                let mut seen = 0;
                for (field, code) in fields.iter_mut().zip(source) {
                    *field = code.wrapping_add(1) as u8;
                    seen |= u8::from(*field > 2);
                }
                assert_eq!(seen, 0, "weight codes must be -1, 0 or +1");
            });
        });
        match error.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(weights),
        }
    }

    /// Quantizes latent weights [rows, cols] (row-major) straight into the 2-bit layout, in one pass: the
    /// codes are those of [`tritforge_ternary::weight_codes`], `clamp(round_half_even(w · (1/scale)), -1,
    /// 1)`.
    ///
    /// ```
    /// use tritforge_kernels::TernaryWeights;
    ///
    /// let weights = TernaryWeights::quantize(&[0.3, -0.1, -0.9, 0.05], 2, 2, 0.4);
    /// assert_eq!(weights.codes(), [1, 0, -1, 0]);
    /// ```
    ///
    /// # Panics
    /// If `latent` has not `rows * cols` elements, a dimension is 0, or there are more than 131072 columns.
    pub fn quantize(latent: &[f32], rows: usize, cols: usize, scale: f32) -> Self {
        check_shape(latent.len(), rows, cols);
        let inverse = 1.0 / scale;
        Self::build(rows, cols, scale, TernaryLayout::TwoBits, |first, block, lines| {
            let source = &latent[first * cols..][..block * cols];
            fill_block(source, cols, lines, &|source, fields| {
                for (field, w) in fields.iter_mut().zip(source) {
                    // Half to even: ±0.5 rounds to 0, everything beyond to ±1 or is clamped to it. A NaN is
                    // 0.
                    let v = w * inverse;
                    *field = 1 + u8::from(v > 0.5) - u8::from(v < -0.5);
                }
            });
        })
    }

    /// The transpose of what [`TernaryWeights::quantize`] makes of latent weights [rows, cols] (row-major): a
    /// matrix [cols, rows].
    ///
    /// # Panics
    /// If `latent` has not `rows * cols` elements, a dimension is 0, or there are more than 131072 rows.
    pub fn quantize_transposed(latent: &[f32], rows: usize, cols: usize, scale: f32) -> Self {
        let inverse = 1.0 / scale;
        Self::transpose(latent, rows, cols, scale, move |w| {
            let v = w * inverse;
            1 + u32::from(v > 0.5) - u32::from(v < -0.5)
        })
    }

    /// The transpose [cols, rows], in the 2-bit layout.
    pub fn transposed(&self) -> Self {
        Self::transpose(&self.codes(), self.rows, self.cols, self.scale, |code| (i32::from(*code) + 1) as u32)
    }

    /// The transpose of a matrix [rows, cols] of which `field` makes code + 1.
    fn transpose<T: Sync>(
        source: &[T],
        rows: usize,
        cols: usize,
        scale: f32,
        field: impl Fn(&T) -> u32 + Sync,
    ) -> Self {
        check_shape(source.len(), rows, cols);
        Self::build(cols, rows, scale, TernaryLayout::TwoBits, |first, count, lines| {
            // A step is 16 rows of the source; its lanes are consecutive columns there.
            let steps = source.chunks(STEP_COLS * cols).zip(lines.as_chunks_mut::<STEP_LINES>().0);
            for (step, lines) in steps {
                for (i, row) in step.chunks_exact(cols).enumerate() {
                    let shift = 8 * (i % 4) + 2 * (i / 4);
                    for (line, source) in lines.iter_mut().zip(row[first..][..count].chunks(16)) {
                        match source.as_array::<16>() {
                            Some(source) => add_fields(&mut line.0, source, &field, shift),
                            None => add_fields(&mut line.0, source, &field, shift),
                        }
                    }
                }
            }
        })
    }

    /// Builds every block: `fill` gets the index of its first row, its number of rows, and its 2-bit lines,
    /// all zero.
    fn build(
        rows: usize,
        cols: usize,
        scale: f32,
        layout: TernaryLayout,
        fill: impl Fn(usize, usize, &mut [Line]) + Sync,
    ) -> Self {
        assert!(rows > 0 && cols > 0, "a weight matrix needs rows and columns, not [{rows}, {cols}]");
        assert!(cols <= MAX_COLS, "{cols} columns: at most {MAX_COLS}");
        let blocks = rows.div_ceil(BLOCK_ROWS);
        let plain_lines = layout.steps(cols) * STEP_LINES;
        let block_lines = layout.block_lines(cols);
        let mut lines = Vec::with_capacity(blocks * block_lines);
        huge_pages::advise_huge_pages(lines.spare_capacity_mut());
        let spare = &mut lines.spare_capacity_mut()[..blocks * block_lines];
        let build = |(block, out): (usize, &mut [MaybeUninit<Line>])| {
            let first = block * BLOCK_ROWS;
            let count = BLOCK_ROWS.min(rows - first);
            match layout {
                TernaryLayout::TwoBits => fill(first, count, zeroed(out)),
                TernaryLayout::FiveTrits => {
                    let mut plain = vec![Line([0; 16]); plain_lines];
                    fill(first, count, &mut plain);
                    five_trits::pack(&plain, zeroed(out));
                }
            }
        };
        if rows * cols < PARALLEL_WEIGHTS {
            spare.chunks_exact_mut(block_lines).enumerate().for_each(build);
        } else {
            pool::for_each(spare.chunks_exact_mut(block_lines).enumerate(), build);
        }
        // SAFETY: the capacity was asked for above, and `zeroed` has written every line of every block.
        unsafe { lines.set_len(blocks * block_lines) };
        Self { rows, cols, scale, layout, lines }
    }

    /// Rows: output features of the layer.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Columns: input features of the layer.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The scale that multiplies every code.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// Bytes of the packed matrix, padding included: what one decoding step reads.
    pub fn packed_bytes(&self) -> usize {
        std::mem::size_of_val(self.lines.as_slice())
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

/// Fresh lines, set to zero.
fn zeroed(lines: &mut [MaybeUninit<Line>]) -> &mut [Line] {
    for line in lines.iter_mut() {
        line.write(Line([0; 16]));
    }
    let lines: *mut [MaybeUninit<Line>] = lines;
    // SAFETY: all of them have been written, and `MaybeUninit<Line>` is laid out like `Line`.
    unsafe { &mut *(lines as *mut [Line]) }
}

/// Puts the fields of weights, a word each, at bit `shift`.
#[inline(always)]
fn add_fields<T>(words: &mut [u32; 16], source: &[T], field: &impl Fn(&T) -> u32, shift: usize) {
    for (word, w) in words.iter_mut().zip(source) {
        *word |= field(w) << shift;
    }
}

/// The code of column `i` of a step.
pub(crate) fn code_of(word: u32, i: usize) -> i8 {
    ((word >> (8 * (i % 4) + 2 * (i / 4))) & 3) as i8 - 1
}

/// Writes one block from its rows, `source` [at most 32, cols].
fn fill_block<T>(source: &[T], cols: usize, lines: &mut [Line], fields: &impl Fn(&[T], &mut [u8])) {
    /// Columns a piece: enough for vector code, small enough for L1.
    const PIECE: usize = 16 * STEP_COLS;
    let mut buffer = [0u8; PIECE];
    for (lane, row) in source.chunks_exact(cols).enumerate() {
        for (piece, lines) in row.chunks(PIECE).zip(lines.chunks_mut(PIECE / STEP_COLS * STEP_LINES)) {
            if piece.len() < PIECE {
                buffer.fill(0);
            }
            fields(piece, &mut buffer[..piece.len()]);
            let (steps, _) = buffer.as_chunks::<STEP_COLS>();
            for (step, lines) in steps.iter().zip(lines.chunks_exact_mut(STEP_LINES)) {
                let (words, _) = step.as_chunks::<4>();
                let [a, b, c, d] = std::array::from_fn(|s| u32::from_le_bytes(words[s]));
                lines[lane / 16].0[lane % 16] = a | b << 2 | c << 4 | d << 6;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ternary(n: usize, seed: usize) -> Vec<i8> {
        (0..n).map(|i| (((i + seed).wrapping_mul(2_654_435_761) >> 7) % 3) as i8 - 1).collect()
    }

    #[test]
    fn codes_come_back() {
        for (rows, cols) in [(1, 1), (1, 17), (31, 16), (32, 256), (33, 257), (65, 300), (400, 513)] {
            let codes = ternary(rows * cols, rows);
            let weights = TernaryWeights::new(&codes, rows, cols, 0.25);
            assert_eq!(weights.codes(), codes, "[{rows}, {cols}]");
            assert_eq!((weights.rows(), weights.cols(), weights.scale()), (rows, cols, 0.25));
        }
    }

    #[test]
    fn two_bits_a_weight() {
        assert_eq!(TernaryWeights::new(&ternary(64 * 256, 0), 64, 256, 1.0).packed_bytes(), 64 * 256 / 4);
    }

    #[test]
    fn latent_weights_get_the_codes_of_the_definition() {
        let (rows, cols) = (401, 333); // large enough for several threads
        let mut latent: Vec<f32> =
            (0..rows * cols).map(|i| ((i * 7919 % 4001) as f32 - 2000.0) * 1e-3).collect();
        latent[..9].copy_from_slice(&[
            0.5,
            -0.5,
            0.500_000_06,
            -0.500_000_06,
            1e30,
            -1e30,
            f32::NAN,
            0.0,
            -0.0,
        ]);
        for scale in [1.0, 0.5, 0.731, 1e-5, f32::MIN_POSITIVE / 8.0, f32::NAN] {
            let mut codes = vec![0; latent.len()];
            tritforge_ternary::weight_codes(&latent, scale, &mut codes);
            assert_eq!(TernaryWeights::quantize(&latent, rows, cols, scale).codes(), codes, "scale {scale}");
        }
    }

    #[test]
    fn the_transpose_holds_the_same_codes() {
        for (rows, cols) in [(1, 1), (16, 32), (17, 33), (5, 70), (400, 333)] {
            let latent: Vec<f32> =
                (0..rows * cols).map(|i| ((i * 7919 % 4001) as f32 - 2000.0) * 1e-3).collect();
            let codes = TernaryWeights::quantize(&latent, rows, cols, 0.7).codes();
            let turned = TernaryWeights::quantize_transposed(&latent, rows, cols, 0.7);
            assert_eq!((turned.rows(), turned.cols(), turned.scale()), (cols, rows, 0.7));
            let expected: Vec<i8> =
                (0..cols).flat_map(|c| (0..rows).map(move |r| r * cols + c)).map(|i| codes[i]).collect();
            assert_eq!(turned, TernaryWeights::new(&expected, cols, rows, 0.7), "[{rows}, {cols}]");
        }
    }

    proptest! {
        #[test]
        fn any_latent_weight_gets_the_code_of_the_definition(
            latent in prop::collection::vec(any::<f32>(), 1..100),
            scale in 1e-5f32..1e3,
        ) {
            let mut codes = vec![0; latent.len()];
            tritforge_ternary::weight_codes(&latent, scale, &mut codes);
            prop_assert_eq!(TernaryWeights::quantize(&latent, 1, latent.len(), scale).codes(), codes);
        }
    }

    #[test]
    #[should_panic(expected = "must be -1, 0 or +1")]
    fn a_code_that_is_not_ternary_is_refused() {
        TernaryWeights::new(&[0, 1, -1, 2], 2, 2, 1.0);
    }

    #[test]
    #[should_panic(expected = "weights must be [2, 3]")]
    fn a_wrong_length_is_refused() {
        TernaryWeights::new(&[0; 5], 2, 3, 1.0);
    }
}
