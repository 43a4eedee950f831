//! The byte layouts in which GGUF files hold ternary weights; one file a layout.
//!
//! A layout that has a scale in every block (TQ1_0, TQ2_0) is written with block scale 1.0, and the tensor's f32
//! scale goes beside it (`<name>.scale` in GGUF): an f16 block scale would round it. I2_S holds the f32 scale itself.

mod i2_s;
mod iq2_bn;
mod rows;
mod stripes;
mod tq1_0;
mod tq2_0;

pub use self::iq2_bn::unpack_iq2_bn;
pub use self::rows::PackedRows;
pub use self::stripes::{pack_stripes, unpack_stripes};
use crate::{TernaryError, TernaryTensor};

/// A byte layout for ternary weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// 256 weights in 54 bytes, five base-3 digits a byte (1.6875 bits a weight); llama.cpp type 34.
    Tq1_0,
    /// 256 weights in 66 bytes, four 2-bit codes a byte (2.0625 bits a weight); llama.cpp type 35.
    Tq2_0,
    /// 128 weights in 32 bytes, one f32 scale after the whole tensor; bitnet.cpp type 36, x86 layout.
    I2S,
}

/// What packed bytes say: codes, and the scale if the layout holds one.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// Codes in {-1, 0, +1}, row-major.
    pub codes: Vec<i8>,
    /// Scale of every block in order (TQ1_0, TQ2_0: one for each 256 weights) or of the tensor (I2_S: exactly one).
    pub scales: Vec<f32>,
}

impl Unpacked {
    /// The one scale of the tensor, if all block scales are the same bits.
    pub fn uniform_scale(&self) -> Option<f32> {
        let first = *self.scales.first()?;
        self.scales.iter().all(|s| s.to_bits() == first.to_bits()).then_some(first)
    }
}

impl Packing {
    /// All layouts.
    pub const ALL: [Packing; 3] = [Packing::Tq1_0, Packing::Tq2_0, Packing::I2S];

    /// The name that GGUF tools print.
    pub fn name(self) -> &'static str {
        match self {
            Packing::Tq1_0 => "TQ1_0",
            Packing::Tq2_0 => "TQ2_0",
            Packing::I2S => "I2_S",
        }
    }

    /// Weights in a block: the columns of a tensor must be a multiple of it.
    pub fn block(self) -> usize {
        match self {
            Packing::Tq1_0 | Packing::Tq2_0 => 256,
            Packing::I2S => i2_s::BLOCK,
        }
    }

    /// Bytes of a packed tensor [rows, cols].
    ///
    /// # Errors
    /// If the block does not divide the columns, or the size overflows.
    pub fn packed_len(self, rows: usize, cols: usize) -> Result<usize, TernaryError> {
        if !cols.is_multiple_of(self.block()) {
            return Err(TernaryError::Columns { packing: self.name(), block: self.block(), cols });
        }
        let n = rows.checked_mul(cols).ok_or(TernaryError::TooLarge { rows, cols })?;
        match self {
            Packing::Tq1_0 => (n / 256).checked_mul(tq1_0::BYTES),
            Packing::Tq2_0 => (n / 256).checked_mul(tq2_0::BYTES),
            Packing::I2S => (n / 4).checked_add(i2_s::TAIL),
        }
        .ok_or(TernaryError::TooLarge { rows, cols })
    }

    /// Packs a tensor. TQ1_0 and TQ2_0 get block scale 1.0 (the tensor's scale is to be stored beside them); I2_S
    /// gets the tensor's scale in its tail.
    ///
    /// # Errors
    /// If the block does not divide the columns.
    pub fn pack(self, tensor: &TernaryTensor) -> Result<Vec<u8>, TernaryError> {
        self.pack_with_block_scale(tensor, 1.0)
    }

    /// Packs a tensor with `block_scale`, rounded to f16, in every block of TQ1_0 and TQ2_0: for architectures
    /// that have no place for a tensor scale. I2_S ignores it.
    ///
    /// # Errors
    /// If the block does not divide the columns.
    pub fn pack_with_block_scale(
        self,
        tensor: &TernaryTensor,
        block_scale: f32,
    ) -> Result<Vec<u8>, TernaryError> {
        let mut bytes = Vec::with_capacity(self.packed_len(tensor.rows(), tensor.cols())?);
        let d = half::f16::from_f32(block_scale).to_le_bytes();
        match self {
            Packing::Tq1_0 => tensor.codes().as_chunks().0.iter().for_each(|b| tq1_0::pack(b, d, &mut bytes)),
            Packing::Tq2_0 => tensor.codes().as_chunks().0.iter().for_each(|b| tq2_0::pack(b, d, &mut bytes)),
            Packing::I2S => i2_s::pack(tensor.codes(), tensor.scale(), &mut bytes),
        }
        Ok(bytes)
    }

    /// Unpacks the bytes of a tensor [rows, cols].
    ///
    /// # Errors
    /// If the block does not divide the columns, the byte count is wrong, or a code is not ternary.
    pub fn unpack(self, bytes: &[u8], rows: usize, cols: usize) -> Result<Unpacked, TernaryError> {
        let packed = PackedRows::new(self, bytes, rows, cols)?;
        let mut codes = vec![0; rows * cols];
        packed.unpack(0, &mut codes)?;
        Ok(Unpacked { codes, scales: packed.scales() })
    }
}
