//! Means over samples with their standard errors.

/// A mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Metric {
    /// What is measured: `acc`, `acc_norm`, `exact_match,strict-match` …, by the names of
    /// lm-evaluation-harness.
    pub name: &'static str,
    /// The mean over the samples, 0 to 1.
    pub value: f64,
    /// Its standard error: the samples' standard deviation (with n − 1) over √n. There is none of one sample.
    pub stderr: Option<f64>,
}

impl Metric {
    /// The mean of samples that are right or wrong; 0 of none.
    pub fn of(name: &'static str, right: &[bool]) -> Self {
        let n = right.len() as f64;
        let value = right.iter().filter(|right| **right).count() as f64 / n.max(1.0);
        let squares: f64 = right.iter().map(|right| (f64::from(u8::from(*right)) - value).powi(2)).sum();
        let stderr = (right.len() > 1).then(|| (squares / (n - 1.0)).sqrt() / n.sqrt());
        Self { name, value, stderr }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_standard_error_is_that_of_a_sample() {
        // Python: statistics.stdev([1, 1, 1, 0, 0]) / math.sqrt(5) = 0.24494897427831783
        let metric = Metric::of("acc", &[true, true, true, false, false]);
        assert_eq!(metric.value, 0.6);
        assert!((metric.stderr.unwrap() - 0.244_948_974_278_317_83).abs() < 1e-15);
        assert_eq!(Metric::of("acc", &[true]), Metric { name: "acc", value: 1.0, stderr: None });
        assert_eq!(Metric::of("acc", &[]).value, 0.0);
    }
}
