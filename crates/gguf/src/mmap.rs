//! Files as memory: the crate's only `unsafe`.

use std::{fs::File, io, ops::Range};

#[cfg(unix)]
use memmap2::UncheckedAdvice;
use memmap2::{Mmap, MmapOptions};

/// Maps a file read-only and privately.
pub(crate) fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the map is read-only (PROT_READ, MAP_PRIVATE), `Mmap` owns it and hands out slices that borrow
    // from it, so no reference outlives it and nothing in this process writes through it. What remains is
    // that another process changes or truncates the file underneath. No call can exclude that on every
    // system; it is a condition of `Gguf::open`, stated there. Every offset is checked once against the
    // length that was mapped, and the tensors' bytes are read as plain u8, for which every bit pattern is
    // valid. The metadata and the tensor list, whose validity does matter, are copied out before `open`
    // returns.
    unsafe { MmapOptions::new().map_copy_read_only(file) }
}

/// Gives the pages that lie wholly within a range back to the system; they are read from the file again when
/// touched. Only memory use changes, so a system that refuses is no error.
pub(crate) fn release(map: &Mmap, range: Range<usize>) {
    #[cfg(unix)]
    {
        const PAGE: usize = 4096;
        let (start, end) = (range.start.next_multiple_of(PAGE), range.end / PAGE * PAGE);
        if start < end && end <= map.len() {
            // SAFETY: the map is private and read-only, so none of its pages differs from the file: what
            // stands there after the pages are dropped is what stood there before.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, start, end - start) };
        }
    }
    #[cfg(not(unix))]
    let _ = (map, range);
}
