//! How many threads decode, where that is not how many read prompts.
//!
//! Decoding waits for memory, prefill for arithmetic: on machines with more cores than their memory feeds,
//! fewer threads decode faster. Results do not depend on it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tritforge_kernels::ThreadLimit;

/// Threads of a pass that appends one token to every sequence; 0 for as many as for any other.
static DECODE: AtomicUsize = AtomicUsize::new(0);

/// Lets `n` threads compute passes that append one token to every sequence; None for as many as compute
/// prompts. It holds for the whole process, from the next pass on; more threads than the pool has are all of
/// them.
///
/// # Panics
/// If `n` is 0.
pub fn set_decode_threads(n: Option<usize>) {
    assert!(n != Some(0), "at least one thread must decode");
    DECODE.store(n.unwrap_or(0), Relaxed);
}

/// Limits the calling thread's products to the decode threads while it lives, if the pass decodes. The limit
/// belongs to the calling thread: passes that run at the same time on other threads keep their own.
pub(crate) fn decode_thread_limit(decodes: bool) -> Option<ThreadLimit> {
    match DECODE.load(Relaxed) {
        n if n > 0 && decodes => Some(ThreadLimit::new(n)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use tritforge_kernels::{max_threads, threads};

    use super::*;

    #[test]
    fn passes_that_overlap_leave_no_limit_behind() {
        let all = max_threads();
        set_decode_threads(Some(1));
        // The order that a save and restore of one process-wide number cannot survive: A begins, B begins, A
        // ends, B ends.
        let barrier = Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let a = decode_thread_limit(true);
                assert_eq!(threads(), 1);
                barrier.wait();
                barrier.wait();
                drop(a);
                assert_eq!(threads(), all);
                barrier.wait();
            });
            scope.spawn(|| {
                barrier.wait();
                assert_eq!(threads(), all, "another thread's pass is not limited");
                let b = decode_thread_limit(true);
                barrier.wait();
                barrier.wait();
                assert_eq!(threads(), 1, "the other pass has ended, this one has not");
                drop(b);
                assert_eq!(threads(), all);
            });
        });
        assert!(decode_thread_limit(false).is_none(), "a prompt has all threads");
        set_decode_threads(None);
        assert!(decode_thread_limit(true).is_none());
        assert_eq!(threads(), all);
    }
}
