//! Means and differences of a few runs, with intervals by Student's t.

use super::t::{t_quantile, two_sided};
use super::{CONFIDENCE, POWER, sign_flip_p};

/// A few values of one quantity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// How many there are.
    pub n: usize,
    /// Their mean.
    pub mean: f64,
    /// Their standard deviation (n − 1); NaN for one.
    pub sd: f64,
    /// Half the width of the mean's 95 % interval; NaN for one.
    pub half_width: f64,
}

/// The difference between an arm and the baseline: the arm less the baseline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Pairs; or, without pairs, the runs of the smaller of both.
    pub n: usize,
    /// Its mean.
    pub mean: f64,
    /// Standard deviation of the pairs' differences; without pairs, that of a difference of two runs.
    pub sd: f64,
    /// Half the width of the mean's 95 % interval; NaN where there are too few runs.
    pub half_width: f64,
    /// Student's t.
    pub t: f64,
    /// Its degrees of freedom.
    pub df: f64,
    /// Its two-sided p-value; NaN where there are too few runs.
    pub p: f64,
    /// The p-value of the exact sign-flip test, where there are pairs and not too many.
    pub sign_flip_p: Option<f64>,
    /// Pairs in which the arm has the lower value.
    pub wins: Option<usize>,
    /// The smallest difference that this many seeds would have shown with probability 0.8, at this standard
    /// deviation: (t₀.₉₇₅ + t₀.₈)·sd/√n.
    pub smallest_shown: f64,
}

/// Mean, standard deviation and interval of the mean.
pub fn summary(values: &[f64]) -> Summary {
    let n = values.len();
    let mean = mean(values);
    let sd = variance(values).sqrt();
    let half_width = match n {
        0 | 1 => f64::NAN,
        n => t_quantile(0.5 + 0.5 * CONFIDENCE, (n - 1) as f64) * sd / (n as f64).sqrt(),
    };
    Summary { n, mean, sd, half_width }
}

/// The mean of the differences of pairs (arm, baseline), with Student's t-test of pairs.
pub fn difference(pairs: &[(f64, f64)]) -> Difference {
    let differences: Vec<f64> = pairs.iter().map(|(arm, baseline)| arm - baseline).collect();
    let Summary { n, mean, sd, half_width } = summary(&differences);
    let df = n as f64 - 1.0;
    let (t, p, smallest_shown) = test(mean, sd / (n as f64).sqrt(), df);
    Difference {
        n,
        mean,
        sd,
        half_width,
        t,
        df,
        p,
        sign_flip_p: sign_flip_p(&differences),
        wins: Some(differences.iter().filter(|d| **d < 0.0).count()),
        smallest_shown,
    }
}

/// The difference of the means of runs that are no pairs, by Welch's t-test, which lets both have a variance of their
/// own.
pub fn unpaired_difference(arm: &[f64], baseline: &[f64]) -> Difference {
    let n = arm.len().min(baseline.len());
    let mean = mean(arm) - mean(baseline);
    let [a, b] = [arm, baseline].map(|values| variance(values) / values.len() as f64);
    let error = (a + b).sqrt();
    let df = (a + b).powi(2) / (a * a / (arm.len() as f64 - 1.0) + b * b / (baseline.len() as f64 - 1.0));
    let (t, p, smallest_shown) = test(mean, error, df);
    let half_width = if p.is_nan() { f64::NAN } else { t_quantile(0.5 + 0.5 * CONFIDENCE, df) * error };
    let sd = (variance(arm) + variance(baseline)).sqrt();
    Difference { n, mean, sd, half_width, t, df, p, sign_flip_p: None, wins: None, smallest_shown }
}

/// t, its p-value, and the smallest difference that would be shown, of a mean with a standard error.
fn test(mean: f64, error: f64, df: f64) -> (f64, f64, f64) {
    if !(df > 0.0 && error.is_finite()) {
        return (f64::NAN, f64::NAN, f64::NAN);
    }
    let t = match (mean, error) {
        // Runs without any spread: what they show has no t.
        (0.0, 0.0) => return (0.0, 1.0, 0.0),
        (mean, error) => mean / error,
    };
    (t, two_sided(t, df), (t_quantile(0.5 + 0.5 * CONFIDENCE, df) + t_quantile(POWER, df)) * error)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The variance by n − 1; NaN for fewer than two values.
fn variance(values: &[f64]) -> f64 {
    if values.len() < 2 {
        return f64::NAN;
    }
    let mean = mean(values);
    values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_runs_say_little() {
        let one = summary(&[2.0]);
        assert_eq!((one.n, one.mean), (1, 2.0));
        assert!(one.sd.is_nan() && one.half_width.is_nan());
        let pair = difference(&[(1.0, 2.0)]);
        assert_eq!((pair.mean, pair.wins, pair.sign_flip_p), (-1.0, Some(1), Some(1.0)));
        assert!(pair.p.is_nan() && pair.half_width.is_nan() && pair.smallest_shown.is_nan());
        let same = difference(&[(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]);
        assert_eq!((same.t, same.p, same.half_width), (0.0, 1.0, 0.0));
        // All differences are equal, and not 0: no chance.
        assert_eq!(difference(&[(1.0, 0.5), (2.0, 1.5)]).p, 0.0);
        assert!(unpaired_difference(&[1.0], &[2.0, 3.0]).p.is_nan());
        assert!(unpaired_difference(&[], &[]).mean.is_nan());
    }
}
