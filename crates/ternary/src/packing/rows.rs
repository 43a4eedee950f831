//! A packed tensor read a few rows at a time, so that a loader never holds all its codes.

use super::{Packing, ROW_SCALE, ScalePlace, TAIL};
use crate::tensor::check_scale;
use crate::{EPS, TernaryError};

/// The bytes of a packed tensor [rows, cols], borrowed, their length checked.
#[derive(Debug, Clone, Copy)]
pub struct PackedRows<'a> {
    packing: Packing,
    bytes: &'a [u8],
    rows: usize,
    cols: usize,
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
    fn row_bytes(&self) -> usize {
        let layout = self.packing.layout();
        let scale = if layout.scales == ScalePlace::Row { ROW_SCALE } else { 0 };
        self.cols / layout.block * layout.bytes + scale
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
                (layout.unpack)(&row[ROW_SCALE..], codes);
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

    /// The scales of what [`Packing::scales`] says, in order, each with the bytes of its codes.
    fn scaled(&self) -> Vec<(f32, &'a [u8])> {
        let layout = self.packing.layout();
        let at = layout.scale_at;
        let block = |block: &'a [u8]| (half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32(), block);
        let whole = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        match layout.scales {
            ScalePlace::Block => self.bytes.chunks_exact(layout.bytes).map(block).collect(),
            ScalePlace::Row => {
                let rows = self.bytes.chunks_exact(self.row_bytes());
                rows.map(|row| (whole(row), &row[ROW_SCALE..])).collect()
            }
            ScalePlace::Tensor => {
                let (codes, tail) = self.bytes.split_at(self.bytes.len() - TAIL);
                vec![(whole(tail), codes)]
            }
        }
    }

    /// Scale of every block or row in order, or of the tensor (exactly one).
    pub fn scales(&self) -> Vec<f32> {
        self.scaled().into_iter().map(|(scale, _)| scale).collect()
    }

    /// The scale that multiplies all codes of the tensor: that of its blocks or rows, times `beside`, which
    /// stands beside the tensor in some files. A tensor of zeros alone may have the scale 0; its scale is
    /// [`crate::EPS`] then, as the quantizer has it.
    ///
    /// # Errors
    /// If a scale is NaN, infinite or negative, or 0 where codes are not; if blocks or rows have different
    /// scales.
    pub fn tensor_scale(&self, beside: Option<f32>) -> Result<f32, TernaryError> {
        let what = match self.packing.scales() {
            ScalePlace::Block => " of block ",
            ScalePlace::Row => " of row ",
            ScalePlace::Tensor => "",
        };
        let scales = self.scales();
        if let Some(bad) = scales.iter().position(|scale| !(*scale >= 0.0 && scale.is_finite())) {
            let number = if what.is_empty() { String::new() } else { bad.to_string() };
            return Err(TernaryError::Scale {
                of: format!("{what}{number}"),
                scale: scales[bad].to_string(),
            });
        }
        let scale = self.uniform_scale().ok_or(TernaryError::Scales)? * beside.unwrap_or(1.0);
        if scale == 0.0 && self.is_all_zeros()? {
            return Ok(EPS);
        }
        check_scale(scale, String::new()).map(|()| scale)
    }

    /// Whether all codes are 0.
    fn is_all_zeros(&self) -> Result<bool, TernaryError> {
        let mut codes = vec![0; self.cols];
        for row in 0..self.rows {
            self.unpack(row, &mut codes)?;
            if codes.iter().any(|code| *code != 0) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The one scale of the tensor, if all scales are the same bits. A block of zeros may have the scale 0,
    /// which is what llama.cpp's quantizer gives it, and a row of zeros any; a tensor of such blocks or rows
    /// alone has the scale 0.
    pub fn uniform_scale(&self) -> Option<f32> {
        let layout = self.packing.layout();
        let mut zeros = Vec::with_capacity(layout.bytes);
        (layout.pack)(&vec![0; layout.block], [0, 0], &mut zeros);
        let is_zero = |codes: &[u8]| match layout.scales {
            ScalePlace::Block => codes == zeros,
            ScalePlace::Row => codes.chunks_exact(layout.bytes).all(|block| block == zeros),
            ScalePlace::Tensor => false,
        };
        let mut scales =
            self.scaled().into_iter().filter(|(_, codes)| !is_zero(codes)).map(|(scale, _)| scale);
        let first = scales.next().unwrap_or_default();
        scales.all(|scale| scale.to_bits() == first.to_bits()).then_some(first)
    }
}
