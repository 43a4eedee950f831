//! Large pages behind large buffers.

/// Asks for 2 MiB pages behind a large buffer that has not been written yet: fewer look-ups of addresses, and
/// the processor's prefetcher does not stop every 4 KiB. Where the system refuses, nothing changes.
pub(crate) fn advise_huge_pages<T>(buffer: &mut [std::mem::MaybeUninit<T>]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 4096;
        /// Smaller buffers are not worth the call.
        const LEAST: usize = 4 << 20;
        let bytes = std::mem::size_of_val(buffer);
        if bytes >= LEAST {
            let start = buffer.as_mut_ptr().addr().next_multiple_of(PAGE);
            let end = (buffer.as_mut_ptr().addr() + bytes) / PAGE * PAGE;
            // SAFETY: whole pages inside a buffer that is borrowed mutably; the advice changes no content.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE) };
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = buffer;
}
