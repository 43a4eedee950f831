//! Tensor types: ids, block sizes, and how many bytes a tensor of given dimensions takes.
//!
//! Ids, block sizes and names are those of `ggml` (`enum ggml_type`, `gguf.constants.GGML_QUANT_SIZES` in the
//! Python package); I2_S is the ternary type of bitnet.cpp and ik_llama.cpp, IQ1_BN, IQ2_BN and IQ2_BN_R4 are those of
//! ik_llama.cpp alone, PQ2_0 and PTQ1_0 those of PrismML's fork of llama.cpp.

use std::fmt;

use crate::error::Error;

/// How the weights of a tensor are encoded.
///
/// A type exists here when its id means one thing in every file, or its tensors show which: id 38 does not, see
/// [`GgmlType::from_id`]; a tensor of id 39 is MXFP4 if it has the room for it. Id 42 means two, which are told apart by the
/// lengths of a file's tensors: reading gives [`GgmlType::Q2_0`] or [`GgmlType::Q2_0_G128`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(non_camel_case_types, missing_docs)] // The variants are the format's own names; `ggml` defines them.
#[non_exhaustive]
pub enum GgmlType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    TQ1_0,
    TQ2_0,
    I2_S,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
    /// Q2_0 in blocks of 128 weights, which has the same id.
    Q2_0_G128,
    IQ1_BN,
    IQ2_BN,
    PQ2_0,
    PTQ1_0,
    IQ2_BN_R4,
}

use GgmlType::*;

/// One row a type: the type, its id in files, its name, weights a block, bytes a block.
///
/// I2_S stands here as its blocks of 128 weights in 32 bytes (x86 layout); its one scale a tensor is added in
/// [`GgmlType::nbytes`], as are the scales before the rows of IQ1_BN and IQ2_BN.
const TABLE: [(GgmlType, u32, &str, u64, u64); 42] = [
    (F32, 0, "F32", 1, 4),
    (F16, 1, "F16", 1, 2),
    (Q4_0, 2, "Q4_0", 32, 18),
    (Q4_1, 3, "Q4_1", 32, 20),
    (Q5_0, 6, "Q5_0", 32, 22),
    (Q5_1, 7, "Q5_1", 32, 24),
    (Q8_0, 8, "Q8_0", 32, 34),
    (Q8_1, 9, "Q8_1", 32, 40),
    (Q2_K, 10, "Q2_K", 256, 84),
    (Q3_K, 11, "Q3_K", 256, 110),
    (Q4_K, 12, "Q4_K", 256, 144),
    (Q5_K, 13, "Q5_K", 256, 176),
    (Q6_K, 14, "Q6_K", 256, 210),
    (Q8_K, 15, "Q8_K", 256, 292),
    (IQ2_XXS, 16, "IQ2_XXS", 256, 66),
    (IQ2_XS, 17, "IQ2_XS", 256, 74),
    (IQ3_XXS, 18, "IQ3_XXS", 256, 98),
    (IQ1_S, 19, "IQ1_S", 256, 50),
    (IQ4_NL, 20, "IQ4_NL", 32, 18),
    (IQ3_S, 21, "IQ3_S", 256, 110),
    (IQ2_S, 22, "IQ2_S", 256, 82),
    (IQ4_XS, 23, "IQ4_XS", 256, 136),
    (I8, 24, "I8", 1, 1),
    (I16, 25, "I16", 1, 2),
    (I32, 26, "I32", 1, 4),
    (I64, 27, "I64", 1, 8),
    (F64, 28, "F64", 1, 8),
    (IQ1_M, 29, "IQ1_M", 256, 56),
    (BF16, 30, "BF16", 1, 2),
    (TQ1_0, 34, "TQ1_0", 256, 54),
    (TQ2_0, 35, "TQ2_0", 256, 66),
    (I2_S, 36, "I2_S", 128, 32),
    (MXFP4, 39, "MXFP4", 32, 17),
    (NVFP4, 40, "NVFP4", 64, 36),
    (Q1_0, 41, "Q1_0", 128, 18),
    (Q2_0, 42, "Q2_0", 64, 18),
    (Q2_0_G128, 42, "Q2_0_G128", 128, 34),
    (IQ1_BN, 134, "IQ1_BN", 64, 13),
    (IQ2_BN, 135, "IQ2_BN", 64, 16),
    (PQ2_0, 142, "PQ2_0", 128, 34),
    (PTQ1_0, 143, "PTQ1_0", 128, 28),
    (IQ2_BN_R4, 335, "IQ2_BN_R4", 64, 16),
];

