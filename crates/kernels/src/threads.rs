//! How many threads the kernels use.

/// Limits the pool that all kernels share; to be called once, before the first kernel runs. Later calls have no effect.
/// Results do not depend on it.
pub fn set_threads(threads: usize) {
    // The only error is that the pool exists already.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build_global();
}
