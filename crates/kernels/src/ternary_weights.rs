//! `TernaryWeights`: a ternary matrix in the layout that the products read, 2 bits a weight.
//!
//! The matrix is cut into blocks of [`BLOCK_ROWS`] output features. A block is a run of steps of [`STEP_COLS`]
//! columns; a step is two [`Line`]s of 64 bytes, one word for each row. In a word, the weight of column `4s + j` of
//! the step is the field `code + 1` (0, 1 or 2) at bits `8j + 2s`. So `(line >> 2s) & 0x03` in every byte is a vector
//! of 16 rows × 4 consecutive columns: the unsigned operand of `vpdpbusd` and `vpmaddubsw`, whose other operand is 4
//! consecutive activations, broadcast. One layout serves decoding (memory-bound, streams the lines once) and prefill
//! or training (compute-bound).
//!
//! Rows beyond the last are padding whose results are dropped; columns beyond the last meet activations that are
//! padded with 0.

use rayon::prelude::*;

/// Rows of a block: two vectors of 16 lanes.
pub(crate) const BLOCK_ROWS: usize = 32;

/// Columns of a step: 4 fields of 2 bits in each of 4 bytes.
pub(crate) const STEP_COLS: usize = 16;

/// Lines of a step.
pub(crate) const STEP_LINES: usize = BLOCK_ROWS / 16;

/// The widest matrix: every sum, at most 128 · 2¹⁷ = 2²⁴, is exact as f32, and the i32 accumulators of every backend,
/// whose terms are at most 64 times larger in a quarter of the columns, cannot overflow.
pub(crate) const MAX_COLS: usize = 1 << 17;

/// From this many weights the matrix is built by several threads.
const PARALLEL_WEIGHTS: usize = 1 << 17;

/// 16 rows × 16 columns: the unit of a vector load, on its own cache line.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

/// A ternary matrix [rows, cols] with one scale: value (r, c) is `code(r, c) * scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct TernaryWeights {
    rows: usize,
    cols: usize,
    scale: f32,
    lines: Vec<Line>,
}

impl TernaryWeights {
    /// The kernel layout of `codes` [rows, cols] (row-major, each -1, 0 or +1) with the scale of the whole tensor.
    ///
    /// # Panics
    /// If `codes` has not `rows * cols` elements, a dimension is 0, there are more than 131072 columns, or a code is
    /// not ternary ([`tritforge_ternary::TernaryTensor`] holds codes that have been checked).
    pub fn new(codes: &[i8], rows: usize, cols: usize, scale: f32) -> Self {
        Self::build(codes, rows, cols, scale, |source, fields| {
            let mut seen = 0;
            for (field, code) in fields.iter_mut().zip(source) {
                *field = code.wrapping_add(1) as u8;
                seen |= i32::from(*field > 2);
            }
            assert_eq!(seen, 0, "weight codes must be -1, 0 or +1");
        })
    }

    /// Quantizes latent weights [rows, cols] (row-major) straight into the kernel layout, in one pass: the codes are
    /// those of [`tritforge_ternary::weight_codes`], `clamp(round_half_even(w · (1/scale)), -1, 1)`.
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
        let inverse = 1.0 / scale;
        Self::build(latent, rows, cols, scale, |source, fields| {
            for (field, w) in fields.iter_mut().zip(source) {
                // Half to even: ±0.5 rounds to 0, everything beyond to ±1 or is clamped to it. A NaN is 0.
                let v = w * inverse;
                *field = 1 + u8::from(v > 0.5) - u8::from(v < -0.5);
            }
        })
    }

    /// Cuts `source` into blocks; `fields` turns a piece of a row into values `code + 1`.
    fn build<T: Sync>(
        source: &[T],
        rows: usize,
        cols: usize,
        scale: f32,
        fields: impl Fn(&[T], &mut [u8]) + Sync,
    ) -> Self {
        assert!(rows > 0 && cols > 0, "a weight matrix needs rows and columns, not [{rows}, {cols}]");
        assert!(cols <= MAX_COLS, "{cols} columns: at most {MAX_COLS}");
        assert_eq!(Some(source.len()), rows.checked_mul(cols), "weights must be [{rows}, {cols}]");
        let block_lines = cols.div_ceil(STEP_COLS) * STEP_LINES;
        let mut lines = vec![Line([0; 16]); rows.div_ceil(BLOCK_ROWS) * block_lines];
        let fill = |(block, lines): (usize, &mut [Line])| {
            let first = block * BLOCK_ROWS;
            let source = &source[first * cols..rows.min(first + BLOCK_ROWS) * cols];
            fill_block(source, cols, lines, &fields);
        };
        if source.len() < PARALLEL_WEIGHTS {
            lines.chunks_exact_mut(block_lines).enumerate().for_each(fill);
        } else {
            lines.par_chunks_exact_mut(block_lines).enumerate().for_each(fill);
        }
        Self { rows, cols, scale, lines }
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
        for (row, codes) in codes.chunks_exact_mut(self.cols).enumerate() {
            let lines = self.block(row / BLOCK_ROWS);
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
        self.cols.div_ceil(STEP_COLS)
    }

    /// The lines of one block, step by step.
    pub(crate) fn block(&self, block: usize) -> &[Line] {
        let block_lines = self.steps() * STEP_LINES;
        &self.lines[block * block_lines..][..block_lines]
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
