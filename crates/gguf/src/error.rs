//! What can go wrong with a GGUF file, in words that say where to look and what to do.

use std::{fmt, io, path::PathBuf};

use crate::types::GgmlType;

/// Any failure of this crate.
///
/// Errors about the bytes of a file ([`Error::Parse`]) name the byte offset and the field, what was found
/// there and what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: "open", "map into memory", "write".
        action: &'static str,
        /// The file it was done to.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },

    /// The bytes are not a GGUF file that this crate reads: cut short, damaged, hostile or of another
    /// version.
    #[error("{file}: byte {offset}: {field}: found {found}, expected {expected}")]
    Parse {
        /// The path of the file, or "in-memory GGUF".
        file: String,
        /// Where the offending field begins, in bytes from the start of the file.
        offset: u64,
        /// The field with its index and name, such as `metadata[3] key length` or `tensor[0] … offset`.
        field: String,
        /// What stands there.
        found: String,
        /// What may stand there.
        expected: String,
    },

    /// A file of a split model that cannot be opened by itself, or does not belong to the others.
    #[error("{file}: {key}: found {found}, expected {expected}")]
    Split {
        /// The path of the file at fault.
        file: String,
        /// The key, such as `split.no`, or the tensor.
        key: String,
        /// What the file says.
        found: String,
        /// What it would have to say, and what to do.
        expected: String,
    },

    /// The metadata has no such key.
    #[error("metadata key `{key}` is missing")]
    MissingKey {
        /// The key asked for.
        key: String,
    },

    /// A metadata value is not of the type asked for, or does not fit it.
    #[error("metadata key `{key}`: found {found}, expected {expected}")]
    KeyType {
        /// The key asked for.
        key: String,
        /// The type, and for numbers the value, that it holds.
        found: String,
        /// The type asked for.
        expected: &'static str,
    },

    /// A tensor type id without one known meaning.
    #[error("unknown tensor type id {id}: {}", unknown_type_hint(*.id))]
    UnknownType {
        /// The id as it stands in the file.
        id: u32,
    },

    /// Dimensions that a tensor type cannot store.
    #[error("{ty} tensor with dimensions {dims:?} (innermost first): expected {expected}")]
    Shape {
        /// The tensor type.
        ty: GgmlType,
        /// The dimensions, innermost first.
        dims: Vec<u64>,
        /// What the type needs.
        expected: String,
    },

    /// The caller gave the writer something that may not stand in a GGUF file, or in the wrong order.
    #[error("writing {}: {item}: found {found}, expected {expected}", path.display())]
    Write {
        /// The file being written.
        path: PathBuf,
        /// The key or tensor at fault.
        item: String,
        /// What was given.
        found: String,
        /// What may be given.
        expected: String,
    },
}

/// Why an id has no meaning by itself: runtimes have given the same numbers to different layouts.
fn unknown_type_hint(id: u32) -> &'static str {
    match id {
        37 | 38 => {
            "ids 36 to 39 depend on the runtime that wrote the file (38 is TL1 in bitnet.cpp; 36 to 38 were \
             repacked IQ4_NL layouts in llama.cpp of 2024): convert the file again to I2_S, TQ1_0 or TQ2_0"
        }
        _ => {
            "some ids depend on the runtime that wrote the file (forks of llama.cpp have added their own): \
             convert the file with that runtime to a type of mainline llama.cpp"
        }
    }
}

/// A parse failure before it is known which file the bytes came from.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) offset: u64,
    pub(crate) field: String,
    pub(crate) found: String,
    pub(crate) expected: String,
}

impl Fault {
    pub(crate) fn new(
        offset: u64,
        field: impl fmt::Display,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self { offset, field: field.to_string(), found: found.to_string(), expected: expected.to_string() }
    }

    pub(crate) fn in_file(self, file: String) -> Error {
        let Self { offset, field, found, expected } = self;
        Error::Parse { file, offset, field, found, expected }
    }
}

/// Quotes a name from a file in a message: control characters escaped and a long one cut, since a hostile
/// name may be as long as the file.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 64;
        write!(f, "`")?;
        for c in self.0.chars().take(MOST) {
            write!(f, "{}", c.escape_debug())?;
        }
        write!(f, "{}`", if self.0.chars().nth(MOST).is_some() { "…" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_names_are_escaped_and_cut() {
        assert_eq!(Quoted("blk.0\n").to_string(), "`blk.0\\n`");
        assert_eq!(Quoted(&"é".repeat(64)).to_string(), format!("`{}`", "é".repeat(64)));
        assert_eq!(Quoted(&"é".repeat(65)).to_string(), format!("`{}…`", "é".repeat(64)));
    }
}
