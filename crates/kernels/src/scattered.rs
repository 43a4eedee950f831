//! Numbers for tests.

/// `n` numbers from −1 to 1 in no order, others for each seed.
pub(crate) fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i + seed).wrapping_mul(2_654_435_761) % 2003) as f32 / 1001.0 - 1.0).collect()
}