/// The bytes before each row of an IQ1_BN tensor: its f16 scale.
const IQ1_BN_SCALE_BYTES: u64 = 2;

/// The bytes before each row of an IQ2_BN tensor: its f32 scale.
const IQ2_BN_SCALE_BYTES: u64 = 4;

/// The bytes after the data of an I2_S tensor: its f32 scale, padded to 32.
const I2_S_SCALE_BYTES: u64 = 32;

impl GgmlType {
    /// Every type, in the order of their ids.
    pub fn all() -> impl Iterator<Item = GgmlType> {
        TABLE.iter().map(|row| row.0)
    }

    /// The type with this id; for 42 that of llama.cpp, [`GgmlType::Q2_0`].
    ///
    /// # Errors
    /// [`Error::UnknownType`] for an id without one meaning: unused ones, those of forks, and those that two
    /// runtimes use for different layouts (38: TL1 in bitnet.cpp). 39 is MXFP4: reading a file refuses the TL2 of bitnet.cpp,
    /// which has the same id, by the lengths of its tensors.
    pub fn from_id(id: u32) -> Result<GgmlType, Error> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0).ok_or(Error::UnknownType { id })
    }

    /// The type with this name, in any case: `TQ2_0`, `tq2_0`.
    pub fn from_name(name: &str) -> Option<GgmlType> {
        TABLE.iter().find(|row| row.2.eq_ignore_ascii_case(name)).map(|row| row.0)
    }

    fn row(self) -> &'static (GgmlType, u32, &'static str, u64, u64) {
        // The table lists the variants in the order of their declaration (a test checks it).
        &TABLE[self as usize]
    }

    /// The id in files.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// The name, as `ggml` writes it.
    pub fn name(self) -> &'static str {
        self.row().2
    }

    /// Weights a block. The innermost dimension of a tensor is a multiple of it.
    pub fn block_size(self) -> u64 {
        self.row().3
    }

    /// Bytes a block. For I2_S, IQ1_BN and IQ2_BN without the scales: use [`GgmlType::nbytes`] for the size of a
    /// tensor.
    pub fn type_size(self) -> u64 {
        self.row().4
    }

    /// The bytes that a tensor with these dimensions (innermost first; none for a scalar) takes in a file,
    /// padding to the file's alignment not counted.
    ///
    /// # Errors
    /// [`Error::Shape`] when a dimension is 0, the innermost one is not a multiple of the block size, or the
    /// product does not fit 64 bits.
    pub fn nbytes(self, dims: &[u64]) -> Result<u64, Error> {
        self.checked_nbytes(dims).map_err(|expected| Error::Shape { ty: self, dims: dims.to_vec(), expected })
    }

    /// [`GgmlType::nbytes`] with only the text of what was expected as its error.
    pub(crate) fn checked_nbytes(self, dims: &[u64]) -> Result<u64, String> {
        let block = self.block_size();
        let inner = dims.first().copied().unwrap_or(1);
        if dims.contains(&0) {
            return Err("dimensions of at least 1".into());
        }
        if inner % block != 0 {
            return Err(format!("an innermost dimension that is a multiple of {block}"));
        }
        let too_many = || "dimensions whose product, in bytes, fits 64 bits".to_owned();
        // `ggml` holds dimensions and their product as i64: a count it cannot hold is refused here too.
        let weights = dims
            .iter()
            .try_fold(1u64, |n, &d| n.checked_mul(d))
            .filter(|&n| i64::try_from(n).is_ok())
            .ok_or_else(too_many)?;
        let data = (weights / block).checked_mul(self.type_size()).ok_or_else(too_many)?;
        let scales = match self {
            I2_S => I2_S_SCALE_BYTES,
            IQ1_BN => (weights / inner).checked_mul(IQ1_BN_SCALE_BYTES).ok_or_else(too_many)?,
            IQ2_BN | IQ2_BN_R4 => (weights / inner).checked_mul(IQ2_BN_SCALE_BYTES).ok_or_else(too_many)?,
            _ => 0,
        };
        data.checked_add(scales).ok_or_else(too_many)
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_names_find_their_type() {
        for (i, ty) in GgmlType::all().enumerate() {
            assert_eq!(ty as usize, i, "{ty} is out of its place in the table");
            let of_id = if ty == Q2_0_G128 { Q2_0 } else { ty };
            assert_eq!(GgmlType::from_id(ty.id()).unwrap(), of_id);
            assert_eq!(GgmlType::from_name(&ty.name().to_lowercase()), Some(ty));
        }
        assert_eq!(GgmlType::from_name("Q9_9"), None);
    }

    #[test]
    fn ternary_sizes_are_those_of_the_format() {
        // Bits a weight: 1.6875 and 2.0625 with a scale a block; 2 and one scale a tensor.
        assert_eq!(TQ1_0.nbytes(&[256, 512]).unwrap() * 8 * 10_000, 256 * 512 * 16_875);
        assert_eq!(TQ2_0.nbytes(&[256, 512]).unwrap() * 8 * 10_000, 256 * 512 * 20_625);
        // The query projection of BitNet b1.58 2B4T.
        assert_eq!(I2_S.nbytes(&[2560, 2560]).unwrap(), 2560 * 2560 / 4 + 32);
        assert_eq!(IQ2_BN.nbytes(&[2560, 640]).unwrap(), 640 * (2560 / 4 + 4));
        assert_eq!(IQ2_BN_R4.nbytes(&[2560, 640]).unwrap(), 640 * (2560 / 4 + 4));
        assert_eq!(MXFP4.nbytes(&[256, 512]).unwrap() * 8 * 100, 256 * 512 * 425);
        assert_eq!(IQ1_BN.nbytes(&[2560, 640]).unwrap(), 640 * (2560 / 64 * 13 + 2));
        // Bits a weight: 2.125 and 1.75.
        for ty in [Q2_0_G128, PQ2_0] {
            assert_eq!(ty.nbytes(&[256, 512]).unwrap() * 8 * 1000, 256 * 512 * 2125);
        }
        assert_eq!(PTQ1_0.nbytes(&[256, 512]).unwrap() * 8 * 100, 256 * 512 * 175);
    }

    #[test]
    fn ambiguous_ids_are_refused_with_their_meanings() {
        for (id, words) in [(38, "TL1 in bitnet.cpp"), (144, "forks"), (u32::MAX, "forks")] {
            let message = GgmlType::from_id(id).unwrap_err().to_string();
            assert!(message.contains(&format!("id {id}: ")), "{message}");
            assert!(message.contains(words) && message.contains("runtime that wrote the file"), "{message}");
        }
    }

    #[test]
    fn impossible_shapes_are_refused() {
        assert_eq!(F32.nbytes(&[]).unwrap(), 4);
        assert_eq!(F32.nbytes(&[3, 5, 7, 2]).unwrap(), 840);
        for (ty, dims, words) in [
            (F32, &[4, 0][..], "at least 1"),
            (TQ2_0, &[128, 2], "multiple of 256"),
            (TQ1_0, &[], "multiple of 256"),
            (I2_S, &[64, 2], "multiple of 128"),
            (I8, &[u64::MAX], "fits 64 bits"),
            (I8, &[1 << 32, 1 << 32], "fits 64 bits"),
            (F64, &[1 << 62], "fits 64 bits"),
        ] {
            let message = ty.nbytes(dims).unwrap_err().to_string();
            assert!(message.contains(words) && message.contains(ty.name()), "{message}");
        }
    }
}
