//! Holm's correction: with many arms one of them looks different by chance.

/// The p-values multiplied as Holm (1979) does, step down: with the adjusted ones below 0.05 the chance of a single
/// false claim is below 0.05, whatever the dependence between arms.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut adjusted = vec![1.0; p.len()];
    let mut least = 0f64;
    for (rank, i) in order.into_iter().enumerate() {
        least = least.max(((p.len() - rank) as f64 * p[i]).min(1.0));
        adjusted[i] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_in_the_textbook() {
        // 4·0.005, 3·0.01, then 2·0.03 and the largest, which may not be smaller than it.
        assert_eq!(holm(&[0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02]);
        assert_eq!(holm(&[]), [0.0; 0]);
        assert_eq!(holm(&[0.7]), [0.7]);
        assert_eq!(holm(&[0.7, 0.9]), [1.0, 1.0]);
    }
}
