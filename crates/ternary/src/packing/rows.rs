//! A packed tensor read a few rows at a time, so that a loader never holds all its codes.

use super::{Packing, i2_s, tq1_0, tq2_0};
use crate::TernaryError;

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
            let what = match packing {
                Packing::Tq1_0 => "TQ1_0 bytes",
                Packing::Tq2_0 => "TQ2_0 bytes",
                Packing::I2S => "I2_S bytes",
            };
            return Err(TernaryError::Length { what, rows, cols, found: bytes.len(), expected });
        }
        Ok(Self { packing, bytes, rows, cols })
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
        let first_block = start / self.packing.block();
        match self.packing {
            Packing::Tq1_0 => {
                let blocks = &self.bytes.as_chunks().0[first_block..];
                blocks.iter().zip(codes.as_chunks_mut().0).for_each(|(b, codes)| tq1_0::unpack(b, codes));
            }
            Packing::Tq2_0 => {
                let blocks = &self.bytes.as_chunks().0[first_block..];
                blocks.iter().zip(codes.as_chunks_mut().0).for_each(|(b, codes)| tq2_0::unpack(b, codes));
            }
            Packing::I2S => {
                let blocks = &self.bytes[..self.bytes.len() - i2_s::TAIL].as_chunks().0[first_block..];
                blocks.iter().zip(codes.as_chunks_mut().0).for_each(|(b, codes)| i2_s::unpack(b, codes));
            }
        }
        // One pass that vectorizes; only a damaged tensor is searched.
        if codes.iter().fold(0, |seen, code| seen | (*code & 2) & !(*code >> 7)) != 0
            && let Some(index) = codes.iter().position(|code| *code > 1)
        {
            return Err(TernaryError::Code { index: start + index, found: i32::from(codes[index]) });
        }
        Ok(())
    }

    /// Scale of every block in order (TQ1_0, TQ2_0) or of the tensor (I2_S: exactly one).
    pub fn scales(&self) -> Vec<f32> {
        let f32s = |bits: u16| half::f16::from_bits(bits).to_f32();
        match self.packing {
            Packing::Tq1_0 => self.bytes.as_chunks().0.iter().map(tq1_0::scale).map(f32s).collect(),
            Packing::Tq2_0 => self.bytes.as_chunks().0.iter().map(tq2_0::scale).map(f32s).collect(),
            Packing::I2S => self.tail().into_iter().collect(),
        }
    }

    /// The one scale of the tensor, if all block scales are the same bits. A block of zeros may have the scale 0, which is what
    /// llama.cpp's quantizer gives it.
    pub fn uniform_scale(&self) -> Option<f32> {
        match self.packing {
            Packing::Tq1_0 => uniform(self.bytes.as_chunks().0, tq1_0::scale, tq1_0::pack),
            Packing::Tq2_0 => uniform(self.bytes.as_chunks().0, tq2_0::scale, tq2_0::pack),
            Packing::I2S => self.tail(),
        }
    }

    fn tail(&self) -> Option<f32> {
        self.bytes.last_chunk().map(i2_s::scale)
    }
}

/// The scale of all blocks but those of zeros.
fn uniform<const N: usize>(
    blocks: &[[u8; N]],
    scale: impl Fn(&[u8; N]) -> u16,
    pack: impl Fn(&[i8; 256], [u8; 2], &mut Vec<u8>),
) -> Option<f32> {
    let mut zeros = Vec::with_capacity(N);
    pack(&[0; 256], [0, 0], &mut zeros);
    let mut scales = blocks.iter().filter(|block| block[..] != zeros[..]).map(scale);
    let first = scales.next().unwrap_or_default();
    scales.all(|scale| scale == first).then(|| half::f16::from_bits(first).to_f32())
}
