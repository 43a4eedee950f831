//! The byte layouts in which GGUF files hold ternary weights: one file a layout, one row a layout in
//! [`LAYOUTS`].
//!
//! A layout that has a scale in every block (TQ1_0, TQ2_0, Q2_0) is written with block scale 1.0, and the
//! tensor's f32 scale goes beside it (`<name>.scale` in GGUF): an f16 block scale would round it. I2_S and
//! IQ2_BN hold the f32 scale themselves.

mod i2_s;
mod iq2_bn;
mod q2_0;
mod rows;
mod stripes;
mod tq1_0;
mod tq2_0;

pub use self::rows::PackedRows;
pub use self::stripes::{pack_stripes, unpack_stripes};
use crate::{Granularity, TernaryError, TernaryTensor};

/// The metadata key by which this program says which weights of a GGUF file share a scale, where that is not all of a
/// tensor: `row`, or the size of a group. Blocks alone do not tell: neighbours may have the same scale.
pub const GRANULARITY: &str = "tritforge.granularity";

/// The metadata key by which this program says that I2_S tensors of a GGUF file have the layout of ARM: the
/// string [`I2_S_ARM`]. Files of bitnet.cpp have no such key, whichever layout they have.
pub const I2_S_LAYOUT: &str = "tritforge.i2_s.layout";

/// The value of [`I2_S_LAYOUT`] for the layout of ARM.
pub const I2_S_ARM: &str = "arm";

/// A byte layout for ternary weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// 256 weights in 54 bytes, five base-3 digits a byte (1.6875 bits a weight); llama.cpp type 34.
    Tq1_0,
    /// 256 weights in 66 bytes, four 2-bit codes a byte (2.0625 bits a weight); llama.cpp type 35.
    Tq2_0,
    /// 128 weights in 32 bytes, one f32 scale after the whole tensor; bitnet.cpp type 36, x86 layout.
    I2S,
    /// The same type in the layout of bitnet.cpp's ARM builds.
    I2SArm,
    /// 64 weights in 18 bytes (2.25 bits a weight); llama.cpp type 42.
    Q2_0,
    /// 64 weights in 16 bytes, an f32 scale before each row; ik_llama.cpp type 135.
    Iq2Bn,
}

/// Where a layout keeps scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalePlace {
    /// An f16 in every block.
    Block,
    /// An f32 before every row.
    Row,
    /// One f32 after the tensor.
    Tensor,
}

/// What a layout is.
struct Layout {
    name: &'static str,
    /// The type in GGUF files.
    ggml: &'static str,
    /// What errors call its bytes.
    bytes_of: &'static str,
    /// Weights of which a row must be a multiple, and bytes of as many.
    block: usize,
    bytes: usize,
    scales: ScalePlace,
    /// Where in a block the scale stands, if it stands there.
    scale_at: usize,
    /// Appends the codes of whole blocks, with the f16 scale given.
    pack: fn(&[i8], [u8; 2], &mut Vec<u8>),
    /// The codes of whole blocks.
    unpack: fn(&[u8], &mut [i8]),
}

/// One row a layout, in the order of [`Packing`].
const LAYOUTS: [Layout; 6] = [
    Layout {
        name: "TQ1_0",
        ggml: "TQ1_0",
        bytes_of: "TQ1_0 bytes",
        block: 256,
        bytes: tq1_0::BYTES,
        scales: ScalePlace::Block,
        scale_at: 52,
        pack: tq1_0::pack,
        unpack: tq1_0::unpack,
    },
    Layout {
        name: "TQ2_0",
        ggml: "TQ2_0",
        bytes_of: "TQ2_0 bytes",
        block: 256,
        bytes: tq2_0::BYTES,
        scales: ScalePlace::Block,
        scale_at: 64,
        pack: tq2_0::pack,
        unpack: tq2_0::unpack,
    },
    Layout {
        name: "I2_S",
        ggml: "I2_S",
        bytes_of: "I2_S bytes",
        block: i2_s::BLOCK,
        bytes: i2_s::BYTES,
        scales: ScalePlace::Tensor,
        scale_at: 0,
        pack: i2_s::pack,
        unpack: i2_s::unpack,
    },
    Layout {
        name: "I2_S_ARM",
        ggml: "I2_S",
        bytes_of: "I2_S bytes",
        block: i2_s::BLOCK,
        bytes: i2_s::BYTES,
        scales: ScalePlace::Tensor,
        scale_at: 0,
        pack: i2_s::pack_arm,
        unpack: i2_s::unpack_arm,
    },
    Layout {
        name: "Q2_0",
        ggml: "Q2_0",
        bytes_of: "Q2_0 bytes",
        block: q2_0::BLOCK,
        bytes: q2_0::BYTES,
        scales: ScalePlace::Block,
        scale_at: 0,
        pack: q2_0::pack,
        unpack: q2_0::unpack,
    },
    Layout {
        name: "IQ2_BN",
        ggml: "IQ2_BN",
        bytes_of: "IQ2_BN bytes",
        block: iq2_bn::BLOCK,
        bytes: iq2_bn::BYTES,
        scales: ScalePlace::Row,
        scale_at: 0,
        pack: iq2_bn::pack,
        unpack: iq2_bn::unpack,
    },
];

