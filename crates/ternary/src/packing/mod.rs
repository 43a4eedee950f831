//! The byte layouts in which GGUF files hold ternary weights: one file a layout, one line a layout in
//! [`Packing`].
//!
//! A layout that stores scales as f16 (in every block: TQ1_0, TQ2_0, Q2_0, PQ2_0, PTQ1_0; before every row: IQ1_BN) is
//! written with the scale 1.0 for a tensor with one scale, and the f32 scale goes beside it (`<name>.scale` in GGUF):
//! f16 would round it. I2_S and IQ2_BN hold f32 scales themselves. Scales of rows and of groups stand in the layout,
//! exactly or not at all.

mod i2_s;
mod iq1_bn;
mod iq2_bn;
mod layout;
#[cfg(test)]
mod nibbles;
mod ptq1_0;
mod q2_0;
mod read_only;
mod rows;
mod scales;
mod stripes;
#[cfg(test)]
mod tests;
mod tq1_0;
mod tq2_0;
mod trits;
mod write;

pub use self::layout::ScalePlace;
use self::layout::{Layout, TAIL};
pub use self::rows::PackedRows;
pub use self::stripes::{pack_stripes, unpack_stripes};
use crate::{Granularity, TernaryError};

/// The metadata key by which this program says which weights of a GGUF file share a scale, where that is not all of a
/// tensor: `row`, or the size of a group. Blocks alone do not tell: neighbours may have the same scale.
pub const GRANULARITY: &str = "tritforge.granularity";

/// The same of a ternary embedding whose scales are shared otherwise than those of the projections; `tensor` too.
pub const EMBEDDING_GRANULARITY: &str = "tritforge.granularity.token_embd";

/// The same of a ternary head.
pub const HEAD_GRANULARITY: &str = "tritforge.granularity.output";

/// The metadata key by which this program says that I2_S tensors of a GGUF file have the layout of ARM: the
/// string [`I2_S_ARM`]. Files of bitnet.cpp have no such key, whichever layout they have.
pub const I2_S_LAYOUT: &str = "tritforge.i2_s.layout";

/// The value of [`I2_S_LAYOUT`] for the layout of ARM.
pub const I2_S_ARM: &str = "arm";

/// Makes [`Packing`] of its layouts.
macro_rules! packings {
    ($($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $name:ident = $layout:expr;)*) => {
        /// A byte layout for ternary weights.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Packing {
            $($(#[doc = $doc])* $(#[cfg($cfg)])? $name,)*
        }

        /// In the order of [`Packing`].
        static LAYOUTS: &[Layout] = &[$($(#[cfg($cfg)])? $layout,)*];

        const COUNT: usize = [$($(#[cfg($cfg)])? Packing::$name,)*].len();

        impl Packing {
            /// All layouts.
            pub const ALL: [Packing; COUNT] = [$($(#[cfg($cfg)])? Packing::$name,)*];
        }
    };
}

packings! {
    /// 256 weights in 54 bytes, five base-3 digits a byte (1.6875 bits a weight); llama.cpp type 34.
    Tq1_0 = tq1_0::LAYOUT;
    /// 256 weights in 66 bytes, four 2-bit codes a byte (2.0625 bits a weight); llama.cpp type 35.
    Tq2_0 = tq2_0::LAYOUT;
    /// 128 weights in 32 bytes, one f32 scale after the whole tensor; bitnet.cpp type 36, x86 layout.
    I2S = i2_s::X86;
    /// The same type in the layout of bitnet.cpp's ARM builds.
    I2SArm = i2_s::ARM;
    /// 64 weights in 18 bytes (2.25 bits a weight); llama.cpp type 42.
    Q2_0 = q2_0::Q2_0;
    /// 128 weights in 34 bytes (2.125 bits a weight); the same type in files of PrismML's fork of 2026.
    Q2_0G128 = q2_0::Q2_0_G128;
    /// The same layout as type 142 of PrismML's fork.
    Pq2_0 = q2_0::PQ2_0;
    /// 128 weights in 28 bytes, five base-3 digits a byte (1.75 bits a weight); type 143 of PrismML's fork.
    Ptq1_0 = ptq1_0::LAYOUT;
    /// 64 weights in 16 bytes, an f32 scale before each row; ik_llama.cpp type 135.
    Iq2Bn = iq2_bn::LAYOUT;
    /// 64 weights in 13 bytes, an f16 scale before each row (1.625 bits a weight); ik_llama.cpp type 134.
    Iq1Bn = iq1_bn::LAYOUT;
    /// 32 weights in 16 bytes, which only tests have.
    #[cfg(test)]
    Nibbles = nibbles::LAYOUT;
}

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
    fn layout(self) -> &'static Layout {
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
    /// not ternary. Of a type that is only read it is the layout into which [`Packing::bytes_in_file`] brings it.
    pub fn in_file(ggml_type: &str, i2_s_layout: Option<&str>) -> Option<Packing> {
        let read_only = read_only::TYPES.iter().find(|(ty, _)| *ty == ggml_type).map(|(_, packing)| *packing);
        let mut all = Packing::ALL.into_iter();
        let packing = all.find(|packing| packing.ggml_type() == ggml_type).or(read_only)?;
        let arm = packing == Packing::I2S && i2_s_layout == Some(I2_S_ARM);
        Some(if arm { Packing::I2SArm } else { packing })
    }

    /// Weights in a block: the columns of a tensor must be a multiple of it.
    pub fn block(self) -> usize {
        self.layout().block
    }

    /// Where the layout keeps scales.
    pub fn scales(self) -> ScalePlace {
        self.layout().scales
    }

    /// Whether the layout stores scales as f16, which rounds those of most tensors.
    pub fn is_f16(self) -> bool {
        self.layout().is_f16()
    }

    /// The name in recipes and on the command line.
    pub fn option(self) -> &'static str {
        self.layout().option
    }

    /// The layout with this name in recipes and on the command line.
    pub fn from_option(option: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|packing| packing.option() == option)
    }

    /// What `--help` says of it: bits a weight, and who loads it.
    pub fn help(self) -> &'static str {
        self.layout().help
    }

    /// `general.file_type` of a GGUF file whose projections have this layout.
    pub fn file_type(self) -> u32 {
        self.layout().file_type
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
        let layout @ Layout { block, bytes, .. } = self.layout();
        if !cols.is_multiple_of(*block) {
            return Err(TernaryError::Columns { packing: self.name(), block: *block, cols });
        }
        let codes = rows.checked_mul(cols).and_then(|n| (n / block).checked_mul(*bytes));
        let scales = match self.scales() {
            ScalePlace::Block | ScalePlace::Row => rows.checked_mul(layout.row_scale()),
            ScalePlace::Tensor => Some(TAIL),
        };
        let sum = codes.zip(scales).and_then(|(codes, scales)| codes.checked_add(scales));
        sum.ok_or(TernaryError::TooLarge { rows, cols })
    }

    /// Unpacks the bytes of a tensor [rows, cols].
    ///
    /// # Errors
    /// If the block does not divide the columns, the byte count is wrong, or a code is not ternary.
    pub fn unpack(self, bytes: &[u8], rows: usize, cols: usize) -> Result<Unpacked, TernaryError> {
        let packed = PackedRows::new(self, bytes, rows, cols)?;
        let mut codes = vec![0; rows * cols];
        packed.unpack(0, &mut codes)?;
        Ok(Unpacked { codes, scales: packed.stored_scales() })
    }
}
