//! What a shard was made from, in 32 bytes: the tokenizer and the text.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::{DataError, Document};

/// SHA-256 of a tokenizer and the documents it encoded. Two shards with the same fingerprint hold the same
/// tokens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of documents under a tokenizer: `tokenizer` is anything that identifies it, such as
    /// the bytes of its `tokenizer.json`; `eos` is the id that separates documents.
    pub fn of(tokenizer: &[u8], documents: &[Document], eos: Option<u32>) -> Self {
        let mut hash = Sha256::new();
        // The first byte stands for the way `tokenize` cuts and joins: change it when that changes.
        hash.update([1]);
        hash.update((tokenizer.len() as u64).to_le_bytes());
        hash.update(tokenizer);
        hash.update(eos.map_or(u64::MAX, u64::from).to_le_bytes());
        hash.update(Self::of_text(documents).0);
        Self(hash.finalize().into())
    }

    /// The SHA-256 of a file, read once from beginning to end.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of_file(path: &Path) -> Result<Self, DataError> {
        let mut file = File::open(path).map_err(DataError::io(path, "open"))?;
        let mut hash = Sha256::new();
        io::copy(&mut file, &mut hash).map_err(DataError::io(path, "read"))?;
        Ok(Self(hash.finalize().into()))
    }

    /// The fingerprint of the documents' texts and the boundaries between them.
    pub fn of_text(documents: &[Document]) -> Self {
        let mut hash = Sha256::new();
        for document in documents {
            hash.update((document.text.len() as u64).to_le_bytes());
            hash.update(document.text.as_bytes());
        }
        Self(hash.finalize().into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_counts() {
        let documents = |texts: &[&str]| texts.iter().map(|t| Document::new("d", *t)).collect::<Vec<_>>();
        let base = Fingerprint::of(b"t", &documents(&["ab", "c"]), None);
        assert_eq!(base, Fingerprint::of(b"t", &documents(&["ab", "c"]), None));
        for other in [
            Fingerprint::of(b"u", &documents(&["ab", "c"]), None),
            Fingerprint::of(b"t", &documents(&["a", "bc"]), None),
            Fingerprint::of(b"t", &documents(&["ab", "c"]), Some(0)),
            Fingerprint::of(b"t", &documents(&["ab"]), None),
        ] {
            assert_ne!(base, other);
        }
        // SHA-256 of nothing, FIPS 180-4.
        assert!(Fingerprint::of_text(&[]).to_string().starts_with("e3b0c44298fc1c149afbf4c8996fb924"));
    }
}
