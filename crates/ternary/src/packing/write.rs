//! From codes and scales to bytes.

use half::f16;

use super::layout::TAIL;
use super::{Packing, ScalePlace};
use crate::{Granularity, Scales, TernaryError, TernaryTensor, is_f16};

impl Packing {
    /// Packs a tensor with its scales. Layouts that store scales as f16 get 1.0 for the one scale of a tensor, which is
    /// to be stored beside them; those of rows and groups are stored as they are.
    ///
    /// # Errors
    /// If the block does not divide the columns, the layout has no room for the scales, or stores them as f16 and one is
    /// no f16 number.
    pub fn pack(self, tensor: &TernaryTensor) -> Result<Vec<u8>, TernaryError> {
        let shape = [tensor.rows(), tensor.cols()];
        self.pack_codes(tensor.codes(), shape, tensor.scales())
    }

    /// Packs a tensor of one scale with another one, rounded to f16 in a layout that stores scales so: for
    /// architectures that have no place for a scale beside the tensor. The other layouts get the tensor's own.
    ///
    /// # Errors
    /// If the block does not divide the columns, or f16 makes infinity of the scale, or 0 although a code is
    /// not 0.
    pub fn pack_with_block_scale(self, tensor: &TernaryTensor, scale: f32) -> Result<Vec<u8>, TernaryError> {
        if !self.is_f16() {
            return self.pack(tensor);
        }
        let d = f16::from_f32(scale);
        // A scale of 0 is right for zeros alone, and is what llama.cpp's quantizer writes for them.
        let holds = d.is_finite()
            && (d > f16::ZERO || d == f16::ZERO && tensor.codes().iter().all(|code| *code == 0));
        if !holds {
            let (scale, stored) = (scale.to_string(), d.to_string());
            return Err(TernaryError::ScaleRange { packing: self.name(), scale, stored });
        }
        self.write(tensor.codes(), [tensor.rows(), tensor.cols()], |_, _| d.to_f32())
    }

    /// Packs codes [rows, cols], row-major, with their scales, as [`Packing::pack`] does.
    ///
    /// # Errors
    /// As there.
    ///
    /// # Panics
    /// If the codes or the scales are not those of a matrix [rows, cols].
    pub fn pack_codes(
        self,
        codes: &[i8],
        [rows, cols]: [usize; 2],
        scales: &Scales,
    ) -> Result<Vec<u8>, TernaryError> {
        assert_eq!(codes.len(), rows * cols, "codes of [{rows}, {cols}]");
        let granularity = scales.granularity();
        if !self.holds(granularity) {
            let packing = self.name();
            return Err(TernaryError::NoRoom { packing, granularity, holding: Self::holding(granularity) });
        }
        if self.is_f16() && granularity == Granularity::Tensor {
            return self.write(codes, [rows, cols], |_, _| 1.0);
        }
        if self.is_f16()
            && let Some(i) = scales.values().iter().position(|scale| !is_f16(*scale))
        {
            let (scale, of) = (scales.values()[i], scales.place(i));
            let stored = f16::from_f32(scale).to_string();
            let scale = scale.to_string();
            return Err(TernaryError::Rounded { packing: self.name(), of, scale, stored });
        }
        let per_row = granularity.per_row(cols);
        let blocks = (cols / self.block()).max(1);
        self.write(codes, [rows, cols], |row, block| scales.row(row)[block * per_row / blocks])
    }

    /// Writes codes with the scale that is given for each row and block of it, of which f16 holds all that it is to
    /// hold.
    fn write(
        self,
        codes: &[i8],
        [rows, cols]: [usize; 2],
        scale: impl Fn(usize, usize) -> f32,
    ) -> Result<Vec<u8>, TernaryError> {
        let layout = self.layout();
        let mut bytes = Vec::with_capacity(self.packed_len(rows, cols)?);
        let f16_of = |scale: f32| f16::from_f32(scale).to_le_bytes();
        if layout.scales == ScalePlace::Tensor {
            (layout.pack)(codes, [0, 0], &mut bytes);
            bytes.extend_from_slice(&scale(0, 0).to_le_bytes().repeat(TAIL / layout.scale_bytes));
            return Ok(bytes);
        }
        for (row, codes) in codes.chunks_exact(cols.max(1)).enumerate() {
            if layout.scales == ScalePlace::Block {
                for (block, codes) in codes.chunks_exact(layout.block).enumerate() {
                    (layout.pack)(codes, f16_of(scale(row, block)), &mut bytes);
                }
                continue;
            }
            match layout.is_f16() {
                true => bytes.extend_from_slice(&f16_of(scale(row, 0))),
                false => bytes.extend_from_slice(&scale(row, 0).to_le_bytes()),
            }
            (layout.pack)(codes, [0, 0], &mut bytes);
        }
        Ok(bytes)
    }
}
