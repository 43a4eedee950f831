//! The types of stored keys and values, and their names.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// How keys and values are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KvType {
    /// 4 bytes a number: what training computes with.
    F32,
    /// 2 bytes a number, rounded half to even.
    #[default]
    F16,
    /// An int8 a number and an f16 scale for each 32 columns of a head, as ggml's Q8_0: `d = absmax / 127`, codes
    /// `round(x / d)`, half to even. What is read is `d · code`, which f32 holds exactly.
    Q8_0,
}

impl KvType {
    /// The types.
    pub const ALL: [KvType; 3] = [KvType::F32, KvType::F16, KvType::Q8_0];

    /// Bytes of a number, without scales.
    pub fn size(self) -> usize {
        match self {
            KvType::F32 => 4,
            KvType::F16 => 2,
            KvType::Q8_0 => 1,
        }
    }

    /// Bytes of the scale that 32 columns of a head share; 0 where numbers have none.
    pub(crate) fn scale_size(self) -> usize {
        match self {
            KvType::F32 | KvType::F16 => 0,
            KvType::Q8_0 => 2,
        }
    }
}

/// The name is of no [`KvType`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown type of keys and values {found:?}: expected f32, f16 or q8_0")]
pub struct KvTypeError {
    /// The name given.
    pub found: String,
}

impl fmt::Display for KvType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            KvType::F32 => "f32",
            KvType::F16 => "f16",
            KvType::Q8_0 => "q8_0",
        })
    }
}

impl FromStr for KvType {
    type Err = KvTypeError;

    /// Parses the name that [`KvType`] displays; case does not matter.
    fn from_str(name: &str) -> Result<Self, KvTypeError> {
        KvType::ALL
            .into_iter()
            .find(|ty| ty.to_string().eq_ignore_ascii_case(name.trim()))
            .ok_or_else(|| KvTypeError { found: name.to_owned() })
    }
}
