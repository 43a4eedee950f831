//! How fast decoding can be at best: the roofline of memory.

use serde::Serialize;

use crate::budget::Load;

/// Tokens a second if nothing but reading memory took time: an upper bound, which no machine reaches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Speed {
    /// Bytes of weights that a pass reads, whatever the number of requests in it.
    pub weight_bytes: u64,
    /// Bytes of keys and values that a token reads at half of the context.
    pub kv_bytes: u64,
    /// Tokens a second of one request alone.
    pub one: f64,
    /// Tokens a second of all requests together.
    pub all: f64,
    /// What the figures assume.
    pub assumption: &'static str,
}

impl Speed {
    /// The bound at a bandwidth in bytes a second.
    pub(crate) fn new(load: &Load<'_>, context: usize, concurrency: usize, bandwidth: f64) -> Self {
        let weight_bytes = load.model.read_bytes as u64;
        // Half of a full cache; not that of half the positions, which is rounded up to blocks.
        let kv_bytes = load.request_kv(context) / 2;
        let rate = |requests: usize| {
            let bytes = weight_bytes as f64 + requests as f64 * kv_bytes as f64;
            requests as f64 * bandwidth / bytes
        };
        Self {
            weight_bytes,
            kv_bytes,
            one: rate(1),
            all: rate(concurrency),
            assumption: "upper bound: the time to read weights once a pass and keys and values of half the context \
                         at the target's bandwidth; arithmetic, which limits many requests at once and prompts, is not \
                         counted",
        }
    }
}
