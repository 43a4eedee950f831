//! How many threads compute, in the kernels and in candle.

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
