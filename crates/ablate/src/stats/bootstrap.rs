//! The noise of an evaluation: how a difference would vary with other held-out documents. Documents are drawn, not
//! tokens, since tokens of a document are not independent of each other.

use crate::random::SplitMix;

/// The difference on a document.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DocumentDifference {
    /// What the arm takes more than the baseline, in the mean over seeds: bits or nats.
    pub more: f64,
    /// What that is divided by: bytes or targets.
    pub units: f64,
}

/// What other documents would have shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bootstrap {
    /// Documents.
    pub documents: usize,
    /// Standard deviation over draws.
    pub sd: f64,
    /// The range that holds 95 % of the draws.
    pub interval: (f64, f64),
}

/// Draws of as many documents, with replacement.
const DRAWS: usize = 4000;

/// Draws documents anew, the same ones in every call. None for fewer than two.
pub fn bootstrap(documents: &[DocumentDifference]) -> Option<Bootstrap> {
    let n = documents.len();
    if n < 2 {
        return None;
    }
    let mut random = SplitMix(0x7472_6974_666f_7267);
    let mut draws: Vec<f64> = (0..DRAWS)
        .map(|_| {
            let (mut more, mut units) = (0.0, 0.0);
            for _ in 0..n {
                let document = &documents[random.below(n)];
                more += document.more;
                units += document.units;
            }
            more / units
        })
        .filter(|draw| draw.is_finite())
        .collect();
    if draws.len() < 2 {
        return None;
    }
    draws.sort_by(f64::total_cmp);
    let mean = draws.iter().sum::<f64>() / draws.len() as f64;
    let sd = (draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (draws.len() as f64 - 1.0)).sqrt();
    let at = |share: f64| draws[(share * (draws.len() - 1) as f64).round() as usize];
    Some(Bootstrap { documents: n, sd, interval: (at(0.025), at(0.975)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mean of n documents of one unit has the standard error sd/√n.
    #[test]
    fn the_spread_is_the_standard_error() {
        let n = 400;
        let documents: Vec<_> = (0..n)
            .map(|i| DocumentDifference { more: ((i * 7919) % 101) as f64 / 100.0, units: 1.0 })
            .collect();
        let mean = documents.iter().map(|d| d.more).sum::<f64>() / n as f64;
        let variance = documents.iter().map(|d| (d.more - mean).powi(2)).sum::<f64>() / n as f64;
        let expected = (variance / n as f64).sqrt();
        let found = bootstrap(&documents).unwrap();
        assert_eq!(found.documents, n);
        // 4000 draws know a standard deviation to about 1 %.
        assert!((found.sd / expected - 1.0).abs() < 0.05, "{} {expected}", found.sd);
        let (low, high) = found.interval;
        assert!((low - (mean - 1.96 * expected)).abs() < 0.2 * expected);
        assert!((high - (mean + 1.96 * expected)).abs() < 0.2 * expected);
        assert_eq!(bootstrap(&documents), Some(found));
        assert_eq!(bootstrap(&documents[..1]), None);
    }
}
