//! The numbers of the format that reader and writer share.
//!
//! Layout of a file, all little-endian: the magic, u32 version, u64 tensor count, u64 metadata count; the
//! metadata (key, u32 type, value); the tensor infos (name, u32 n_dims, u64 dims, u32 type, u64 offset);
//! zeros up to a multiple of the alignment; the tensors' data, each at its offset from there. A string is a
//! u64 length and UTF-8; an array is a u32 element type, a u64 count and the elements.

use crate::value::Value;

/// The first four bytes.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";

/// The version that the writer writes.
pub(crate) const VERSION: u32 = 3;

/// The older version with the same layout (version 3 only added big-endian files).
pub(crate) const OLDEST_VERSION: u32 = 2;

/// The most dimensions of a tensor (`GGML_MAX_DIMS`).
pub(crate) const MAX_DIMS: u32 = 4;

/// The most bytes of a tensor name in a file.
pub(crate) const MAX_TENSOR_NAME: u64 = 64;

/// The most bytes of a metadata key.
pub(crate) const MAX_KEY: u64 = 65_535;

/// The metadata key of the alignment of the tensors' data.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// The alignment of files without [`ALIGNMENT_KEY`].
pub(crate) const DEFAULT_ALIGNMENT: u64 = 32;

/// What [`alignment`] accepts, for messages.
pub(crate) const ALIGNMENT_EXPECTED: &str = "a u32 power of two from 8 to 1048576";

/// The fewest bytes of a metadata entry: key length, type, a value of one byte.
pub(crate) const MIN_ENTRY: u64 = 8 + 4 + 1;

/// The fewest bytes of a tensor info: name length, n_dims, type, offset.
pub(crate) const MIN_TENSOR_INFO: u64 = 8 + 4 + 4 + 8;

/// The alignment that a value of [`ALIGNMENT_KEY`] means, if it is a sane one: the specification asks for a
/// u32 and a multiple of 8, llama.cpp for a power of two; 1 MiB is far above every page size.
pub(crate) fn alignment(value: &Value) -> Option<u64> {
    match *value {
        Value::U32(a) if a.is_power_of_two() && (8..=1 << 20).contains(&a) => Some(a.into()),
        _ => None,
    }
}

/// The next multiple of `alignment`, `None` above 2^64.
pub(crate) fn align_up(offset: u64, alignment: u64) -> Option<u64> {
    offset.checked_next_multiple_of(alignment)
}
