//! Building the layouts: from codes, from latent weights, transposed.

use std::mem::MaybeUninit;
use std::sync::Mutex;

use tritforge_ternary::{Fitted, Scales};

use super::scales::LaneScales;
use super::{BLOCK_ROWS, Line, MAX_COLS, STEP_COLS, STEP_LINES, TernaryLayout, TernaryWeights, check_shape};
use crate::{five_trits, huge_pages, pool};

/// From this many weights the matrix is built by several threads.
const PARALLEL_WEIGHTS: usize = 1 << 17;

impl TernaryWeights {
    /// Builds the matrix block by block, on all threads, from whatever `codes_of` reads: it gets the index of
    /// a first row and writes the codes of whole rows from there on. At no time more than some rows a thread
    /// are unpacked.
    ///
    /// # Errors
    /// The first error of `codes_of`.
    ///
    /// # Panics
    /// If a dimension is 0, there are more than 131072 columns, a code is not ternary, or the scales are those of
    /// another shape.
    pub fn try_from_rows<E: Send>(
        rows: usize,
        cols: usize,
        scales: impl Into<Scales>,
        layout: TernaryLayout,
        codes_of: impl Fn(usize, &mut [i8]) -> Result<(), E> + Sync,
    ) -> Result<Self, E> {
        let error = Mutex::new(None);
        let weights = Self::build(rows, cols, scales.into(), layout, |first, block, lines| {
            let mut codes = vec![0i8; block * cols];
            if let Err(e) = codes_of(first, &mut codes) {
                error.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(e);
                codes.fill(0);
            }
            fill_block(&codes, cols, lines, &|_, _, source, fields| {
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
    /// codes are those of [`Fitted::codes`], `clamp(round_half_even(w · (1/step)), -1, 1)` unless the quantizer gives
    /// others. A number is the step and the scale of the whole tensor.
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
    pub fn quantize(latent: &[f32], rows: usize, cols: usize, fitted: impl Into<Fitted>) -> Self {
        check_shape(latent.len(), rows, cols);
        let fitted = fitted.into();
        if let Some(codes) = fitted.given_codes() {
            return Self::new(codes, rows, cols, fitted.scales().clone());
        }
        Self::build(rows, cols, fitted.scales().clone(), TernaryLayout::TwoBits, |first, block, lines| {
            let source = &latent[first * cols..][..block * cols];
            fill_block(source, cols, lines, &|lane, at, source, fields| {
                let inverses = fitted.inverse_steps(first + lane);
                let width = cols / inverses.len();
                // A group lies within a piece: its size divides that of pieces.
                let groups = source.chunks(width).zip(fields.chunks_mut(width));
                for ((source, fields), inverse) in groups.zip(&inverses[at / width..]) {
                    for (field, w) in fields.iter_mut().zip(source) {
                        // Half to even: ±0.5 rounds to 0, everything beyond to ±1 or is clamped to it. A NaN is
                        // 0.
                        let v = w * inverse;
                        *field = 1 + u8::from(v > 0.5) - u8::from(v < -0.5);
                    }
                }
            });
        })
    }

    /// The transpose of what [`TernaryWeights::quantize`] makes of latent weights [rows, cols] (row-major): a
    /// matrix [cols, rows]. Scales of rows and groups have no place in it: its scale is 1 then.
    ///
    /// # Panics
    /// If `latent` has not `rows * cols` elements, a dimension is 0, or there are more than 131072 rows.
    pub fn quantize_transposed(latent: &[f32], rows: usize, cols: usize, fitted: impl Into<Fitted>) -> Self {
        let fitted = fitted.into();
        let scale = fitted.scales().of_tensor().unwrap_or(1.0);
        if let Some(codes) = fitted.given_codes() {
            return Self::transpose(codes, rows, cols, scale, |_, _| 1.0, field_of_code);
        }
        let inverse = |row: usize, column: usize| {
            let inverses = fitted.inverse_steps(row);
            inverses[column / (cols / inverses.len())]
        };
        Self::transpose(latent, rows, cols, scale, inverse, move |w, inverse| {
            let v = w * inverse;
            1 + u32::from(v > 0.5) - u32::from(v < -0.5)
        })
    }

    /// The transpose [cols, rows], in the 2-bit layout. Scales of rows and groups have no place in it: its scale is
    /// 1 then.
    pub fn transposed(&self) -> Self {
        let scale = self.scales().of_tensor().unwrap_or(1.0);
        Self::transpose(&self.codes(), self.rows, self.cols, scale, |_, _| 1.0, field_of_code)
    }

    /// The transpose of a matrix [rows, cols] of which `field` makes code + 1 of an element and what `of` gives for
    /// its row and the first of sixteen columns.
    fn transpose<T: Sync>(
        source: &[T],
        rows: usize,
        cols: usize,
        scale: f32,
        of: impl Fn(usize, usize) -> f32 + Sync,
        field: impl Fn(&T, f32) -> u32 + Sync,
    ) -> Self {
        check_shape(source.len(), rows, cols);
        Self::build(cols, rows, scale.into(), TernaryLayout::TwoBits, |first, count, lines| {
            // A step is 16 rows of the source; its lanes are consecutive columns there.
            let steps = source.chunks(STEP_COLS * cols).zip(lines.as_chunks_mut::<STEP_LINES>().0);
            for (step, (source, lines)) in steps.enumerate() {
                for (i, row) in source.chunks_exact(cols).enumerate() {
                    let shift = 8 * (i % 4) + 2 * (i / 4);
                    let pieces = lines.iter_mut().zip(row[first..][..count].chunks(16));
                    for (piece, (line, source)) in pieces.enumerate() {
                        let factor = of(step * STEP_COLS + i, first + 16 * piece);
                        let field = |element: &T| field(element, factor);
                        match source.as_array::<16>() {
                            Some(source) => add_fields(&mut line.0, source, &field, shift),
                            None => add_fields(&mut line.0, source, &field, shift),
                        }
                    }
                }
            }
        })
    }

    /// Builds every block, of 2 bits a weight where groups have scales: `fill` gets the index of its first row, its number of rows, and its 2-bit lines,
    /// all zero.
    fn build(
        rows: usize,
        cols: usize,
        scales: Scales,
        layout: TernaryLayout,
        fill: impl Fn(usize, usize, &mut [Line]) + Sync,
    ) -> Self {
        assert!(rows > 0 && cols > 0, "a weight matrix needs rows and columns, not [{rows}, {cols}]");
        assert!(cols <= MAX_COLS, "{cols} columns: at most {MAX_COLS}");
        let scales = LaneScales::new(scales, [rows, cols]);
        let layout = if scales.groups(0).is_some() { TernaryLayout::TwoBits } else { layout };
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
        Self { rows, cols, scales, layout, lines }
    }
}

/// The field of a code: one more.
fn field_of_code(code: &i8, _: f32) -> u32 {
    (i32::from(*code) + 1) as u32
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

/// Writes one block from its rows, `source` [at most 32, cols]: `fields` gets the number of a row, a first column,
/// and the weights from there on, and writes code + 1 of each.
fn fill_block<T>(
    source: &[T],
    cols: usize,
    lines: &mut [Line],
    fields: &impl Fn(usize, usize, &[T], &mut [u8]),
) {
    /// Columns a piece: enough for vector code, small enough for L1, and whole groups.
    const PIECE: usize = 16 * STEP_COLS;
    let mut buffer = [0u8; PIECE];
    for (lane, row) in source.chunks_exact(cols).enumerate() {
        let pieces = row.chunks(PIECE).zip(lines.chunks_mut(PIECE / STEP_COLS * STEP_LINES));
        for (i, (piece, lines)) in pieces.enumerate() {
            if piece.len() < PIECE {
                buffer.fill(0);
            }
            fields(lane, i * PIECE, piece, &mut buffer[..piece.len()]);
            let (steps, _) = buffer.as_chunks::<STEP_COLS>();
            for (step, lines) in steps.iter().zip(lines.chunks_exact_mut(STEP_LINES)) {
                let (words, _) = step.as_chunks::<4>();
                let [a, b, c, d] = std::array::from_fn(|s| u32::from_le_bytes(words[s]));
                lines[lane / 16].0[lane % 16] = a | b << 2 | c << 4 | d << 6;
            }
        }
    }
}
