//! What a few runs can show: means with intervals, differences of pairs with tests, corrections for many arms. Every
//! number is recomputed with scipy by `tests/golden/make_statistics.py`.

mod bootstrap;
mod flips;
mod holm;
mod summary;
mod t;

pub use bootstrap::{Bootstrap, DocumentDifference, bootstrap};
pub use flips::{MOST_FLIPS, sign_flip_p};
pub use holm::holm;
pub use summary::{Difference, Summary, difference, summary, unpaired_difference};
pub use t::{t_cdf, t_quantile};

/// Runs of an arm below which nothing is said about it.
pub const LEAST_SEEDS: usize = 3;
/// The share of intervals that hold the true value.
pub const CONFIDENCE: f64 = 0.95;
/// The probability with which the smallest effect that could have been shown would have been shown.
pub const POWER: f64 = 0.8;
