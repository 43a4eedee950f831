//! Student's t distribution.

use statrs::function::beta::beta_reg;

/// The share of the distribution with `df` degrees of freedom, above 0, that is below `t`.
pub fn t_cdf(t: f64, df: f64) -> f64 {
    if t.is_infinite() {
        return if t > 0.0 { 1.0 } else { 0.0 };
    }
    // One tail, by the regularized incomplete beta function.
    let tail = 0.5 * beta_reg(0.5 * df, 0.5, df / (df + t * t));
    if t > 0.0 { 1.0 - tail } else { tail }
}

/// Twice the tail beyond |t|: the p-value of a two-sided test.
pub(super) fn two_sided(t: f64, df: f64) -> f64 {
    if t.is_infinite() { 0.0 } else { beta_reg(0.5 * df, 0.5, df / (df + t * t)) }
}

/// The t below which the share `p` of the distribution is, 0 < `p` < 1.
pub fn t_quantile(p: f64, df: f64) -> f64 {
    if p < 0.5 {
        return -t_quantile(1.0 - p, df);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while t_cdf(high, df) < p && high < 1e300 {
        high *= 2.0;
    }
    // Halving until the ends are neighbours: the distribution is monotone, and this is not done often.
    loop {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            return middle;
        }
        if t_cdf(middle, df) < p { low = middle } else { high = middle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Closed forms for 1 and 2 degrees of freedom.
    #[test]
    fn small_degrees_of_freedom_have_formulas() {
        for t in [-7.5, -1.0, 0.0, 0.3, 2.0, 50.0f64] {
            let one = 0.5 + t.atan() / std::f64::consts::PI;
            let two = 0.5 + t / (2.0 * (2.0 + t * t).sqrt());
            assert!((t_cdf(t, 1.0) - one).abs() < 1e-13, "{t}");
            assert!((t_cdf(t, 2.0) - two).abs() < 1e-13, "{t}");
        }
        for p in [0.01, 0.2, 0.8, 0.975f64] {
            assert!((t_quantile(p, 1.0) - (std::f64::consts::PI * (p - 0.5)).tan()).abs() < 1e-9);
            assert!((t_cdf(t_quantile(p, 7.3), 7.3) - p).abs() < 1e-13);
        }
        assert!((t_quantile(0.975, 2.0) - 4.302_652_729_749_464).abs() < 1e-9);
    }
}
