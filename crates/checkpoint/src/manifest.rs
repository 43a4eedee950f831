//! `manifest.json`: every file of a checkpoint with its length and SHA-256.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{CheckpointError, MANIFEST};

/// The version of the directory's layout that this crate writes.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) files: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) bytes: u64,
    pub(crate) sha256: String,
}

/// Length and checksum of a file on the way to it.
#[derive(Debug, Default)]
pub(crate) struct Digest {
    bytes: u64,
    hash: Sha256,
}

impl Digest {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        sha2::Digest::update(&mut self.hash, bytes);
    }

    pub(crate) fn finish(self) -> Entry {
        let sha256 = sha2::Digest::finalize(self.hash).iter().map(|b| format!("{b:02x}")).collect();
        Entry { bytes: self.bytes, sha256 }
    }
}

impl Entry {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let mut digest = Digest::default();
        digest.update(bytes);
        digest.finish()
    }
}

impl Manifest {
    pub(crate) fn read(dir: &Path) -> Result<Self, CheckpointError> {
        let path = dir.join(MANIFEST);
        let text = std::fs::read_to_string(&path).map_err(CheckpointError::io(&path, "read"))?;
        let manifest: Self =
            serde_json::from_str(&text).map_err(|e| CheckpointError::damaged(&path, e.to_string()))?;
        if manifest.version != VERSION {
            return Err(CheckpointError::damaged(
                &path,
                format!(
                    "layout version {}, but this version of tritforge reads version {VERSION}",
                    manifest.version
                ),
            ));
        }
        let plain = |name: &str| Path::new(name).file_name() == Some(name.as_ref()) && !name.contains('\\');
        match manifest.files.keys().find(|name| !plain(name)) {
            None => Ok(manifest),
            Some(name) => Err(CheckpointError::damaged(
                &path,
                format!("files: {name:?} is not the name of a file in the same directory"),
            )),
        }
    }
}

/// What tells a checkpoint from others: the SHA-256 of its manifest between the bytes that the fingerprint of
/// an empty text has around a tokenizer, by which runs have known checkpoints from the beginning.
pub(crate) fn fingerprint(manifest: &[u8]) -> String {
    let mut digest = Digest::default();
    digest.update(&[1]);
    digest.update(&(manifest.len() as u64).to_le_bytes());
    digest.update(manifest);
    digest.update(&u64::MAX.to_le_bytes());
    digest.update(&<Sha256 as sha2::Digest>::digest([]));
    digest.finish().sha256
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with Python's hashlib; what runs have stored must stay valid.
    #[test]
    fn a_fingerprint_stays_what_it_was() {
        let expected = "9f068d2b9c288cc65d0f74c6facad31fdc022941b36bd5fb0e02a625f4374b91";
        assert_eq!(fingerprint(b"{\"version\":1,\"files\":{}}"), expected);
    }
}
