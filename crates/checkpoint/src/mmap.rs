//! Memory-mapped files: the only unsafe code of this crate.

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;
#[cfg(unix)]
use memmap2::UncheckedAdvice;

use crate::CheckpointError;

/// Maps a file for reading. An empty file has no mapping.
pub(crate) fn map(path: &Path) -> Result<Option<Mmap>, CheckpointError> {
    let file = File::open(path).map_err(CheckpointError::io(path, "open"))?;
    let length = file.metadata().map_err(CheckpointError::io(path, "read the length of"))?.len();
    if length == 0 {
        return Ok(None);
    }
    // SAFETY: the mapping is private and read-only. A checkpoint's files are never changed after the rename
    // that publishes them, so the bytes stay what they are while they are borrowed; truncating such a file
    // from another process would be outside the format's contract (it raises SIGBUS, it does not break memory
    // safety of this process's own data).
    let map = unsafe { Mmap::map(&file) }.map_err(CheckpointError::io(path, "map"))?;
    Ok(Some(map))
}

/// Gives the pages that lie wholly within a range back to the system; they are read from the file again when
/// touched. Only memory use changes, so a system that refuses is no error.
pub(crate) fn release(map: &Mmap, start: usize, len: usize) {
    #[cfg(unix)]
    {
        const PAGE: usize = 4096;
        let (start, end) = (start.next_multiple_of(PAGE), (start + len) / PAGE * PAGE);
        if start < end && end <= map.len() {
            // SAFETY: nothing writes through the map, so none of its pages differs from the file: what stands
            // there after the pages are dropped is what stood there before.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
    #[cfg(not(unix))]
    let _ = (map, start, len);
}