/// Bytes after the codes of a tensor with one scale: eight copies of it.
const TAIL: usize = 32;

/// Bytes of the scale before a row.
const ROW_SCALE: usize = 4;

/// What packed bytes say: codes, and the scales that the layout holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Unpacked {
    /// Codes in {-1, 0, +1}, row-major.
    pub codes: Vec<i8>,
    /// Scale of every block or row in order, or of the tensor (exactly one), as [`Packing::scales`] says.
    pub scales: Vec<f32>,
}

impl Unpacked {
    /// The one scale of the tensor, if all scales are the same bits.
    pub fn uniform_scale(&self) -> Option<f32> {
        let first = *self.scales.first()?;
        self.scales.iter().all(|s| s.to_bits() == first.to_bits()).then_some(first)
    }
}

impl Packing {
    /// All layouts.
    pub const ALL: [Packing; 6] =
        [Packing::Tq1_0, Packing::Tq2_0, Packing::I2S, Packing::I2SArm, Packing::Q2_0, Packing::Iq2Bn];

    fn layout(self) -> &'static Layout {
        // The table lists the variants in the order of their declaration (a test checks it).
        &LAYOUTS[self as usize]
    }

    /// The name: that of the type in files, with the processor's where one type has two layouts.
    pub fn name(self) -> &'static str {
        self.layout().name
    }

    /// The name of the type in GGUF files, as GGUF tools print it.
    pub fn ggml_type(self) -> &'static str {
        self.layout().ggml
    }

    /// The layout of a type in a GGUF file, given the value of the key [`I2_S_LAYOUT`]: none if the type is
    /// not ternary.
    pub fn in_file(ggml_type: &str, i2_s_layout: Option<&str>) -> Option<Packing> {
        let packing = Packing::ALL.into_iter().find(|packing| packing.ggml_type() == ggml_type)?;
        let arm = packing == Packing::I2S && i2_s_layout == Some(I2_S_ARM);
        Some(if arm { Packing::I2SArm } else { packing })
    }

    /// Weights in a block: the columns of a tensor must be a multiple of it.
    pub fn block(self) -> usize {
        self.layout().block
    }

    /// Where the layout keeps scales. Those of rows and of the tensor are f32, the training scale itself.
    pub fn scales(self) -> ScalePlace {
        self.layout().scales
    }

    /// Whether the layout has room for scales of a granularity. Those in blocks are f16; a scale of the tensor may
    /// stand beside them.
    pub fn holds(self, granularity: Granularity) -> bool {
        match (self.scales(), granularity) {
            (_, Granularity::Tensor) | (ScalePlace::Row | ScalePlace::Block, Granularity::Row) => true,
            (ScalePlace::Block, Granularity::Group(size)) => size.is_multiple_of(self.block()),
            (ScalePlace::Tensor | ScalePlace::Row, _) => false,
        }
    }

    /// The names of the layouts that have room for scales of a granularity.
    pub fn holding(granularity: Granularity) -> Vec<&'static str> {
        Self::ALL.into_iter().filter(|packing| packing.holds(granularity)).map(Self::name).collect()
    }

    /// Bytes of a packed tensor [rows, cols].
    ///
    /// # Errors
    /// If the block does not divide the columns, or the size overflows.
    pub fn packed_len(self, rows: usize, cols: usize) -> Result<usize, TernaryError> {
        let Layout { block, bytes, .. } = *self.layout();
        if !cols.is_multiple_of(block) {
            return Err(TernaryError::Columns { packing: self.name(), block, cols });
        }
        let codes = rows.checked_mul(cols).and_then(|n| (n / block).checked_mul(bytes));
        let scales = match self.scales() {
            ScalePlace::Block => Some(0),
            ScalePlace::Row => rows.checked_mul(ROW_SCALE),
            ScalePlace::Tensor => Some(TAIL),
        };
        let sum = codes.zip(scales).and_then(|(codes, scales)| codes.checked_add(scales));
        sum.ok_or(TernaryError::TooLarge { rows, cols })
    }

    /// Packs a tensor. Layouts with scales in blocks get block scale 1.0 (the tensor's scale is to be stored
    /// beside them); the others get the tensor's scale.
    ///
    /// # Errors
    /// If the block does not divide the columns.
    pub fn pack(self, tensor: &TernaryTensor) -> Result<Vec<u8>, TernaryError> {
        self.pack_with_block_scale(tensor, 1.0)
    }

    /// Packs a tensor with `block_scale`, rounded to f16, in every block of a layout that has scales there:
    /// for architectures that have no place for a tensor scale. The other layouts ignore it.
    ///
    /// # Errors
    /// If the block does not divide the columns, or f16 makes infinity of the scale, or 0 although a code is
    /// not 0.
    pub fn pack_with_block_scale(
        self,
        tensor: &TernaryTensor,
        block_scale: f32,
    ) -> Result<Vec<u8>, TernaryError> {
        let mut bytes = Vec::with_capacity(self.packed_len(tensor.rows(), tensor.cols())?);
        let d = half::f16::from_f32(block_scale);
        // A scale of 0 is right for zeros alone, and is what llama.cpp's quantizer writes for them.
        let holds = d.is_finite()
            && (d > half::f16::ZERO || d == half::f16::ZERO && tensor.codes().iter().all(|code| *code == 0));
        if self.scales() == ScalePlace::Block && !holds {
            let (scale, stored) = (block_scale.to_string(), d.to_string());
            return Err(TernaryError::ScaleRange { packing: self.name(), scale, stored });
        }
        let d = d.to_le_bytes();
        let scale = tensor.scales().of_tensor().ok_or(TernaryError::Scales)?.to_le_bytes();
        let pack = self.layout().pack;
        match self.scales() {
            ScalePlace::Block => pack(tensor.codes(), d, &mut bytes),
            ScalePlace::Row => {
                for row in tensor.codes().chunks_exact(tensor.cols().max(1)) {
                    bytes.extend_from_slice(&scale);
                    pack(row, d, &mut bytes);
                }
            }
            ScalePlace::Tensor => {
                pack(tensor.codes(), d, &mut bytes);
                bytes.extend_from_slice(&scale.repeat(TAIL / scale.len()));
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_need_room() {
        assert_eq!(Packing::holding(Granularity::Tensor).len(), Packing::ALL.len());
        assert_eq!(Packing::holding(Granularity::Row), ["TQ1_0", "TQ2_0", "Q2_0", "IQ2_BN"]);
        assert_eq!(Packing::holding(Granularity::Group(256)), ["TQ1_0", "TQ2_0", "Q2_0"]);
        assert_eq!(Packing::holding(Granularity::Group(128)), ["Q2_0"]);
        assert!(Packing::holding(Granularity::Group(32)).is_empty());
    }

    #[test]
    fn every_layout_has_its_row() {
        let names = ["TQ1_0", "TQ2_0", "I2_S", "I2_S_ARM", "Q2_0", "IQ2_BN"];
        for (i, packing) in Packing::ALL.into_iter().enumerate() {
            assert_eq!((packing as usize, packing.name()), (i, names[i]));
            let arm = if packing == Packing::I2SArm { Some(I2_S_ARM) } else { None };
            assert_eq!(Packing::in_file(packing.ggml_type(), arm), Some(packing));
        }
        assert_eq!(Packing::in_file("Q8_0", None), None);
    }
}
