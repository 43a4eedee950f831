//! The portable kernel: the reference that the vector kernels are tested against.

use std::ops::Range;

use super::output::{Output, Sink};
use crate::ternary_weights::{BLOCK_ROWS, STEP_COLS, STEP_LINES, code_of};
use crate::{QuantizedRows, TernaryWeights};

/// Tokens of a tile: only the granularity of tasks.
pub(super) const TILE_TOKENS: usize = 16;

/// Multiplies the tokens with the blocks of weights.
///
/// # Safety
/// No other thread may write the same tokens and blocks to the sink.
pub(super) unsafe fn multiply<T: Output>(
    x: &QuantizedRows,
    tokens: Range<usize>,
    w: &TernaryWeights,
    blocks: Range<usize>,
    sink: &Sink<'_, T>,
) {
    // One block as plain codes [32, cols]: compilers turn the dot product of two i8 slices into vector code.
    let mut codes = vec![0i8; BLOCK_ROWS * w.cols()];
    let mut unpacked = Vec::new();
    for block in blocks {
        let lines = w.lines(block, &mut unpacked);
        for (lane, codes) in codes.chunks_exact_mut(w.cols()).enumerate() {
            let steps = lines.chunks_exact(STEP_LINES);
            for (lines, codes) in steps.zip(codes.chunks_mut(STEP_COLS)) {
                let word = lines[lane / 16].0[lane % 16];
                for (i, code) in codes.iter_mut().enumerate() {
                    *code = code_of(word, i);
                }
            }
        }
        for token in tokens.clone() {
            let row = &x.codes[token * x.cols..][..x.cols];
            if let Some(groups) = w.groups(block).filter(|_| T::SCALED) {
                let width = groups.steps * STEP_COLS;
                let mut values = [0f32; BLOCK_ROWS];
                for (lane, (value, codes)) in values.iter_mut().zip(codes.chunks_exact(w.cols())).enumerate()
                {
                    let parts = row.chunks_exact(width).zip(codes.chunks_exact(width));
                    for ((x, codes), scales) in parts.zip(groups.scales) {
                        *value += scales[lane].to_f32() * dot(x, codes) as f32;
                    }
                }
                // SAFETY: passed on to the caller.
                unsafe { sink.put_groups(token, block, &values) };
                continue;
            }
            let mut acc = [0; BLOCK_ROWS];
            for (acc, codes) in acc.iter_mut().zip(codes.chunks_exact(w.cols())) {
                *acc = dot(row, codes);
            }
            // SAFETY: passed on to the caller.
            unsafe { sink.put(token, block, &acc) };
        }
    }
}

fn dot(x: &[i8], codes: &[i8]) -> i32 {
    x.iter().zip(codes).map(|(x, w)| i32::from(*x) * i32::from(*w)).sum()
}
