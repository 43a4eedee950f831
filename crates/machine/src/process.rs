//! Settings of the whole process: what the C allocator does with freed memory, and how many threads compute.

/// Tells the C allocator to keep freed memory: no `mmap` for large blocks, no trimming of the heap.
///
/// A training step allocates and frees the same large tensors over and over. By default glibc maps each of
/// them freshly, and the kernel zeroes every page again: several times the cost of the arithmetic of an
/// element-wise step. Call this once, first thing in `main`, before other threads start. The price: the
/// process keeps its peak memory until it ends.
///
/// Returns whether the allocator took the settings: true on Linux with glibc, false (nothing done) elsewhere.
pub fn keep_pages() -> bool {
    keep_pages_of_libc()
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_pages_of_libc() -> bool {
    /// Blocks below this size come from the heap.
    const THRESHOLD: libc::c_int = 1 << 30;
    /// glibc before 2.35 refuses a threshold above half an arena heap: 32 MiB on 64-bit machines.
    const OLD_THRESHOLD: libc::c_int = 32 << 20;
    // SAFETY: `mallopt` takes two integers, locks the allocator itself, and refuses values it does not know.
    unsafe {
        let mapped = libc::mallopt(libc::M_MMAP_THRESHOLD, THRESHOLD) == 1
            || libc::mallopt(libc::M_MMAP_THRESHOLD, OLD_THRESHOLD) == 1;
        mapped && libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) == 1
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_pages_of_libc() -> bool {
    false
}

/// Sets the threads of the whole process: all cores, or `threads` of them. Results do not depend on it, but
/// for the sums inside candle's f32 GEMM (on its tape; training does not use it), which are the same for the
/// same number of threads.
///
/// candle's element-wise operations have a pool of their own, whose waiting threads spin and take the cores
/// from the kernels; they run on the calling thread instead, unless `CANDLE_NUM_THREADS` says otherwise.
///
/// To be called first in `main`: candle and rayon read these variables when they start.
///
/// # Safety
/// No other thread of the process may run: it could read or write the environment meanwhile.
pub unsafe fn configure_threads(threads: Option<usize>) {
    // SAFETY: `set_var` is unsound only while another thread reads or writes the environment. The caller
    // promises that there is none.
    unsafe {
        if let Some(threads) = threads {
            std::env::set_var("RAYON_NUM_THREADS", threads.max(1).to_string());
        }
        if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
            std::env::set_var("CANDLE_NUM_THREADS", "1");
        }
    }
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
mod tests {
    use super::*;

    /// Page faults of this thread so far that needed no disk.
    fn minor_faults() -> i64 {
        // SAFETY: an all-zero `rusage` is a valid value of this plain C struct, and `getrusage` only writes
        // to it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            assert_eq!(libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage), 0);
            usage.ru_minflt
        }
    }

    #[test]
    fn a_freed_buffer_keeps_its_pages() {
        const BYTES: usize = 16 << 20;
        assert!(keep_pages());
        let faults_of_one_use = || {
            let before = minor_faults();
            let buffer = std::hint::black_box(vec![1u8; BYTES]);
            assert_eq!(buffer[BYTES - 1], 1);
            minor_faults() - before
        };
        faults_of_one_use();
        // Fresh pages would cost 4096 faults (8 with 2 MiB pages, which the second limb of the test cannot
        // tell).
        let again = faults_of_one_use();
        assert!(again < 100, "{again} page faults on reuse");
    }
}
