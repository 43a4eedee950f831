//! How many threads decode, where that is not how many read prompts.
//!
//! Decoding waits for memory, prefill for arithmetic: on machines with more cores than their memory feeds, fewer threads
//! decode faster. Results do not depend on it.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tritforge_kernels::{set_threads, threads};

/// Threads of a pass that appends one token to every sequence; 0 for as many as for any other.
static DECODE: AtomicUsize = AtomicUsize::new(0);

/// Lets `n` threads compute passes that append one token to every sequence; None for as many as compute prompts. It holds
/// for the whole process, from the next pass on; more threads than the pool has are all of them.
///
/// # Panics
/// If `n` is 0.
pub fn set_decode_threads(n: Option<usize>) {
    assert!(n != Some(0), "at least one thread must decode");
    DECODE.store(n.unwrap_or(0), Relaxed);
}

/// The threads of a pass; when it is dropped, as many compute as before.
pub(crate) struct OfPass(Option<usize>);

impl OfPass {
    /// Sets the threads of a pass: of one token for every sequence, or with a part of a prompt.
    pub(crate) fn set(decodes: bool) -> Self {
        match DECODE.load(Relaxed) {
            n if n > 0 && decodes => {
                let before = threads();
                set_threads(n);
                Self(Some(before))
            }
            _ => Self(None),
        }
    }
}

impl Drop for OfPass {
    fn drop(&mut self) {
        if let Some(before) = self.0 {
            set_threads(before);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decoding_pass_has_its_own_threads_and_gives_them_back() {
        let before = threads();
        set_decode_threads(Some(1));
        {
            let _prompt = OfPass::set(false);
            assert_eq!(threads(), before);
        }
        {
            let _decode = OfPass::set(true);
            assert_eq!(threads(), 1);
        }
        assert_eq!(threads(), before);
        set_decode_threads(None);
        let _decode = OfPass::set(true);
        assert_eq!(threads(), before);
    }
}
