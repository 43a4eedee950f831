//! Memory-mapped files: the only unsafe code of this crate.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::CheckpointError;

/// Maps a file for reading. An empty file has no mapping.
pub(crate) fn map(path: &Path) -> Result<Option<Mmap>, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::io(path, "open"))?;
    let length = file.metadata().map_err(CheckpointError::io(path, "read the length of"))?.len();
    if length == 0 {
        return Ok(None);
    }
    // SAFETY: the mapping is private and read-only. A checkpoint's files are never changed after the rename that
    // publishes them, so the bytes stay what they are while they are borrowed; truncating such a file from
    // another process would be outside the format's contract (it raises SIGBUS, it does not break memory safety
    // of this process's own data).
    let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io(path, "map"))?;
    Ok(Some(map))
}
