//! The exact sign-flip test: if an arm made no difference, each pair's difference could as well have had the other sign.

/// Pairs up to which all signs are tried: 2²⁰ of them take some milliseconds.
pub const MOST_FLIPS: usize = 20;

/// The share of all 2ⁿ choices of signs whose mean is at least as far from 0 as the differences' own; it cannot be below
/// 2 / 2ⁿ. None for no differences or more than [`MOST_FLIPS`].
pub fn sign_flip_p(differences: &[f64]) -> Option<f64> {
    let n = differences.len();
    if n == 0 || n > MOST_FLIPS {
        return None;
    }
    let own = differences.iter().sum::<f64>().abs();
    // Sums of the same numbers in another order differ in the last bits.
    let least = own * (1.0 - 1e-12);
    let all = 1u64 << n;
    let flipped = |signs: u64| {
        let sum: f64 =
            differences.iter().enumerate().map(|(i, d)| if signs >> i & 1 == 1 { -d } else { *d }).sum();
        sum.abs() >= least
    };
    Some((0..all).filter(|signs| flipped(*signs)).count() as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_p_is_two_of_all_signs() {
        for n in 1..=8usize {
            let same: Vec<f64> = (1..=n).map(|i| -0.1 * i as f64).collect();
            assert_eq!(sign_flip_p(&same), Some(2.0 / (1u64 << n) as f64), "{n}");
        }
        assert_eq!(sign_flip_p(&[]), None);
        assert_eq!(sign_flip_p(&[0.0, 0.0]), Some(1.0));
        assert_eq!(sign_flip_p(&[1.0; MOST_FLIPS + 1]), None);
        // +3 −1: sums ±2 and ±4, of which all are at least 2.
        assert_eq!(sign_flip_p(&[3.0, -1.0]), Some(1.0));
    }
}
