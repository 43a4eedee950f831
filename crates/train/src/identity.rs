//! Which files a run depends on beside its data: models, known by the SHA-256 of their content.

use std::fs;
use std::path::Path;

use tritforge_checkpoint::{Checkpoint, MANIFEST};
use tritforge_data::Fingerprint;

use crate::TrainError;

/// A checkpoint: the SHA-256 of its manifest, which has those of all its files.
pub(crate) fn of_checkpoint(checkpoint: &Checkpoint) -> Result<String, TrainError> {
    let file = checkpoint.dir().join(MANIFEST);
    let manifest = fs::read(&file).map_err(TrainError::io(&file, "read"))?;
    Ok(of_bytes(&manifest))
}

/// Files: the SHA-256 of their contents, in order. Each is read whole.
pub(crate) fn of_files<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String, TrainError> {
    let mut all = String::new();
    for file in files {
        all += &Fingerprint::of_file(file)?.to_string();
    }
    Ok(of_bytes(all.as_bytes()))
}

/// Bytes at hand.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    Fingerprint::of(bytes, &[], None).to_string()
}
