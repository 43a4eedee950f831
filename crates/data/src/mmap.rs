//! Memory-mapped files: the only unsafe code of this crate.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::DataError;

/// Maps a file for reading.
pub(crate) fn map(path: &Path) -> Result<Mmap, DataError> {
    let file = File::open(path).map_err(DataError::io(path, "open"))?;
    // SAFETY: the mapping is private and read-only. A shard is never changed after the rename that publishes
    // it: a new one gets a new file under the same name, and the mapping keeps the old. Truncating a
    // published shard from another process is outside the format's contract; it raises SIGBUS, it does not
    // corrupt this process's own data.
    unsafe { Mmap::map(&file) }.map_err(DataError::io(path, "map"))
}
