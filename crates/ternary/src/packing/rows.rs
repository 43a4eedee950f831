//! A packed tensor read a few rows at a time, so that a loader never holds all its codes.

use super::{Packing, ScalePlace};
use crate::TernaryError;

/// The bytes of a packed tensor [rows, cols], borrowed, their length checked.
#[derive(Debug, Clone, Copy)]
pub struct PackedRows<'a> {
    pub(super) packing: Packing,
    pub(super) bytes: &'a [u8],
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl<'a> PackedRows<'a> {
    /// Takes the bytes of a tensor [rows, cols].
    ///
    /// # Errors
    /// If the packing's block does not divide the columns, or the byte count is wrong.
    pub fn new(packing: Packing, bytes: &'a [u8], rows: usize, cols: usize) -> Result<Self, TernaryError> {
        let expected = packing.packed_len(rows, cols)?;
        if bytes.len() != expected {
            let what = packing.layout().bytes_of;
            return Err(TernaryError::Length { what, rows, cols, found: bytes.len(), expected });
        }
        Ok(Self { packing, bytes, rows, cols })
    }

    /// Bytes of a row, its scale included.
    pub(super) fn row_bytes(&self) -> usize {
        let layout = self.packing.layout();
        self.cols / layout.block * layout.bytes + layout.row_scale()
    }

    /// Writes the codes of consecutive rows from row `first` on; `codes` is [any number of rows, cols].
    ///
    /// # Errors
    /// If a code is not ternary.
    ///
    /// # Panics
    /// If `codes` is not whole rows of this tensor.
    pub fn unpack(&self, first: usize, codes: &mut [i8]) -> Result<(), TernaryError> {
        let start = first * self.cols;
        assert!(
            codes.len().is_multiple_of(self.cols) && start + codes.len() <= self.rows * self.cols,
            "{} codes from row {first} of [{}, {}]",
            codes.len(),
            self.rows,
            self.cols
        );
        // A block never spans rows, as it divides the columns.
        let (layout, width) = (self.packing.layout(), self.row_bytes());
        let bytes = &self.bytes[first * width..];
        if layout.scales == ScalePlace::Row {
            for (codes, row) in codes.chunks_exact_mut(self.cols).zip(bytes.chunks_exact(width)) {
                (layout.unpack)(&row[layout.row_scale()..], codes);
            }
        } else {
            (layout.unpack)(&bytes[..codes.len() / self.cols * width], codes);
        }
        // One pass that vectorizes; only a damaged tensor is searched.
        if codes.iter().fold(0, |seen, code| seen | (*code & 2) & !(*code >> 7)) != 0
            && let Some(index) = codes.iter().position(|code| *code > 1)
        {
            return Err(TernaryError::Code { index: start + index, found: i32::from(codes[index]) });
        }
        Ok(())
    }
}
